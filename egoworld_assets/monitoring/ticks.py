"""What Dagster's sensors and schedules came to when they last looked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor or schedule.

    Args:
        running: whether it is switched on.
        looked_at_s: when the last look that has ended began, seconds since the epoch; None where none has ended.
        failed: whether that one failed.
        error: what it said, where it failed.
    """

    name: str
    running: bool
    looked_at_s: float | None
    failed: bool
    error: str


def of_sensors(instance: DagsterInstance) -> Iterator[Sensor]:
    """All that the instance knows. Of a look under way the one before it counts: else a sensor that fails would be well now and then."""
    from dagster._core.scheduler.instigation import TickStatus

    ended = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
    for state in instance.all_instigator_state():
        last = next(iter(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1, statuses=ended)), None)
        error = last.error.message if last is not None and last.error else ""
        failed = last is not None and last.status == TickStatus.FAILURE
        yield Sensor(state.instigator_name, state.is_running, last.timestamp if last else None, failed, error)
