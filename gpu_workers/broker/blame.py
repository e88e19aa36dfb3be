"""Decides which task is to blame for the death of a worker. A death counts only against tasks that had begun, and only where there is no doubt.

If two had begun, neither is counted: both run again alone, and the next death tells. Deaths for lack of memory and kills that nothing explains
have limits of their own. Deaths on a device that turns out to be out of order are not counted, and nothing is decided before the device of
the last death has passed a self-test.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpu_workers.broker.model import BrokerState, Limits, Slot, Task

CLASS = "PoisonClip"


def count(limits: Limits, slot: Slot, begun: Sequence[Task], cause: str) -> None:
    """Count a worker's death for the tasks it had begun."""
    if cause in ("exit", "hang") and begun:
        slot.deaths_in_row += 1
        slot.test_due = slot.test_due or slot.deaths_in_row >= limits.deaths_before_test
    for task in begun:
        if cause == "sigkill":
            task.suspicions += 1
            task.alone = task.alone or task.suspicions >= limits.memory_deaths
        else:
            task.alone = True
            task.last_death = slot.spec.name
        if len(begun) == 1:
            _charge(task, slot, cause)


def _charge(task: Task, slot: Slot, cause: str) -> None:
    if cause == "memory":
        task.memory_deaths += 1
    elif cause == "sigkill":
        task.unexplained_deaths += 1
    else:
        task.deaths.append(slot.spec.name)


def verdict(limits: Limits, task: Task) -> str | None:
    """Why a task must not run again; None where it may."""
    for n, limit, how in (
        (len(task.deaths), limits.deaths, "its worker died or hung"),
        (task.memory_deaths, limits.memory_deaths, "its worker died for lack of memory"),
        (task.unexplained_deaths, limits.unexplained_deaths, "its worker was killed from outside"),
    ):
        if n >= limit:
            return f"{how} {n} times while it was the only clip in flight there"
    return None


def doubt(state: BrokerState, task: Task) -> Slot | None:
    """The slot whose self-test a verdict must wait for: the last death was there, and nothing since has shown that the device works."""
    slot = state.slots.get(task.deaths[-1]) if len(task.deaths) >= state.limits.deaths else None
    return slot if slot is not None and slot.deaths_in_row else None


def take_back(task: Task, slot: Slot) -> None:
    """Do not count the deaths of a task on a device that is out of order."""
    task.deaths = [name for name in task.deaths if name != slot.spec.name]


def machine_verdict(limits: Limits, times: Sequence[bool]) -> str | None:
    """Why a task that ran when the machine died must not run again; `times` says for each death whether it was alone."""
    alone = sum(times)
    return f"the machine died {alone} times while it was the only clip in flight" if alone >= limits.deaths else None
