"""One real `Broker` in a world generated from a seed: `simulate(seed)`, or `python -m tests.gpu_workers.simulation SEED` to watch it.

The clock is virtual, so hours pass in milliseconds, and the same seed always goes the same way. `plan` draws the events, `world` has the
workers and clients that the broker deals with, `invariants` has the rules that hold after every step and at the end.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random

from gpu_workers.broker import events
from gpu_workers.broker.machine import Broker
from gpu_workers.wire import messages
from tests.gpu_workers.invariants import Checks, Violation
from tests.gpu_workers.plan import draw
from tests.gpu_workers.world import Person, Process

MOST_EVENTS = 20_000


class Simulation:
    """The shell of a broker: a clock, a heap of coming events, and the effects of the broker's actions.

    Args:
        broker_type: the broker, or one with a bug.
        say: where a trace goes, if anywhere.
    """

    def __init__(self, seed: int, broker_type: type[Broker] = Broker, say: Callable[[str], None] | None = None) -> None:
        self.seed, self.say, self.random, self.now = seed, say, Random(seed), 0.0
        self.plan = draw(self.random)
        self.broker = broker_type(self.plan.limits, self.plan.machine_deaths)
        self.processes: dict[str, Process] = {}
        self.people: dict[str, Person] = {}
        self.stopping = False
        self.deadline: float | None = None
        self.seen: Counter[str] = Counter()
        self._heap: list[tuple[float, int, Callable, tuple]] = []
        self._order = count()
        self._checks = Checks(self)

    def run(self) -> Counter[str]:
        """Run all events; returns how often each kind happened.

        Raises:
            Violation: a rule was broken, or the broker raised.
        """
        try:
            self._prepare()
            while self._next():
                if self.seen["events"] > MOST_EVENTS:
                    self._checks.fail("terminates", f"still going after {MOST_EVENTS} events")
            self._checks.at_end()
        except Violation:
            raise
        except Exception as error:
            raise Violation(self.seed, self.now, "does not raise", f"{type(error).__name__}: {error}") from error
        return self.seen

    def _prepare(self) -> None:
        plan = self.plan
        self.feed(events.SlotsWanted(tuple(plan.slots)))
        for client in plan.clients:
            person = Person(self, client.name, list(client.clips), client.greedy, client.pause, client.read_s)
            self.people[client.name] = person
            self.at(client.joins_s, person.join)
            if client.leaves_s is not None:
                self.at(client.joins_s + client.leaves_s, person.leave)
            for cancel_s in client.cancels_s:
                self.at(client.joins_s + cancel_s, person.cancel)
        for times, do in (
            (plan.kills, lambda: self._strike("sigkill")),
            (plan.memory_kills, self._run_out_of_memory),
            (plan.freezes, self._freeze),
            (plan.fat, self._grow),
        ):
            for time_s in times:
                self.at(time_s, do)
        for time_s, slots in plan.scales:
            self.at(time_s, self.feed, events.SlotsWanted(tuple(slots)))
        for time_s, slot in plan.reported_sick:
            self.at(time_s, self.feed, events.SlotSick(slot, "fell off the bus"))
        if plan.stop_s is not None:
            self.at(plan.stop_s, self._stop)

    def _next(self) -> bool:
        """The next step: an event of the world, a deadline of the broker, or the end."""
        due = self.deadline
        if due is not None and (not self._heap or due < self._heap[0][0]):
            self.now = due
            self.feed(events.Tick())
        elif self._heap:
            self.now, _, do, args = heapq.heappop(self._heap)
            do(*args)
        elif not self.stopping:
            self._checks.at_rest()
            self._stop()
        else:
            return False
        return True

    def at(self, time_s: float, do: Callable, *args: object) -> None:
        """Schedule an event."""
        heapq.heappush(self._heap, (time_s, next(self._order), do, args))

    def later(self, in_s: float, do: Callable, *args: object) -> None:
        """Schedule an event in `in_s` seconds."""
        self.at(self.now + in_s, do, *args)

    def latency(self) -> float:
        """The latency of a message."""
        return self.random.random() * self.plan.latency_s

    def is_sick(self, slot: str) -> bool:
        """Whether a device is broken, known to the broker or not."""
        return self.plan.sick.get(slot, self.now + 1) <= self.now

    # the shell

    def feed(self, event: events.Event) -> None:
        """Give the broker an event, check what it does, and do it."""
        self.seen["events"] += 1
        self.seen[type(event).__name__] += 1
        if self.say:
            self.say(f"{self.now:9.3f}  {_brief(event)}")
        agrees = self._checks.expect(event, self.now)
        actions = self.broker.step(event, self.now)
        if self.say:
            for action in actions:
                self.say(f"{'':13}{_brief(action)}")
        self.deadline = self.broker.next_deadline(self.now)
        self._checks.after(actions, self.now)
        agrees()
        for action in actions:
            self._perform(action)

    def _perform(self, action: events.Action) -> None:
        if isinstance(action, events.Start):
            self.processes[action.worker] = Process(self, action.worker, action.slot, action.environment)
        elif isinstance(action, events.Kill):
            self.later(self.random.random() * self.plan.kill_s, self.processes[action.worker].die, "sigkill")
        elif isinstance(action, events.Tell):
            process = self.processes[action.worker]
            process.received_until = max(process.received_until, self.now + self.latency())
            clip = self._checks.clips.get(action.payload.decode())
            self.at(process.received_until, process.receive, action.message, clip)
        elif isinstance(action, events.Deliver | events.Resize):
            self._send(self.people[action.client], action)
        elif isinstance(action, events.Refuse):
            person = self.people[action.client]
            person.refused = person.gone = True
            self.later(self.random.random() * 0.3, self._close, person)

    def _send(self, person: Person, action: events.Deliver | events.Resize) -> None:
        person.received_until = max(person.received_until, self.now + self.latency())
        if isinstance(action, events.Resize):
            self.at(person.received_until, person.resized, action.window)
        else:
            self.at(person.received_until, person.receive, action.result)

    def client_sent(self, person: Person, event: events.Event) -> None:
        """A message of a client has arrived."""
        if person.left or person.refused:
            return
        person.left = isinstance(event, events.ClientLeft)
        self.feed(event)
        if isinstance(event, events.ClientJoined):
            self._send(person, events.Resize(person.name, person.granted))

    def _close(self, person: Person) -> None:
        if not person.left:
            person.left = True
            self.feed(events.ClientLeft(person.name))

    def worker_said(self, process: Process, message: messages.Ready) -> None:
        """A message of a worker has arrived."""
        self.feed(events.WorkerSaid(process.name, message))

    def worker_died(self, process: Process) -> None:
        """A worker's socket and process have ended."""
        self.feed(events.WorkerDied(process.name, process.cause, "ImportError: no model" if not process.ready else ""))
        del self.processes[process.name]

    # mishaps

    def _strike(self, cause: events.DeathCause) -> None:
        alive = [process for process in self.processes.values() if process.alive]
        if alive:
            self.random.choice(alive).die(cause)

    def _run_out_of_memory(self) -> None:
        if self.random.random() < 0.5:
            self._strike("memory")
        elif self.processes:
            self.feed(events.WorkerMemory(self.random.choice(list(self.processes)), 9000, 8000))

    def _freeze(self) -> None:
        if self.processes:
            self.random.choice(list(self.processes.values())).frozen = True
            self.seen["frozen"] += 1

    def _grow(self) -> None:
        if self.processes:
            self.feed(events.WorkerMemory(self.random.choice(list(self.processes)), 7000, 8000))

    def _stop(self) -> None:
        self.stopping = True
        self.feed(events.StopWanted())


def _brief(what: object) -> str:
    """An event or action on one line."""
    if isinstance(what, events.Submitted):
        spec = what.spec
        return f"Submitted {spec.key} {spec.operator} {spec.kind} env {spec.environment.python}/{spec.environment.code} priority {spec.priority}"
    return str(what).replace("messages.", "")


def simulate(seed: int, broker_type: type[Broker] = Broker) -> Counter[str]:
    """Run a seed; see `Simulation.run`."""
    return Simulation(seed, broker_type).run()


def simulate_all(seeds: range, broker_type: type[Broker] = Broker) -> Counter[str]:
    """Run many seeds; returns the sums of their counts."""
    total: Counter[str] = Counter()
    for seed in seeds:
        total.update(simulate(seed, broker_type))
    return total


def main() -> None:
    """Replay a seed, with all events and actions."""
    simulation = Simulation(int(sys.argv[1]), say=print)
    print(f"{simulation.plan.limits}\n{simulation.plan.slots}")
    for client in simulation.plan.clients:
        print(client.name, f"joins at {client.joins_s:.3f}", *(f"{clip.spec.key}: {clip.nature}" for clip in client.clips), sep=", ")
    print(dict(simulation.run()))


if __name__ == "__main__":
    main()
