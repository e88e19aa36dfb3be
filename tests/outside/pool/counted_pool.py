"""A pool from another package: the inline one, with a count of what it was given."""

from collections.abc import Iterable, Iterator

from egoworld_ops.execution.task import ClipTask
from egoworld_ops.settings import PoolSettings
from gpu_workers.inline import InlinePool
from gpu_workers.pool import Done, Failed

GIVEN: list[str] = []


class CountedPool:
    """Counts clips; `pool.options` may say how many threads to use."""

    def __init__(self, settings: PoolSettings, name: str, priority: int) -> None:
        self._pool = InlinePool(int(settings.options.get("threads", 1)))

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        """As `gpu_workers.pool.Pool.run`."""
        for task in tasks:
            GIVEN.append(f"{task.stage}.{task.backend}")
            yield from self._pool.run([task])
