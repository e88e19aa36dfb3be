"""The interface of every pool: tasks go in as paths, frame ranges and settings; Arrow tables or typed errors come out."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from egoworld_ops import plugins
from egoworld_ops.errors import EgoworldError
from egoworld_ops.execution.task import ClipTask

if TYPE_CHECKING:
    from egoworld_ops.settings import PoolSettings

Build = Callable[["PoolSettings", str, int], "Pool"]
_BUILT_IN: Mapping[str, str] = {"broker": "gpu_workers.broker_pool:BrokerPool", "inline": "gpu_workers.inline:inline_pool"}
"""The kinds of pool that are built in, named as packages name theirs (`egoworld_ops.plugins.POOLS`)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a clip was computed, what it waited for, and what its device did before.

    Args:
        began_at: when computing began.
        waited_s: seconds it was `queued`, `decoding` ahead and `decoded`, ready for its turn.
        device_s: seconds since its device last computed, by cause: `starting`, `starved_decode`, `starved_clips`, `blocked`, `idle`.
    """

    began_at: datetime
    waited_s: Mapping[str, float] = field(default_factory=dict)
    device_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """A clip's table, the seconds it took to compute, and when that was, where the pool says."""

    task: ClipTask
    table: pa.Table
    seconds: float
    worker: str = "inline"
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A clip that could not be processed, why, where in the code (innermost frames), and the last frame its operator had taken."""

    task: ClipTask
    error: EgoworldError
    traceback: str
    seconds: float
    frame_index: int | None = None
    worker: str = "inline"
    timing: Timing | None = None


def made(outcome: Done | Failed) -> dict[str, Any]:
    """Where and when an outcome was computed, as the file of its result says it."""
    if outcome.timing is None:
        return {"worker": outcome.worker}
    began_at = outcome.timing.began_at.astimezone(UTC).isoformat(timespec="milliseconds")
    waited_s, device_s = (
        {of: round(s, 3) for of, s in said.items() if s >= 0.001} for said in (outcome.timing.waited_s, outcome.timing.device_s)
    )
    return {"worker": outcome.worker, "began_at": began_at, "waited_s": waited_s, "device_s": device_s}


class Pool(Protocol):
    """Runs clips. One bad clip never fails another."""

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        """Work on the tasks; results come as they end, each task exactly once, in any order.

        `tasks` is consumed lazily and only as fast as results are taken, so that memory is bounded by the clips in flight.

        Raises:
            SetupError: the installation or the settings are wrong; no clip can succeed.
            PoolLost: the pool went away; what has not been returned has to be submitted again.
        """


def make(settings: PoolSettings, name: str = "", priority: int = 0) -> Pool:
    """The pool that the settings choose.

    Args:
        name: who asks, for people who look at the pool's status.
        priority: higher goes first in a pool that is shared.

    Raises:
        BrokenPlugin: a package brings it, and it cannot be used.
    """
    if built_in := _BUILT_IN.get(settings.kind):
        build: Build = pkgutil.resolve_name(built_in)
        return build(settings, name, priority)
    plugin = plugins.found(plugins.POOLS, _BUILT_IN)[settings.kind]
    brought = plugin.load()
    made: Pool | None = brought(settings, name, priority) if callable(brought) else None
    if made is None or not callable(getattr(made, "run", None)):
        raise plugin.broken(f"{plugin.target}, called with settings, name and priority, gives nothing that has `run`")
    return made
