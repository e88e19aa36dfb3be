"""Which failures of clips are retried, and when. This is the only place that retries clips: workers, the broker, operators and Dagster do not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from egoworld_ops.execution.task import ClipTask
from gpu_workers.pool import Done, Failed, Pool


@dataclass(frozen=True, slots=True)
class Attempted:
    """The final outcome of a task, and how often it was tried."""

    outcome: Done | Failed
    attempts: int


def run(pool: Pool, tasks: Iterable[ClipTask], after_s: Sequence[float]) -> Iterator[Attempted]:
    """Run tasks. Those whose error says that a retry may help run again: after all others, and not before the pause is over.

    Args:
        pool: what runs them.
        tasks: consumed lazily.
        after_s: the pause before each further attempt, from the failure on.
    """
    for attempt, pause_s in enumerate([*after_s, None], 1):
        again: list[tuple[float, ClipTask]] = []
        for outcome in pool.run(tasks):
            if pause_s is not None and isinstance(outcome, Failed) and outcome.error.retryable:
                again.append((time.monotonic() + pause_s, outcome.task))
            else:
                yield Attempted(outcome, attempt)
        if not again:
            return
        tasks = _when_due(again)


def _when_due(waiting: Sequence[tuple[float, ClipTask]]) -> Iterator[ClipTask]:
    for due, task in waiting:
        time.sleep(max(0.0, due - time.monotonic()))
        yield task
