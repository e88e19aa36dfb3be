"""Where the time of each slot goes, by cause."""

from __future__ import annotations

from gpu_workers.broker.model import BrokerState, Cause, Slot


class Clock:
    """Adds the time between two events to the cause that applied in between."""

    def __init__(self) -> None:
        self._then: float | None = None

    def account(self, state: BrokerState, now: float) -> None:
        """Account for the time up to `now`; `state` is what it was until now."""
        if self._then is not None and now > self._then:
            for slot in state.slots.values():
                slot.spent_s[cause(state, slot)] += now - self._then
        self._then = now


def cause(state: BrokerState, slot: Slot) -> Cause:
    """What a slot is doing or waiting for.

    `starved_decode`: it holds a clip that is not decoded far enough; `blocked`: clients have taken no results and may submit nothing until they
    do; `starved_clips`: clients are there but have nothing waiting for this slot; `idle`: nobody is there who ever submitted.
    """
    tasks = state.on_slot(slot.spec.name)
    if any(t.state == "computing" for t in tasks):
        return "computing"
    if tasks:
        return "starved_decode"
    if any(not w.ready or w.testing for w in state.workers_of(slot.spec.name)):
        return "starting"
    if any(c.unacked and c.outstanding >= state.window() for c in state.clients.values()):
        return "blocked"
    return "starved_clips" if any(c.submitted for c in state.clients.values()) else "idle"
