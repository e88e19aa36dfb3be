"""What may be said on a socket of the pool, as types. A header that does not fit its type is refused, not guessed at.

Standard library only: workers of any interpreter read this. Who says what: `TO_BROKER` (clients), `TO_CLIENT`, `TO_WORKER`, `FROM_WORKER`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, cast, get_args, get_type_hints

from gpu_workers.frames import FrameError

PROTOCOL_VERSION = 1
"""Raised whenever a message changes. Broker and client of different versions refuse each other."""

Kind = Literal["cpu", "cuda"]
Phase = Literal["decoding", "decoded", "computing"]
Outcome = Literal["done", "failed", "dead_letter", "cancelled"]


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a client, and the broker's answer, which adds how much a client may have outstanding."""

    protocol: int
    pid: int
    name: str = ""
    window: int = 0
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Submit:
    """One clip for one operator. The payload is the task as JSON, for the runner alone.

    Args:
        key: names the result; results come back under it.
        operator: stage and backend, for people and for estimates.
        kind: what it computes on.
        python, runner, code: the worker it needs: interpreter, what runs tasks there, fingerprint of the code.
        frames: how many frames the clip has.
        est_s: guess of the seconds it takes, where nothing was learned yet.
        priority: higher goes first.
        video: clips of one video prefer one worker.
        memory_mb: device memory (on a CPU host, memory) the operator needs, its model included.
    """

    key: str
    operator: str
    kind: Kind
    python: str
    runner: str
    code: str
    frames: int
    est_s: float
    priority: int
    video: str
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """A client no longer wants a result (`key`)."""

    key: str


@dataclass(frozen=True, slots=True)
class Ack:
    """A client has taken a result (`key`): its place in the window is free."""

    key: str


@dataclass(frozen=True, slots=True)
class AskStatus:
    """What is going on? Answered by `Status`."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Have so many workers; answered by `Status`."""

    workers: int


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to `AskStatus` and `Scale`; the payload is JSON."""


@dataclass(frozen=True, slots=True)
class Window:
    """A client may have so many results outstanding from now on."""

    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The broker ends the connection, and why."""

    reason: str
    cure: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a task. The payload of a `done` one is its table as an Arrow IPC stream."""

    key: str
    outcome: Outcome
    seconds: float = 0.0
    worker: str = ""
    error_class: str = ""
    culprit: str = ""
    reason: str = ""
    cure: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Assign:
    """A worker gets a task; the payload is the task as JSON."""

    id: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Give a task back if it is not computing yet; answered by `Revoked` if so."""

    id: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop working on a task as soon as it can be stopped; answered by `Revoked`, `Finished` or `Broke`."""

    id: int


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Compute something with a known answer on the device; answered by `Tested`."""


@dataclass(frozen=True, slots=True)
class Bye:
    """A worker may end."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has started."""

    pid: int
    code: str
    python: str


@dataclass(frozen=True, slots=True)
class Entered:
    """A task has entered a phase."""

    id: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Progress:
    """How many frames of a task have been computed so far."""

    id: int
    frames: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A task is done; the payload is its table as an Arrow IPC stream."""

    id: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Broke:
    """A task ended in an error, as in `egoworld_ops.errors`."""

    id: int
    seconds: float
    error_class: str
    culprit: str
    reason: str
    cure: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """A task was given back unfinished."""

    id: int


@dataclass(frozen=True, slots=True)
class Tested:
    """Outcome of a `SelfTest`."""

    ok: bool
    reason: str = ""


TO_BROKER = (Hello, Submit, Cancel, Ack, AskStatus, Scale)
TO_CLIENT = (Hello, Result, Window, Refusal, Status)
TO_WORKER = (Assign, Revoke, Abandon, SelfTest, Bye)
FROM_WORKER = (Ready, Entered, Progress, Finished, Broke, Revoked, Tested)

M = TypeVar("M")
_HINTS = {kind: get_type_hints(kind) for kind in {*TO_BROKER, *TO_CLIENT, *TO_WORKER, *FROM_WORKER}}


def header(message: Any) -> dict[str, Any]:
    """A message as the header of a frame."""
    return {"type": type(message).__name__, **asdict(message)}


def parse(said: Mapping[str, Any], allowed: tuple[type[M], ...]) -> M:
    """The message that a header holds.

    Raises:
        FrameError: not one of the allowed messages, or a value is missing, unknown or of another type.
    """
    kind = next((k for k in allowed if k.__name__ == said.get("type")), None)
    if kind is None:
        raise FrameError(f"message {str(said.get('type'))[:40]!r} is not expected here")
    hints, given = _HINTS[kind], {name: value for name, value in said.items() if name != "type"}
    if unknown := given.keys() - hints.keys():
        raise FrameError(f"{kind.__name__} has no {sorted(unknown)}")
    for name, value in given.items():
        if not _fits(value, hints[name]):
            raise FrameError(f"{kind.__name__}.{name}: want {hints[name]}, got {str(value)[:40]!r}")
    try:
        return kind(**{name: float(value) if hints[name] is float else value for name, value in given.items()})
    except TypeError as error:
        missing = {f.name for f in fields(cast("Any", kind))} - given.keys()
        raise FrameError(f"{kind.__name__} lacks some of {sorted(missing)}") from error


def _fits(value: Any, hint: Any) -> bool:
    if choices := get_args(hint):
        return value in choices
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e12
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53
    return isinstance(value, hint)
