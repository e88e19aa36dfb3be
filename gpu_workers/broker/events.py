"""What happens to the broker (events) and what it wants done (actions). Names of clients, workers and slots are the shell's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gpu_workers.broker.model import Environment, SlotSpec, Spec
from gpu_workers.wire import messages

DeathCause = Literal["exit", "sigkill", "memory"]
"""By itself; by signal 9 from outside; by signal 9 while the host ran out of memory."""


@dataclass(frozen=True, slots=True)
class ClientJoined:
    """A client has said hello."""

    client: str
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """Its connection has ended."""

    client: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """It wants something done."""

    client: str
    spec: Spec
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """It no longer wants it."""

    client: str
    key: str


@dataclass(frozen=True, slots=True)
class Acked:
    """It has taken a result."""

    client: str
    key: str


@dataclass(frozen=True, slots=True)
class SlotsWanted:
    """These are the devices from now on; those not named are drained."""

    slots: tuple[SlotSpec, ...]


@dataclass(frozen=True, slots=True)
class SlotSick:
    """A device does not answer as it should."""

    slot: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerSaid:
    """A message of a worker; the payload of `Finished` is its table."""

    worker: str
    message: messages.Ready | messages.Entered | messages.Progress | messages.Finished | messages.Broke | messages.Revoked | messages.Tested
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A process is gone. `last_words` is the end of what it printed, `how` says in words how it ended."""

    worker: str
    cause: DeathCause
    last_words: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """How much memory a process holds, and how much it may."""

    worker: str
    memory_mb: int
    limit_mb: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Finish what runs, take nothing new."""


Event = (
    ClientJoined
    | ClientLeft
    | Submitted
    | CancelWanted
    | Acked
    | SlotsWanted
    | SlotSick
    | WorkerSaid
    | WorkerDied
    | WorkerMemory
    | Tick
    | StopWanted
)


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process for a slot."""

    worker: str
    slot: str
    environment: Environment


@dataclass(frozen=True, slots=True)
class Kill:
    """End a process and all it started."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a worker."""

    worker: str
    message: messages.Assign | messages.Revoke | messages.Abandon | messages.SelfTest | messages.Bye
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send a result to a client."""

    client: str
    result: messages.Result
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Resize:
    """Tell a client its window."""

    client: str
    window: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """End a client's connection."""

    client: str
    reason: str
    cure: str


@dataclass(frozen=True, slots=True)
class Journal:
    """Record that a task has begun or ended in a worker, or that what is held against it is settled: it was done, or is dead."""

    what: Literal["begin", "end", "settled"]
    key: str


@dataclass(frozen=True, slots=True)
class Report:
    """Something a person should read."""

    level: Literal["info", "warning", "error"]
    text: str
    about: Mapping[str, str] = field(default_factory=dict)
    """What it is about: `worker`, `video`, `stage`."""


Action = Start | Kill | Tell | Deliver | Resize | Refuse | Journal | Report
