"""Gets the result of every clip of a stage: plans it, starts it in the ledger, runs it in the pool and retries it, or waits for another process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from egoworld_assets.chain import retrying
from egoworld_assets.chain.bookkeeping import Entries
from egoworld_assets.chain.planning import Planner
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops.execution.task import ClipTask
from gpu_workers.pool import Pool

Plan = Iterator[StageResult | ClipTask]
_ELSEWHERE_S = 1.0
"""How often to check whether a clip that another process works on is done."""
_MOST_AT_ONCE = 256
"""Maximum number of clips that are planned before the first of them is submitted, which starts at one and doubles; and of results found that are
entered together."""


@dataclass(slots=True)
class _Left:
    """What is left after a round: tasks that another process works on, and clips whose files cannot be read now."""

    elsewhere: list[ClipTask] = field(default_factory=list)
    unread: list[StageResult] = field(default_factory=list)


def settle(
    planner: Planner, plans: Iterable[Plan], pool: Pool, retry_after_s: tuple[float, ...], entries: Entries | None
) -> Iterator[StageResult]:
    """The result of every planned clip. A clip that needs no work comes at once; one that another process works on, when it is finished there. A clip
    whose files cannot be read now is planned again after each of the pauses.

        Args:
            planner: made the plans, and says what outcomes mean.
            plans: one a video, or a clip; advanced only as fast as results are taken.
            entries: the ledger's entries for this stage; None enters nothing.
    """
    left = yield from _round(planner, plans, pool, retry_after_s, entries)
    elsewhere = left.elsewhere
    for pause_s in retry_after_s:
        if left.unread:
            time.sleep(pause_s)
            again = (planner.plan(result.video_id, result.clip_id) for result in left.unread)
            left = yield from _round(planner, again, pool, retry_after_s, entries)
            elsewhere += left.elsewhere
    yield from left.unread
    while elsewhere:
        again = (planner.plan(task.clip.video_id, task.clip.clip_id) for task in elsewhere)
        left = yield from _round(planner, again, pool, retry_after_s, entries)
        yield from left.unread
        elsewhere = left.elsewhere
        if elsewhere and entries:
            time.sleep(_ELSEWHERE_S)
            entries.free_abandoned()


def _round(
    planner: Planner, plans: Iterable[Plan], pool: Pool, retry_after_s: tuple[float, ...], entries: Entries | None
) -> Generator[StageResult, None, _Left]:
    """Once through the plans."""
    found: deque[list[StageResult]] = deque()
    left = _Left()

    def todo() -> Iterator[ClipTask]:
        for planned in _in_parts(plans):
            results = [p for p in planned if isinstance(p, StageResult)]
            left.unread += [result for result in results if result.unread]
            found.append([result for result in results if not result.unread])
            tasks = [p for p in planned if isinstance(p, ClipTask)]
            ours = {task.key for task in (entries.take(tasks) if entries and tasks else tasks)}
            left.elsewhere += [task for task in tasks if task.key not in ours]
            yield from (task for task in tasks if task.key in ours)

    def met() -> Iterator[StageResult]:
        while found:
            results = found.popleft()
            while found and len(results) + len(found[0]) <= _MOST_AT_ONCE:  # entered together
                results += found.popleft()
            yield from results
            if entries:
                entries.found(results)

    for tried in retrying.run(pool, todo(), retry_after_s):
        yield from met()
        result = planner.result(tried.outcome, tried.attempts)
        yield result
        if entries:
            entries.ended(result, tried.attempts, tried.outcome.worker)
    if entries:
        entries.enter_rest()
    yield from met()
    return left


def _in_parts(plans: Iterable[Plan]) -> Iterator[list[StageResult | ClipTask]]:
    size = 1
    for plan in plans:
        while part := list(islice(plan, size)):
            yield part
            size = min(_MOST_AT_ONCE, 2 * size)
