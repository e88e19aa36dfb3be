"""The messages on a socket of the pool, as types. A header that does not fit its type is refused.

Standard library only: workers of any interpreter read this. Who says what: `TO_BROKER` (clients), `TO_CLIENT`, `TO_WORKER`, `FROM_WORKER`.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, dataclass_transform, get_args

from gpu_workers.wire.frames import FrameError

PROTOCOL_VERSION = 2
"""Raised whenever a message changes. Broker and client of different versions refuse each other."""

Kind = Literal["cpu", "cuda"]
Phase = Literal["decoding", "decoded", "computing"]
Outcome = Literal["done", "failed", "dead_letter", "cancelled"]
Name = Annotated[str, "at most 500 characters"]
Path = Annotated[str, "at most 4096 characters"]
Count = Annotated[int, "not negative"]
Seconds = Annotated[float, "not negative"]
Workers = Annotated[int, "1 to 1024"]


@dataclass_transform(frozen_default=True)
class Message:
    """Base of all messages. Fields are the annotations, in their order.

    Not dataclasses: each of those takes most of a millisecond to define, and who imports the client pays for two dozen.
    """

    _defaults: ClassVar[dict[str, Any]]
    checks: ClassVar[dict[str, Callable[[Any], bool]]]
    """For each field, what tells whether a value fits it."""

    def __init_subclass__(cls) -> None:
        cls.checks = {name: _check(hint) for name, hint in cls.__annotations__.items()}
        cls._defaults = {name: getattr(cls, name) for name in cls.checks if hasattr(cls, name)}

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self._defaults | dict(zip(self.checks, values, strict=False)) | named
        if fields.keys() != self.checks.keys() or len(values) + len(named) > len(fields):
            raise TypeError(f"{type(self).__name__}: want {', '.join(self.checks)}, got {', '.join(map(repr, fields))}")
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name}: messages cannot change")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def _check(hint: Any) -> Callable[[Any], bool]:
    return _FITS.get(hint) or get_args(hint).__contains__


def _is_float(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53


_FITS: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    float: _is_float,
    int: _is_int,
    Name: lambda value: isinstance(value, str) and len(value) <= 500,  # an answer repeats names, and must fit a header
    Path: lambda value: isinstance(value, str) and len(value) <= 4096,
    Count: lambda value: _is_int(value) and value >= 0,
    Seconds: lambda value: _is_float(value) and value >= 0,
    Workers: lambda value: _is_int(value) and 1 <= value <= 1024,
}


class Hello(Message):
    """The first message of a client, and the broker's answer, which adds how much a client may have outstanding."""

    protocol: int
    pid: int
    name: str = ""
    window: int = 0
    slots: int = 0


class Submit(Message):
    """One clip for one operator. The payload is the task as JSON, for the runner alone.

    Args:
        key: names the result; results come back under it.
        operator: stage, backend and a digest of options that are not the default ones; for people, for estimates, and for what a worker has loaded.
        kind: what it computes on.
        python, runner, code: the worker it needs: interpreter, what runs tasks there, fingerprint of the code.
        frames: how many frames the clip has.
        est_s: guess of the seconds it takes, where nothing was learned yet.
        priority: higher goes first.
        video: clips of one video prefer one worker.
        memory_mb: device memory (on a CPU host, memory) the operator needs, its model included.
    """

    key: Name
    operator: Name
    kind: Kind
    python: Path
    runner: Path
    code: Name
    frames: Count
    est_s: Seconds
    priority: int
    video: Name
    memory_mb: Count


class Cancel(Message):
    """A client no longer wants a result (`key`)."""

    key: str


class Ack(Message):
    """A client has taken a result (`key`): its place in the window is free."""

    key: str


class AskStatus(Message):
    """Asks for the broker's state; answered by `Status`."""


class Scale(Message):
    """Sets the number of workers; answered by `Status`."""

    workers: Workers


class Status(Message):
    """The answer to `AskStatus` and `Scale`; the payload is JSON."""


class Window(Message):
    """A client may have so many results outstanding from now on."""

    size: int


class Refusal(Message):
    """The broker ends the connection, and why."""

    reason: str
    cure: str


class Result(Message):
    """What became of a task. The payload of a `done` one is its table as an Arrow IPC stream.

    Args:
        began_s: when computing began, seconds of this boot's monotonic clock; 0 where it never did.
        queued_s, decoding_s, decoded_s: from submission until a worker began with it, opening its inputs, and ready until its turn.
        starting_s, starved_decode_s, starved_clips_s, blocked_s, idle_s: what its device had been doing since it last computed.
    """

    key: str
    outcome: Outcome
    seconds: float = 0.0
    worker: str = ""
    error_class: str = ""
    culprit: str = ""
    reason: str = ""
    cure: str = ""
    traceback: str = ""
    frame: int = -1
    began_s: Seconds = 0.0
    queued_s: Seconds = 0.0
    decoding_s: Seconds = 0.0
    decoded_s: Seconds = 0.0
    starting_s: Seconds = 0.0
    starved_decode_s: Seconds = 0.0
    starved_clips_s: Seconds = 0.0
    blocked_s: Seconds = 0.0
    idle_s: Seconds = 0.0


class Assign(Message):
    """A worker gets a task; the payload is the task as JSON."""

    id: int


class Revoke(Message):
    """Give a task back if it is not computing yet; answered by `Revoked` if so."""

    id: int


class Abandon(Message):
    """Stop working on a task as soon as it can be stopped; answered by `Revoked`, `Finished` or `Broke`."""

    id: int


class SelfTest(Message):
    """Compute something with a known answer on the device; answered by `Tested`."""


class Bye(Message):
    """A worker may end."""


class Ready(Message):
    """A worker has started."""

    pid: int
    code: str
    python: str


class Entered(Message):
    """A task has entered a phase."""

    id: int
    phase: Phase


class Progress(Message):
    """How many frames of a task have been computed so far."""

    id: int
    frames: int


class Finished(Message):
    """A task is done; the payload is its table as an Arrow IPC stream."""

    id: int
    seconds: float


class Broke(Message):
    """A task ended in an error, as in `egoworld_ops.errors`."""

    id: int
    seconds: float
    error_class: str
    culprit: str
    reason: str
    cure: str
    traceback: str
    frame: int = -1
    """The last frame the operator had taken; -1 for none."""


class Revoked(Message):
    """A task was given back unfinished."""

    id: int


class Tested(Message):
    """Outcome of a `SelfTest`."""

    ok: bool
    reason: str = ""


TO_BROKER = (Hello, Submit, Cancel, Ack, AskStatus, Scale)
TO_CLIENT = (Hello, Result, Window, Refusal, Status)
TO_WORKER = (Assign, Revoke, Abandon, SelfTest, Bye)
FROM_WORKER = (Ready, Entered, Progress, Finished, Broke, Revoked, Tested)

M = TypeVar("M", bound=Message)


def header(message: Message) -> dict[str, Any]:
    """A message as the header of a frame."""
    return {"type": type(message).__name__, **vars(message)}


def parse(said: Mapping[str, Any], allowed: tuple[type[M], ...]) -> M:
    """The message that a header holds.

    Raises:
        FrameError: not one of the allowed messages, or a value is missing, unknown or of another type.
    """
    kind = next((k for k in allowed if k.__name__ == said.get("type")), None)
    if kind is None:
        raise FrameError(f"message {str(said.get('type'))[:40]!r} is not expected here")
    try:
        message = kind(**{name: value for name, value in said.items() if name != "type"})
    except TypeError as error:
        raise FrameError(str(error)[:400]) from error
    for name, fits in kind.checks.items():
        if not fits(getattr(message, name)):
            raise FrameError(f"{kind.__name__}.{name}: want {kind.__annotations__[name]}, got {str(getattr(message, name))[:40]!r}")
    return message
