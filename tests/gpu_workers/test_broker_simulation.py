"""The broker in simulated worlds, ten thousand in `make chaos`, and with planted bugs, which the simulation must find."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from gpu_workers.broker import events
from gpu_workers.broker.machine import Broker
from gpu_workers.broker.model import Task
from gpu_workers.wire.messages import Result
from tests.gpu_workers.invariants import Violation
from tests.gpu_workers.simulation import Simulation, simulate_all

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000"))
CHUNK, PART = 2_000, 50
MUST_HAPPEN = (
    *("done", "failed", "dead_letter", "cancelled", "CorruptVideo", "NoDevice", "WorkersBroken", "StaleCode"),
    *("killed: hang", "killed: ignored cancellation", "killed: memory", "killed: sick device", "killed: stale code", "killed: retired"),
    *("revoked", "refused", "self-tests", "start failures", "frozen", "SlotSick", "rested"),
)
"""Kinds of events that must happen, or a run would prove little."""


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_all_rules_hold(pool: ProcessPoolExecutor, first: int) -> None:
    seen: Counter[str] = Counter()
    for part in pool.map(simulate_all, [range(seed, seed + PART) for seed in range(first, first + CHUNK, PART)]):
        seen.update(part)
    assert [what for what in MUST_HAPPEN if not seen[what]] == []


def test_a_seed_always_goes_the_same_way() -> None:
    for seed in range(20):
        first: list[str] = []
        second: list[str] = []
        Simulation(seed, say=first.append).run()
        Simulation(seed, say=second.append).run()
        assert first == second


class LosesWhatComesBack(Broker):
    """A task that comes back from a worker is forgotten."""

    def _requeue(self, task: Task) -> None:
        del self.state.tasks[task.number]
        del self.state.clients[task.client].tasks[task.spec.key]


class DeliversTwice(Broker):
    """Every result is sent twice."""

    def _end(self, task: Task, result: Result, payload: bytes = b"") -> None:
        super()._end(task, result, payload)
        self._actions += [action for action in self._actions[-1:] if isinstance(action, events.Deliver)]


class HasNoWindow(Broker):
    """A client may have anything outstanding."""

    def _submitted(self, event: events.Submitted, now: float) -> None:
        self.state.clients[event.client].window = 1 << 30
        super()._submitted(event, now)


@pytest.mark.parametrize(
    ("broker_type", "rule"), [(LosesWhatComesBack, "nothing lost"), (DeliversTwice, "nothing doubled"), (HasNoWindow, "windows")]
)
def test_planted_bugs_are_found(broker_type: type[Broker], rule: str) -> None:
    with pytest.raises(Violation) as found:
        simulate_all(range(300), broker_type)
    assert found.value.rule == rule
    assert f"seed {found.value.seed}" in str(found.value)
    assert f"[{rule}]" in str(found.value)
