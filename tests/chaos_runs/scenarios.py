"""All scenarios, and how much of each is done by `make chaos-runs` and by the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos_runs import full_disk, kills, power_loss, two_writers


@dataclass(frozen=True, slots=True)
class Scenario:
    """Takes a size and a seed, gives figures.

    Args:
        full, short: sizes: in `make chaos-runs`, in the tests.
    """

    run: Callable[[int, int], str]
    full: int
    short: int


ALL = {
    "kills": Scenario(kills.run, 200, 4),
    "power-loss": Scenario(power_loss.run, 400, 14),
    "full-disk": Scenario(full_disk.run, 24, 2),
    "two-writers": Scenario(two_writers.run, 5, 1),
}
