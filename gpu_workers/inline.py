"""The pool that runs clips in this process, one after the other: for debugging and for machines without a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from egoworld_ops.errors import SetupError, classify
from egoworld_ops.execution.task import ClipTask
from gpu_workers.pool import Done, Failed, Timing
from gpu_workers.worker import innermost

if TYPE_CHECKING:
    from egoworld_ops.execution.executor import Executor
    from egoworld_ops.settings import PoolSettings


class InlinePool:
    """Runs clips one after the other; operators stay loaded between calls.

    Args:
        threads: how many threads an operator may use.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor: Executor | None = None

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        """As `Pool.run`, in the order of `tasks`."""
        for task in tasks:
            yield self._one(task)

    def _one(self, task: ClipTask) -> Done | Failed:
        started, timing = time.monotonic(), Timing(datetime.now(UTC))
        taken: list[int] = []
        try:
            table = self._warm_executor().run(task, taken.append)
            return Done(task, table, time.monotonic() - started, timing=timing)
        except SetupError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a hostile file raises costs its own clip and no other
            culprit = f"clip {task.clip.clip_id} of {task.clip.video_path}"
            seconds = time.monotonic() - started
            return Failed(task, classify(error, culprit), innermost(error), seconds, taken[-1] if taken else None, timing=timing)

    def _warm_executor(self) -> Executor:
        from egoworld_ops.execution.executor import Executor

        if self._executor is None:
            self._executor = Executor(self._threads)
        return self._executor


def inline_pool(settings: PoolSettings, name: str, priority: int) -> InlinePool:
    """The inline pool of this process, which stays warm from step to step; as `gpu_workers.pool.make` builds pools."""
    return _of_threads(settings.threads)


@cache
def _of_threads(threads: int) -> InlinePool:
    return InlinePool(threads)
