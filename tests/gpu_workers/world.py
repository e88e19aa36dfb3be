"""The world around a simulated broker: clips, worker processes, and clients that submit clips. The seed decides all they do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gpu_workers.broker import events
from gpu_workers.broker.model import Environment, Spec
from gpu_workers.wire import messages
from gpu_workers.wire.messages import Result

if TYPE_CHECKING:
    from tests.gpu_workers.simulation import Simulation

Nature = Literal["good", "raises", "kills decoding", "kills computing", "hangs decoding", "hangs computing"]


@dataclass(slots=True)
class Clip:
    """A task, its effect on its worker, and what really happened to it.

    Args:
        submitted: the broker has accepted it.
        unwanted_since: when its client had cancelled it or left, as far as the broker knows.
        involved: deaths of workers by themselves or by hanging that had begun it.
        sole: the slots of those where it was the only one begun.
        memory, kills: deaths by lack of memory and by signal 9, where it was the only one begun.
        shot: deaths by signal 9 that had begun it.
        must_be_alone: a death has thrown suspicion on it.
    """

    spec: Spec
    client: str
    nature: Nature
    decode_s: float
    compute_s: float
    submitted: bool = False
    unwanted_since: float | None = None
    result: Result | None = None
    involved: int = 0
    sole: list[str] = field(default_factory=list)
    memory: int = 0
    kills: int = 0
    shot: int = 0
    must_be_alone: bool = False
    host_alone: bool = False
    revoked: int = 0
    exempt: bool = False


@dataclass(slots=True)
class Job:
    """A clip in a process."""

    id: int
    clip: Clip
    phase: Literal["waiting", "decoding", "decoded", "computing", "sending"] = "waiting"
    dropped: bool = False


class Process:
    """A simulated worker that behaves as a real one: it decodes one clip while it computes another.

    `jobs` are the tasks it really holds; `told` are the phases the broker has heard of, by task number.
    """

    def __init__(self, sim: Simulation, name: str, slot: str, environment: Environment) -> None:
        self.sim, self.name, self.slot, self.environment = sim, name, slot, environment
        self.alive, self.ready, self.frozen, self.testing, self.leaving = True, False, False, False, False
        self.killed: str | None = None
        self.cause: events.DeathCause = "exit"
        self.jobs: dict[int, Job] = {}
        self.told: dict[int, str] = {}
        self.told_ready = False
        self.loaded: dict[str, int] = {}
        self.computing_since: dict[int, float] = {}
        self.sent_until = self.received_until = 0.0
        plan, random = sim.plan, sim.random
        if environment in plan.broken or random.random() < plan.start_death_p:
            if random.random() < 0.1:
                self.frozen = True  # a start that hangs
            else:
                sim.later(random.uniform(0.05, 0.5), self.die, "exit")
        else:
            sim.later(random.uniform(0.1, 0.8), self._start)

    def _start(self) -> None:
        if self.alive and not self.frozen:
            self.ready = True
            stale = self.environment in self.sim.plan.stale and self.sim.now >= self.sim.plan.stale[self.environment]
            self._say(messages.Ready(1, "newer" if stale else self.environment.code, self.environment.python))

    def _say(
        self, message: messages.Ready | messages.Entered | messages.Finished | messages.Broke | messages.Revoked | messages.Tested
    ) -> None:
        self.sent_until = max(self.sent_until, self.sim.now + self.sim.latency())
        self.sim.at(self.sent_until, self.sim.worker_said, self, message)

    def die(self, cause: events.DeathCause) -> None:
        """What it has sent still arrives, then the broker learns of its death."""
        if self.alive:
            self.alive, self.cause = False, cause
            self.sent_until = max(self.sent_until, self.sim.now + self.sim.latency())
            self.sim.at(self.sent_until, self.sim.worker_died, self)

    def receive(self, message: object, clip: Clip | None) -> None:
        """A message of the broker has arrived."""
        if not self.alive or self.frozen:
            return
        if isinstance(message, messages.Assign):
            assert clip is not None
            self.jobs[message.id] = Job(message.id, clip)
            self._advance()
        elif isinstance(message, messages.Revoke):
            self._drop(message.id)
        elif isinstance(message, messages.Abandon):
            self._drop(message.id)
            if (job := self.jobs.get(message.id)) and job.phase == "computing":
                self.sim.later(self.sim.random.uniform(0.01, 0.6), self._safe_point, job)
        elif isinstance(message, messages.SelfTest):
            self.sim.later(self.sim.random.uniform(0.05, 0.3), self._tested)
        elif isinstance(message, messages.Bye) and self.sim.random.random() >= self.sim.plan.stubborn_p:
            self.sim.later(0.01, self._exit)

    def _exit(self) -> None:
        if not self.frozen:
            self.die("exit")

    def _tested(self) -> None:
        if self.alive and not self.frozen:
            if not self.sim.is_sick(self.slot):
                self._say(messages.Tested(True))
            elif self.sim.random.random() < 0.5:
                self._say(messages.Tested(False, "wrong sum"))
            else:
                self.die("exit")

    def _drop(self, number: int) -> None:
        """Give a task back, unless it is computing; one that is being decoded is given back when that is over."""
        job = self.jobs.get(number)
        if job and job.phase == "decoding":
            job.dropped = True
        elif job and job.phase in ("waiting", "decoded"):
            del self.jobs[job.id]
            self._say(messages.Revoked(job.id))
            self._advance()

    def _safe_point(self, job: Job) -> None:
        if self.alive and not self.frozen and job.phase == "computing" and job.clip.nature != "hangs computing":
            self._send(job, messages.Revoked(job.id))

    def _advance(self) -> None:
        """Start whatever can start."""
        phases = [job.phase for job in self.jobs.values()]
        if "computing" not in phases and "decoded" in phases:
            self._begin(next(job for job in self.jobs.values() if job.phase == "decoded"), "computing")
        if "decoding" not in phases and "waiting" in phases:
            self._begin(next(job for job in self.jobs.values() if job.phase == "waiting"), "decoding")

    def _begin(self, job: Job, phase: Literal["decoding", "computing"]) -> None:
        job.phase = phase
        self._say(messages.Entered(job.id, phase))
        clip = job.clip
        takes_s = clip.decode_s if phase == "decoding" else clip.compute_s
        if clip.nature == f"kills {phase}" or (phase == "computing" and self.sim.is_sick(self.slot)):
            self.sim.later(self.sim.random.random() * takes_s, self._blow_up, job)
        elif clip.nature != f"hangs {phase}":
            self.sim.later(takes_s, self._finish, job, phase)

    def _blow_up(self, job: Job) -> None:
        if not self.frozen and self.jobs.get(job.id) is job:
            self.die("exit")

    def _finish(self, job: Job, phase: str) -> None:
        if not self.alive or self.frozen or self.jobs.get(job.id) is not job or job.phase != phase:
            return
        if phase == "decoding" and job.dropped:
            del self.jobs[job.id]
            self._say(messages.Revoked(job.id))
            self._advance()
        elif phase == "decoding":
            job.phase = "decoded"
            self._say(messages.Entered(job.id, "decoded"))
            self._advance()
        elif job.clip.nature == "raises":
            video = job.clip.spec.video
            self._send(job, messages.Broke(job.id, job.clip.compute_s, "CorruptVideo", video, "head is cut off", "Copy it again", ""))
        else:
            self._send(job, messages.Finished(job.id, job.clip.compute_s))

    def _send(self, job: Job, result: messages.Finished | messages.Broke | messages.Revoked) -> None:
        """A separate thread sends results: the next task may begin before one is sent."""
        job.phase = "sending"
        self.sim.later(self.sim.random.random() * self.sim.plan.sending_s, self._sent, job, result)
        self._advance()

    def _sent(self, job: Job, result: messages.Finished | messages.Broke | messages.Revoked) -> None:
        if self.alive and not self.frozen:
            del self.jobs[job.id]
            self._say(result)


class Person:
    """A client: submits as its window allows, takes results with delays, sometimes cancels.

    `window` is the window it obeys, `told_window` the broker's last one, `granted` the broker's maximum so far.
    `at_broker` is what the broker must count as outstanding: submitted and not acknowledged, as delivered to it. `used_s` is what it must be
    charged for.
    """

    def __init__(self, sim: Simulation, name: str, todo: list[Clip], greedy: bool, pause: tuple[float, float], read_s: float) -> None:
        self.sim, self.name, self.todo, self.greedy, self.pause, self.read_s = sim, name, todo, greedy, pause, read_s
        self.window = self.granted = self.told_window = 0
        self.used_s = 0.0
        self.clips = {clip.spec.key: clip for clip in todo}
        self.open: set[str] = set()
        self.at_broker: set[str] = set()
        self.gone, self.refused, self.left = False, False, False
        self.sent_until = self.received_until = 0.0

    def _send(self, event: events.Event) -> None:
        self.sent_until = max(self.sent_until, self.sim.now + self.sim.latency())
        self.sim.at(self.sent_until, self.sim.client_sent, self, event)

    def join(self) -> None:
        """Say hello."""
        self._send(events.ClientJoined(self.name, self.name, 1))

    def resized(self, window: int) -> None:
        """The broker has said how much may be outstanding."""
        if not self.gone:
            self.window = window
            self.submit()

    def submit(self) -> None:
        """Send what fits in the window; a greedy client sends more."""
        while self.todo and not self.gone and len(self.open) < self.window + 3 * self.greedy:
            clip = self.todo.pop()
            self.open.add(clip.spec.key)
            self._send(events.Submitted(self.name, clip.spec, clip.spec.key.encode()))

    def receive(self, result: Result) -> None:
        """A result has come; it is read later."""
        start_s, end_s = self.pause
        at = end_s if start_s <= self.sim.now < end_s else self.sim.now
        self.sim.at(at + self.sim.random.random() * self.read_s, self._read, result.key)

    def _read(self, key: str) -> None:
        if not self.gone:
            self.open.remove(key)
            self._send(events.Acked(self.name, key))
            self.submit()
            if not self.todo and not self.open:
                self.leave()

    def cancel(self) -> None:
        """Cancel a submitted task."""
        if self.open and not self.gone:
            self._send(events.CancelWanted(self.name, self.sim.random.choice(sorted(self.open))))

    def leave(self) -> None:
        """Close the connection."""
        if not self.gone:
            self.gone = True
            self._send(events.ClientLeft(self.name))
