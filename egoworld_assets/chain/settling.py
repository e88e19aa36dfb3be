"""How the clips of a stage come to their ends: planned, taken in the ledger, run by the pool, tried again; or left to a process that has them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator

from egoworld_assets.chain import retrying
from egoworld_assets.chain.planning import Planner, StageResult
from egoworld_assets.chain.recording import Record
from egoworld_ops.execution.task import ClipTask
from gpu_workers.pool import Pool

Plan = Iterator[StageResult | ClipTask]
_ELSEWHERE_S = 1.0
"""How often to look whether a clip that another process has is done."""


def settle(
    planner: Planner, plans: Iterable[Plan], pool: Pool, retry_after_s: tuple[float, ...], record: Record | None
) -> Iterator[StageResult]:
    """The result of every clip that is planned. One that needs no work comes as it is met; one that runs elsewhere, when it has ended there.

    Args:
        planner: made the plans, and says what outcomes mean.
        plans: one a video, or a clip; advanced only as fast as results are taken.
        record: the ledger's entries for this stage; None enters nothing.
    """
    elsewhere = yield from _round(planner, plans, pool, retry_after_s, record, insist=False)
    while elsewhere:
        again = (planner.plan(task.clip.video_id, task.clip.clip_id) for task in elsewhere)
        elsewhere = yield from _round(planner, again, pool, retry_after_s, record, insist=True)
        if elsewhere and record:
            time.sleep(_ELSEWHERE_S)
            record.look()


def _round(
    planner: Planner, plans: Iterable[Plan], pool: Pool, retry_after_s: tuple[float, ...], record: Record | None, insist: bool
) -> Generator[StageResult, None, list[ClipTask]]:
    """Once through the plans; returns the tasks that another process has."""
    found: deque[list[StageResult]] = deque()
    elsewhere: list[ClipTask] = []

    def todo() -> Iterator[ClipTask]:
        for plan in plans:
            planned = list(plan)
            found.append([p for p in planned if isinstance(p, StageResult)])
            tasks = [p for p in planned if isinstance(p, ClipTask)]
            ours = record.take(tasks, insist) if record and tasks else tasks
            elsewhere.extend(task for task in tasks if task not in ours)
            yield from ours

    def met() -> Iterator[StageResult]:
        while found:
            results = found.popleft()
            yield from results
            if record:
                record.found(results)

    for tried in retrying.run(pool, todo(), retry_after_s):
        yield from met()
        result = planner.result(tried.outcome, tried.attempts)
        yield result
        if record:
            record.ended(result, tried.attempts, tried.outcome.worker)
    yield from met()
    return elsewhere
