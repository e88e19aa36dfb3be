"""The interface of every pool: tasks go in as paths, frame ranges and settings; Arrow tables or typed errors come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from egoworld_ops.errors import EgoworldError
from egoworld_ops.execution.task import ClipTask


@dataclass(frozen=True, slots=True)
class Done:
    """A clip's table, and the seconds it took to compute."""

    task: ClipTask
    table: pa.Table
    seconds: float
    worker: str = "inline"


@dataclass(frozen=True, slots=True)
class Failed:
    """A clip that could not be processed, why, where in the code (innermost frames), and the last frame its operator had taken."""

    task: ClipTask
    error: EgoworldError
    traceback: str
    seconds: float
    frame_index: int | None = None
    worker: str = "inline"


class Pool(Protocol):
    """Runs clips. One bad clip never fails another."""

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        """Work on the tasks; results come as they end, each task exactly once, in any order.

        `tasks` is consumed lazily and only as fast as results are taken, so that memory is bounded by the clips in flight.

        Raises:
            SetupError: the installation or the settings are wrong; no clip can succeed.
            PoolLost: the pool went away; what has not been returned has to be submitted again.
        """
