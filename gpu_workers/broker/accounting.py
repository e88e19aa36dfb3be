"""Where the time of each slot goes, by cause."""

from __future__ import annotations

from gpu_workers.broker.model import BrokerState, Cause, Slot, Task
from gpu_workers.wire.messages import Result


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


def begin(task: Task, slot: Slot) -> None:
    """Note what a slot did until it computes this task; time spent up to now is accounted for."""
    task.slot_s = {cause: max(0.0, spent - slot.told_s[cause]) for cause, spent in slot.spent_s.items() if cause != "computing"}
    slot.told_s = dict(slot.spent_s)


def timed(result: Result, task: Task) -> Result:
    """A result that says when its computing began, what it had waited for, and what its slot had done; as it is where it never began."""
    if (began := task.entered.get("computing")) is None:
        return result
    decoding, decoded = (task.entered.get(phase, began) for phase in ("decoding", "decoded"))
    waited = {"began_s": began, "queued_s": decoding - task.submitted_at, "decoding_s": decoded - decoding, "decoded_s": began - decoded}
    return Result(**vars(result) | waited | {f"{cause}_s": seconds for cause, seconds in task.slot_s.items()})
