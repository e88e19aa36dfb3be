"""What the broker knows: clients, tasks, slots (devices) and the workers on them. Plain values; who changes them is in the other modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from gpu_workers.wire.messages import Kind, Phase

TaskState = Literal["queued", "leased", "decoding", "decoded", "computing", "held"]
SlotState = Literal["ok", "draining", "sick"]
Cause = Literal["computing", "starting", "starved_decode", "starved_clips", "blocked", "idle"]
CAUSES: tuple[Cause, ...] = ("computing", "starting", "starved_decode", "starved_clips", "blocked", "idle")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker goes by. Seconds are of the monotonic clock.

    Args:
        credits: tasks a worker holds: one computing, the others prefetched.
        window_per_slot: what a client may have outstanding, for each slot.
        deaths: a task alone in flight at so many deaths or hangs is dead-lettered.
        memory_deaths: the same for deaths by lack of memory.
        unexplained_deaths: the same for kills from outside that lack of memory does not explain.
        deaths_before_test: a slot with so many deaths in a row must pass a self-test.
        start_failures: a worker that dies so often at its start is not started again before `cooldown_s`.
        hang_base_s, hang_factor: a task must end, or get on by a frame, within base + factor x estimate; the estimate is what was learned, but
            no less than the client's guess. Where nothing was learned the factor is `unlearned_factor`.
        start_s: a worker must be ready, and a self-test over, within this time.
        grace_s: how long a worker may take to give up an abandoned task, or to leave.
    """

    credits: int = 2
    window_per_slot: int = 4
    deaths: int = 2
    memory_deaths: int = 3
    unexplained_deaths: int = 10
    deaths_before_test: int = 2
    start_failures: int = 5
    cooldown_s: float = 60.0
    hang_base_s: float = 60.0
    hang_factor: float = 10.0
    unlearned_factor: float = 100.0
    start_s: float = 180.0
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Environment:
    """Which worker a task needs: interpreter, what runs tasks there, fingerprint of the code it is expected to have."""

    python: str
    runner: str
    code: str


@dataclass(frozen=True, slots=True)
class Spec:
    """What the broker is told of a task; see `messages.Submit`."""

    key: str
    operator: str
    kind: Kind
    environment: Environment
    frames: int = 1
    est_s: float = 1.0
    priority: int = 0
    video: str = ""
    memory_mb: int = 0


@dataclass(slots=True)
class Task:
    """A task that has not ended.

    Args:
        number: order of submission.
        payload: for the worker; the broker does not look into it.
        alone: it must run without another task in its worker: a death must tell who did it.
        host_alone: it must run without another task on the host: the machine died while it ran.
        deaths: the slots of its deaths and hangs while it was the only task begun in its worker.
        memory_deaths, unexplained_deaths: likewise, of those that have limits of their own.
        suspicions: all its unexplained deaths, also while it was not the only one.
        last_death: the slot where a worker that had begun it died last.
        last_end, last_words: how that worker ended, and the end of what it printed.
        deadline: when its present phase must be over, or have got on by a frame.
    """

    number: int
    client: str
    spec: Spec
    payload: bytes
    state: TaskState = "queued"
    worker: str | None = None
    slot: str | None = None
    alone: bool = False
    host_alone: bool = False
    revoking: bool = False
    abandoned: bool = False
    silent: bool = False
    deaths: list[str] = field(default_factory=list)
    memory_deaths: int = 0
    unexplained_deaths: int = 0
    suspicions: int = 0
    last_death: str | None = None
    last_end: str = ""
    last_words: str = ""
    deadline: float | None = None
    submitted_at: float = 0.0
    entered: dict[Phase, float] = field(default_factory=dict)
    """When it entered each phase, in the try that is on."""
    slot_s: dict[Cause, float] = field(default_factory=dict)
    """What its slot did since it last computed, when this task began to be computed."""
    entered_at: float = 0.0
    charged_s: float = 0.0
    frames_done: int = 0

    @property
    def begun(self) -> bool:
        """Whether its own code has run in the worker that holds it."""
        return self.state in ("decoding", "decoded", "computing")


@dataclass(slots=True)
class Worker:
    """One process.

    Args:
        killed_for: why the broker has killed it, where it has.
        tired: holds so much memory, or code so old, that it gets nothing more, and leaves once it has done what it holds.
        leaving: told to end; gets nothing more.
        deadline: when it must be ready, have passed its test, or be gone.
        loaded: operators it has run, and the memory each needs.
    """

    name: str
    slot: str
    environment: Environment
    started_at: float
    ready: bool = False
    testing: bool = False
    tired: bool = False
    leaving: bool = False
    killed_for: str | None = None
    deadline: float | None = None
    pid: int = 0
    tasks: list[int] = field(default_factory=list)
    loaded: dict[str, int] = field(default_factory=dict)
    memory_mb: int = 0

    @property
    def usable(self) -> bool:
        """Whether it can be given work."""
        return self.ready and not (self.testing or self.tired or self.leaving or self.killed_for)


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """A device: one GPU, or a share of a CPU host. `capacity_mb` 0 is not known and limits nothing."""

    name: str
    kind: Kind
    capacity_mb: int = 0


@dataclass(slots=True)
class Starts:
    """How the last starts of one environment on one slot went."""

    failures: int = 0
    not_before: float = 0.0
    last_words: str = ""


@dataclass(slots=True)
class Slot:
    """A device and what happened on it."""

    spec: SlotSpec
    state: SlotState = "ok"
    reason: str = ""
    deaths_in_row: int = 0
    test_due: bool = False
    last_video: str = ""
    warm: bool = False
    starts: dict[Environment, Starts] = field(default_factory=dict)
    spent_s: dict[Cause, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    told_s: dict[Cause, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    """`spent_s` when a task last began to be computed."""


@dataclass(slots=True)
class Client:
    """Someone who submits.

    Args:
        used_s: device time used, which decides whose turn it is. A client that begins to submit starts with the value of the busy client that
            has used least.
        served_s: device time it has had.
        submitted: how many tasks it ever did; one that only asks for the status has none.
        window: the largest window it was ever told: it may not know yet that the window is smaller now.
        refused: it was told to go.
    """

    name: str
    pid: int
    used_s: float
    window: int
    refused: bool = False
    served_s: float = 0.0
    submitted: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    unacked: set[str] = field(default_factory=set)

    @property
    def outstanding(self) -> int:
        """How much of the window is used: tasks not ended and results not taken."""
        return len(self.tasks) + len(self.unacked)


@dataclass(slots=True)
class BrokerState:
    """All of it."""

    limits: Limits
    clients: dict[str, Client] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    seconds_per_frame: dict[str, float] = field(default_factory=dict)
    machine_deaths: dict[str, list[bool]] = field(default_factory=dict)
    """Tasks that were running when the machine died: for each time, whether alone."""
    counts: Counter[str] = field(default_factory=Counter)
    fair_s: float = 0.0
    """What the busy client that had used least had used, at the last placement."""
    stopping: bool = False
    started: int = 0
    submitted: int = 0

    def queue(self) -> list[Task]:
        """Tasks that wait for a worker, oldest first."""
        return [t for t in self.tasks.values() if t.state == "queued"]

    def on_slot(self, slot: str) -> list[Task]:
        """Tasks that workers of a slot hold."""
        return [self.tasks[i] for w in self.workers.values() if w.slot == slot for i in w.tasks]

    def workers_of(self, slot: str) -> list[Worker]:
        """The processes of a slot."""
        return [w for w in self.workers.values() if w.slot == slot]

    def usable_slots(self, kind: Kind) -> Iterable[Slot]:
        """Slots of a kind that take work."""
        return (s for s in self.slots.values() if s.spec.kind == kind and s.state == "ok")

    def window(self) -> int:
        """What a client may have outstanding."""
        return self.limits.window_per_slot * max(1, sum(s.state == "ok" for s in self.slots.values()))

    def estimate_s(self, spec: Spec) -> float:
        """Seconds a task will take: learned, else as its client guesses."""
        rate = self.seconds_per_frame.get(spec.operator)
        return spec.est_s if rate is None else rate * max(1, spec.frames)
