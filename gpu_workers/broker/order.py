"""Which task goes where next. Looks at the state and changes nothing.

Order: tasks that must run alone on the host; tasks that a worker died with; priority; the client with the least device time used; longest first
(shortest first on a slot that is cold, so that its first decode, with which nothing overlaps, is short). Among equal tasks of that client a slot
prefers its last video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_workers.broker.model import BrokerState, Slot, Task, Worker


@dataclass(frozen=True, slots=True)
class Placement:
    """A task for a slot: to the worker named, or to one that has to be started first."""

    task: Task
    slot: Slot
    worker: Worker | None


def next_placement(state: BrokerState, now: float) -> Placement | None:
    """What to place next; None where nothing can be placed now."""
    queue = state.queue()
    in_flight = [t for w in state.workers.values() for t in w.tasks]
    if not queue or any(state.tasks[i].host_alone for i in in_flight):
        return None
    if hermits := [t for t in queue if t.host_alone]:
        return None if in_flight else _on_some_slot(state, hermits, 0, now)
    for level in range(state.limits.credits):
        if placement := _on_some_slot(state, queue, level, now):
            return placement
    return None


def _on_some_slot(state: BrokerState, queue: Sequence[Task], level: int, now: float) -> Placement | None:
    waiting = list(queue)
    for slot in sorted(state.slots.values(), key=lambda s: _free_at(state, s)):
        held = state.on_slot(slot.spec.name)
        if slot.state != "ok" or len(held) != level or not _open(state, slot, held):
            continue
        fitting = [t for t in waiting if _fits(state, t, slot, now)]
        if not fitting:
            continue
        task = choose(state, slot, fitting, crowded=len(queue) > len(state.slots))
        holder = next((w for w in state.workers_of(slot.spec.name) if w.tasks), None)
        if holder is None:
            return Placement(task, slot, _worker_for(state, slot, task))
        if holder.environment == task.spec.environment and not task.alone and roomy(slot, holder, task):
            return Placement(task, slot, holder)
        waiting.remove(task)  # it waits until the tasks there have ended; nothing else is started on the slot before
    return None


def _open(state: BrokerState, slot: Slot, held: Sequence[Task]) -> bool:
    """Whether something may be added to a slot: no start, test or end is under way, and nobody there has to be alone."""
    return all(w.usable for w in state.workers_of(slot.spec.name)) and not any(t.alone or t.host_alone for t in held)


def _worker_for(state: BrokerState, slot: Slot, task: Task) -> Worker | None:
    return next((w for w in state.workers_of(slot.spec.name) if w.environment == task.spec.environment), None)


def _fits(state: BrokerState, task: Task, slot: Slot, now: float) -> bool:
    """Whether a slot, were it empty, could run a task now."""
    return _could_run(task, slot, now) and not (
        task.last_death == slot.spec.name
        and any(other is not slot and _could_run(task, other, now) for other in state.usable_slots(task.spec.kind))
    )  # a death on another slot would tell the task from the device


def _could_run(task: Task, slot: Slot, now: float) -> bool:
    spec, starts = task.spec, slot.starts.get(task.spec.environment)
    enough = not slot.spec.capacity_mb or spec.memory_mb <= slot.spec.capacity_mb
    return spec.kind == slot.spec.kind and enough and (starts is None or starts.not_before <= now)


def roomy(slot: Slot, worker: Worker, task: Task) -> bool:
    """Whether a worker's slot has memory for the task's operator beside those that the worker has loaded."""
    if not slot.spec.capacity_mb or task.spec.operator in worker.loaded:
        return True
    return sum(worker.loaded.values()) + task.spec.memory_mb <= slot.spec.capacity_mb


def choose(state: BrokerState, slot: Slot, fitting: Sequence[Task], crowded: bool) -> Task:
    """The task that is next by the order, of those that fit a slot."""
    first = min(fitting, key=lambda t: _before(state, t))
    equals = [t for t in fitting if _before(state, t) == _before(state, first)]
    if crowded and slot.warm and (same := [t for t in equals if t.spec.video == slot.last_video]):
        equals = same
    sign = -1 if slot.warm or not crowded else 1
    return min(equals, key=lambda t: (sign * state.estimate_s(t.spec), t.number))


def _before(state: BrokerState, task: Task) -> tuple[bool, int, float, str]:
    return (not task.alone, -task.spec.priority, state.clients[task.client].used_s, task.client)


def _free_at(state: BrokerState, slot: Slot) -> float:
    """When the slot will be done with what it computes, as far as can be told."""
    return max((t.entered_at + state.estimate_s(t.spec) for t in state.on_slot(slot.spec.name) if t.state == "computing"), default=0.0)


def to_revoke(state: BrokerState, now: float) -> Task | None:
    """A prefetched task to take back from a busy slot, because a worker elsewhere has nothing to do; None where there is none."""
    empty = [s for s in state.slots.values() if s.state == "ok" and not state.on_slot(s.spec.name) and _open(state, s, [])]
    queue = state.queue() if empty else []
    if any(task.host_alone for task in queue):
        return None
    idle = [s for s in empty if not any(_could_run(task, s, now) for task in queue)]
    if len(idle) <= sum(t.revoking for t in state.tasks.values()):
        return None
    for task in state.tasks.values():
        waits = task.state in ("leased", "decoding", "decoded") and not (task.revoking or task.abandoned)
        if (
            waits
            and state.workers[str(task.worker)].usable
            and len(state.on_slot(str(task.slot))) > 1
            and any(_could_take(state, s, task, now) for s in idle)
        ):
            return task
    return None


def _could_take(state: BrokerState, slot: Slot, task: Task, now: float) -> bool:
    return _worker_for(state, slot, task) is not None and _fits(state, task, slot, now)
