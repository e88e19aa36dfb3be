"""All scenarios, and how often each is done in full and in the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.gpu_workers.chaos import (
    broker_kills,
    client_kills,
    full_disk,
    fuzzed_videos,
    hangs,
    hostile_frames,
    overload,
    strangers,
    worker_kills,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that goes wrong.

    Args:
        run: given a size and a seed, does it, and returns a line of figures.
        full: the size of `make chaos`.
        small: the size in the tests.
        in_time: it measures when things happen, so nothing else may load the machine.
    """

    run: Callable[[int, int], str]
    full: int
    small: int
    in_time: bool = False


SCENARIOS = {
    "worker-kills": Scenario(worker_kills.run, 1000, 20),
    "broker-kills": Scenario(broker_kills.run, 200, 5),
    "client-kills": Scenario(client_kills.run, 200, 8),
    "hangs": Scenario(hangs.run, 50, 8, in_time=True),
    "full-disk": Scenario(full_disk.run, 40, 1),
    "hostile-frames": Scenario(hostile_frames.run, 10_000, 500),
    "fuzzed-videos": Scenario(fuzzed_videos.run, 10_000, 40),
    "overload": Scenario(overload.run, 60, 4, in_time=True),
    "strangers": Scenario(strangers.run, 10, 1),
}
