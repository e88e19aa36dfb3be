"""Slots and the workers on them: which are wanted, which workers must end to free memory, which cannot be started. Changes slots, never tasks."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_workers.broker.model import BrokerState, Environment, Slot, SlotSpec, Starts, Task, Worker
from gpu_workers.wire.messages import Kind

_BACKOFF_S = 0.05
_BACKOFF_MOST_S = 2.0


def want(state: BrokerState, wanted: Sequence[SlotSpec]) -> None:
    """Add the slots that are new, take back in those that were draining, and drain those that are not named."""
    names = {spec.name for spec in wanted}
    for spec in wanted:
        slot = state.slots.setdefault(spec.name, Slot(spec))
        if slot.state == "draining":
            slot.state = "ok"
    for name, slot in list(state.slots.items()):
        if name not in names and slot.state == "ok":
            slot.state = "draining"
            forget_if_gone(state, slot)


def forget_if_gone(state: BrokerState, slot: Slot) -> None:
    """Drop a drained slot once its last worker has ended."""
    if slot.state == "draining" and not state.workers_of(slot.spec.name):
        state.slots.pop(slot.spec.name, None)


def to_retire(state: BrokerState, slot: Slot, worker: Worker | None, task: Task) -> list[Worker]:
    """Idle workers of a slot that must end before a task can be placed there: for memory, or because their code is out of date."""
    others = [w for w in state.workers_of(slot.spec.name) if w is not worker and not w.tasks]
    wanted = task.spec.environment
    stale = [w for w in others if (w.environment.python, w.environment.runner) == (wanted.python, wanted.runner) and worker is None]
    if stale or not slot.spec.capacity_mb:
        return stale
    if worker is not None and task.spec.operator in worker.loaded:
        return []
    need_mb = task.spec.memory_mb + sum(sum(w.loaded.values()) for w in [*others, *([worker] if worker else [])])
    if need_mb <= slot.spec.capacity_mb:
        return []
    return [*others, *([worker] if worker is not None and not worker.tasks else [])]


def note_start_failure(state: BrokerState, worker: Worker, last_words: str, now: float) -> None:
    """A worker died before it was ready: wait longer each time before the next start."""
    starts = state.slots[worker.slot].starts.setdefault(worker.environment, Starts())
    starts.failures += 1
    starts.last_words = last_words
    if starts.failures >= state.limits.start_failures:
        starts.not_before = now + state.limits.cooldown_s
        starts.failures = state.limits.start_failures - 1  # after the pause one start is tried
    else:
        starts.not_before = now + min(_BACKOFF_S * 2**starts.failures, _BACKOFF_MOST_S)


def broken(slot: Slot, environment: Environment, now: float) -> bool:
    """Whether a slot will not start an environment soon: the circuit breaker is open."""
    starts = slot.starts.get(environment)
    return starts is not None and starts.not_before > now + _BACKOFF_MOST_S


def broken_everywhere(state: BrokerState, task: Task, now: float) -> bool:
    """Whether no slot that could run a task will start a worker for it soon."""
    able = [s for s in state.usable_slots(task.spec.kind) if not s.spec.capacity_mb or task.spec.memory_mb <= s.spec.capacity_mb]
    return bool(able) and all(broken(s, task.spec.environment, now) for s in able)


def hopeless(state: BrokerState, kind: Kind, memory_mb: int) -> tuple[str, str, str] | None:
    """Error class, reason and cure where no slot can ever run a task of that kind and memory; None where one may."""
    known = [s for s in state.slots.values() if s.spec.kind == kind]
    if not known:
        there = ", ".join(sorted({s.spec.kind for s in state.slots.values()})) or "none"
        return "NoDevice", f"needs a {kind} device, and the pool has {there}", "Choose another backend or device in the settings"
    if all(s.state == "sick" for s in known):
        said = "; ".join(f"{s.spec.name}: {s.reason}" for s in known)
        return "NoDevice", f"every {kind} device is out of order: {said}", "Mend the device and restart the pool"
    most_mb = max((s.spec.capacity_mb or memory_mb for s in known if s.state != "sick"), default=0)
    if memory_mb > most_mb:
        return "NoDevice", f"needs {memory_mb} MB, the largest {kind} device has {most_mb} MB", "Choose a smaller model in the settings"
    return None
