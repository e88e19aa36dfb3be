"""A broker whose clock the test sets: events by name, and the broker's actions."""

from __future__ import annotations

from typing import Any

from gpu_workers.broker import events
from gpu_workers.broker.machine import Broker
from gpu_workers.broker.model import Environment, Limits, SlotSpec, Spec, Task
from gpu_workers.wire import messages
from gpu_workers.wire.messages import Result

PYTHON = Environment("python3", "tests.runner", "c1")
OTHER = Environment("other", "tests.runner", "c1")
LIMITS = Limits(hang_base_s=10.0, start_s=20.0, grace_s=5.0, cooldown_s=60.0)
UNLEARNED_S = LIMITS.hang_base_s + LIMITS.unlearned_factor
"""Maximum time of a task whose client estimates one second."""


class Host:
    """One broker. Workers do only what a test says.

    Args:
        slots: devices: their names, which begin with their kind, and their memory in MB; or how many of a CPU host.
    """

    def __init__(
        self, slots: int | dict[str, int] = 1, machine_deaths: dict[str, list[bool]] | None = None, limits: Limits = LIMITS
    ) -> None:
        self.broker, self.now = Broker(limits, machine_deaths), 0.0
        self.state = self.broker.state
        self.last: list[events.Action] = []
        self.results: dict[str, Result] = {}
        self.assigned: list[str] = []
        self.scale(slots)

    def feed(self, event: events.Event) -> None:
        """One step."""
        self.last = self.broker.step(event, self.now)
        for action in self.last:
            if isinstance(action, events.Deliver):
                self.results[action.result.key] = action.result
            elif isinstance(action, events.Tell) and isinstance(action.message, messages.Assign):
                self.assigned.append(action.payload.decode())

    def tick(self, now: float) -> None:
        """Time goes on to `now`."""
        self.now = now
        self.feed(events.Tick())

    def scale(self, slots: int | dict[str, int]) -> None:
        """These are the devices now."""
        named = {f"cpu{i}": 0 for i in range(slots)} if isinstance(slots, int) else slots
        self.feed(events.SlotsWanted(tuple(SlotSpec(n, "cuda" if n.startswith("cuda") else "cpu", mb) for n, mb in named.items())))

    # clients

    def join(self, *names: str) -> None:
        """Clients say hello."""
        for name in names:
            self.feed(events.ClientJoined(name, name, 1))

    def submit(self, *keys: str, client: str = "a", **spec: Any) -> None:
        """A client, which may be new, wants tasks done."""
        if client not in self.state.clients:
            self.join(client)
        for key in keys:
            self.feed(
                events.Submitted(
                    client, Spec(**{"key": key, "operator": "hands", "kind": "cpu", "environment": PYTHON} | spec), key.encode()
                )
            )

    def leave(self, client: str = "a") -> None:
        """A client's connection ends."""
        self.feed(events.ClientLeft(client))

    def ack(self, key: str, client: str = "a") -> None:
        """A client has taken a result."""
        self.feed(events.Acked(client, key))

    def cancel(self, key: str, client: str = "a") -> None:
        """A client does not want a result any more."""
        self.feed(events.CancelWanted(client, key))

    # workers

    def say(self, worker: str, message: Any) -> None:
        """A worker says something."""
        self.feed(events.WorkerSaid(worker, message))

    def ready(self, code: str = "c1") -> str:
        """The one worker that was starting has started."""
        (worker,) = self.starting
        self.say(worker, messages.Ready(1, code, "3.11"))
        return worker

    def ready_all(self) -> None:
        """All workers that were starting have started; self-tests pass."""
        for worker in self.starting:
            self.say(worker, messages.Ready(1, "c1", "3.11"))
        for worker in [w.name for w in self.state.workers.values() if w.testing]:
            self.say(worker, messages.Tested(True))

    def enter(self, key: str, *phases: messages.Phase) -> None:
        """A task comes so far in the worker that holds it."""
        for phase in phases:
            self.say(self.worker(key), messages.Entered(self.task(key).number, phase))

    def compute(self, key: str) -> None:
        """A task is decoded and begins to be computed."""
        self.enter(key, "decoding", "decoded", "computing")

    def finish(self, *keys: str, seconds: float = 1.0) -> None:
        """Tasks are done, begun before if they were not yet."""
        for key in keys:
            if self.task(key).state != "computing":
                self.compute(key)
            self.say(self.worker(key), messages.Finished(self.task(key).number, seconds))

    def give_back(self, key: str) -> None:
        """A worker gives a task back."""
        self.say(self.worker(key), messages.Revoked(self.task(key).number))

    def die(self, worker: str, cause: events.DeathCause = "exit", words: str = "") -> None:
        """A process is gone."""
        self.feed(events.WorkerDied(worker, cause, words))

    def die_computing(self, key: str, cause: events.DeathCause = "exit") -> None:
        """A worker dies of a task, started first if need be."""
        self.ready_all()
        self.compute(key)
        self.die(self.worker(key), cause)

    # the broker's state

    def task(self, key: str) -> Task:
        """The task of that key that has not ended."""
        (task,) = [task for task in self.state.tasks.values() if task.spec.key == key]
        return task

    def worker(self, key: str) -> str:
        """Who holds a task."""
        worker = self.task(key).worker
        assert worker is not None, f"{key} is {self.task(key).state}"
        return worker

    def holds(self, worker: str) -> list[str]:
        """What a worker holds."""
        return [self.state.tasks[number].spec.key for number in self.state.workers[worker].tasks]

    @property
    def queue(self) -> list[str]:
        """The waiting tasks."""
        return [task.spec.key for task in self.state.queue()]

    @property
    def starting(self) -> list[str]:
        """Workers that are not ready yet."""
        return [worker.name for worker in self.state.workers.values() if not worker.ready]

    def told(self, worker: str) -> list[object]:
        """The messages of the last step to a worker."""
        return [action.message for action in self.last if isinstance(action, events.Tell) and action.worker == worker]

    @property
    def kills(self) -> list[tuple[str, str]]:
        """The workers that the last step killed, and why."""
        return [(action.worker, action.why) for action in self.last if isinstance(action, events.Kill)]

    @property
    def refused(self) -> list[str]:
        """The clients that the last step refused."""
        return [action.client for action in self.last if isinstance(action, events.Refuse)]

    @property
    def reports(self) -> str:
        """The reports of the last step."""
        return "\n".join(action.text for action in self.last if isinstance(action, events.Report))
