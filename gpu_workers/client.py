"""A client of the broker: sends orders over its socket, starts a broker where none runs, and goes on with the next one when it ends."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from egoworld_ops.errors import PoolLost, PoolRefused
from gpu_workers.place import CREDENTIALS, own_folder, socket_path
from gpu_workers.wire import frames, messages

if TYPE_CHECKING:
    from pathlib import Path

    from egoworld_ops.settings import PoolSettings

LOOKAHEAD = 256
"""Orders that are read ahead, so that long ones can go first and none of them is started last."""
_SILENCE_S = 30.0
_ANSWER_S = 60.0
_CONNECT_S = 10.0
_START_EVERY_S = 1.0
"""Pause between attempts to start a broker: while one is ending, another cannot start."""
_FRAME_S = 60.0
_SEND_BYTES = 1 << 16
_RETRY_S = 0.1
_RUNS_ALREADY = "a broker is running here"


class Order(NamedTuple):
    """One task for the broker: what it needs to know, and what only the runner reads."""

    submit: messages.Submit
    payload: bytes


class Answer(NamedTuple):
    """What became of an order; the payload of a `done` one is its table as an Arrow IPC stream."""

    result: messages.Result
    payload: bytes


def run(settings: PoolSettings, name: str, orders: Iterable[Order]) -> Iterator[Answer]:
    """Have orders worked on; each is answered exactly once, in any order.

    At most the broker's window of orders is out at any time; the longest of those taken ahead go first. An answer counts as taken when the next is
    asked for. What was under way when the broker was lost is submitted to the next one: so equal keys must stand for equal results.

    Args:
        settings: where the broker is, and how it is to be started where there is none.
        name: who asks, for people who look at the status.
        orders: consumed lazily; keys differ.

    Raises:
        PoolLost: no broker could be had for `settings.lost_after_s`.
        PoolRefused: it does not talk to this client.
    """
    plan = _Plan(iter(orders))
    out: dict[str, Order] = {}
    session: _Session | None = None
    lost_at: float | None = None
    try:
        while plan.fill() or out:
            try:
                session = session or _Session(settings, name)
                while len(out) < session.window and plan.fill() and (order := plan.pop()):
                    out[order.submit.key] = order
                    session.say(order.submit, order.payload)
                answer = session.answer()
            except (OSError, EOFError, frames.FrameError) as error:
                _close(session)
                session, lost_at = None, lost_at or time.monotonic()
                if time.monotonic() > lost_at + settings.lost_after_s:
                    raise _lost(settings, error) from error
                while out:
                    plan.push(out.popitem()[1])
                time.sleep(_RETRY_S)
                continue
            lost_at = None
            if out.pop(answer.result.key, None):
                yield answer
                session.acknowledge(answer.result.key)
    finally:
        _close(session)


def status(settings: PoolSettings) -> dict[str, Any]:
    """What the broker says of itself.

    Raises:
        PoolLost: there is none, or it does not answer.
    """
    return _ask(settings, messages.AskStatus())


def scale(settings: PoolSettings, workers: int) -> dict[str, Any]:
    """Have so many workers; the status after it.

    Raises:
        PoolLost: there is no broker, or it does not answer.
    """
    return _ask(settings, messages.Scale(workers))


def _ask(settings: PoolSettings, question: Any) -> dict[str, Any]:
    try:
        session = _Session(settings.model_copy(update={"start": False}), "status")
        try:
            return session.ask(question)
        finally:
            session.close()
    except (OSError, EOFError, frames.FrameError) as error:
        raise _lost(settings, error) from error


def _close(session: _Session | None) -> None:
    """Close the connection; returns nothing."""
    if session is not None:
        session.close()


def _lost(settings: PoolSettings, error: BaseException) -> PoolLost:
    cure = "Start it with `egoworld pool serve`, or look at broker.log beside its socket"
    if isinstance(error, FileNotFoundError):
        cure = "A step starts one, unless pool.start is false; so does `egoworld pool serve`"
        return PoolLost(f"pool at {settings.folder}", "no broker runs there", cure)
    return PoolLost(f"pool at {socket_path(settings.folder)}", f"no broker answers: {type(error).__name__}: {error}", cure)


class _Plan:
    """Takes orders from a lazy source, a bounded number ahead, and gives the longest of them first.

    The first order is taken alone and each time twice as many, so that devices have work while the rest is still being planned.
    """

    def __init__(self, source: Iterator[Order]) -> None:
        self._source = source
        self._count = itertools.count()
        self._ahead: list[tuple[float, int, Order]] = []
        self._bound = 1

    def fill(self) -> bool:
        """Take ahead; whether there is anything."""
        for order in itertools.islice(self._source, max(0, self._bound - len(self._ahead))):
            self.push(order)
        self._bound = min(LOOKAHEAD, 2 * self._bound)
        return bool(self._ahead)

    def push(self, order: Order) -> None:
        """Add an order."""
        heapq.heappush(self._ahead, (-order.submit.est_s, next(self._count), order))

    def pop(self) -> Order | None:
        """The longest order taken so far."""
        return heapq.heappop(self._ahead)[2] if self._ahead else None


class _Session:
    """One connection to a broker."""

    def __init__(self, settings: PoolSettings, name: str) -> None:
        self._inbox: deque[tuple[Any, bytes]] = deque()
        self._socket = _connect(settings)
        try:
            self.say(messages.Hello(messages.PROTOCOL_VERSION, os.getpid(), name))
            hello, _ = self._receive(_ANSWER_S)
            if not isinstance(hello, messages.Hello) or hello.protocol != messages.PROTOCOL_VERSION:
                raise frames.FrameError(f"{type(hello).__name__} in place of a greeting")
        except BaseException:
            self._socket.close()
            raise
        self.window = hello.window

    def close(self) -> None:
        """Close the connection: the broker drops the client's queued tasks and abandons its running ones."""
        self._socket.close()

    def acknowledge(self, key: str) -> None:
        """Tell the broker that a result was taken. If that fails the broker is gone, which the next message will find."""
        with contextlib.suppress(OSError, EOFError, frames.FrameError):
            self.say(messages.Ack(key))

    def say(self, message: Any, payload: bytes = b"") -> None:
        """Send a message and receive at the same time, so that the two sides cannot block each other."""
        rest = memoryview(frames.pack(messages.header(message), len(payload)) + payload)
        while rest:
            readable, writable, _ = select.select([self._socket], [self._socket], [], _ANSWER_S)
            if not readable and not writable:
                raise TimeoutError("the broker takes nothing")
            if readable:
                self._inbox.append(self._frame())
            if writable:
                rest = rest[self._socket.send(rest[:_SEND_BYTES]) :]

    def answer(self) -> Answer:
        """The next answer. A broker that is silent for long is asked whether it is there."""
        asked = False
        while True:
            try:
                message, payload = self._receive(_ANSWER_S if asked else _SILENCE_S)
            except TimeoutError:
                if asked:
                    raise
                self.say(messages.AskStatus())
                asked = True
                continue
            asked = False
            if isinstance(message, messages.Window):
                self.window = message.size
            elif isinstance(message, messages.Result):
                return Answer(message, payload)

    def ask(self, question: Any) -> dict[str, Any]:
        """The broker's status after a question."""
        self.say(question)
        while True:
            message, payload = self._receive(_ANSWER_S)
            if isinstance(message, messages.Status):
                answer: dict[str, Any] = json.loads(payload)
                return answer

    def _receive(self, timeout_s: float) -> tuple[Any, bytes]:
        if not self._inbox:
            if not select.select([self._socket], [], [], timeout_s)[0]:
                raise TimeoutError(f"the broker has been silent for {timeout_s:.0f} s")
            self._inbox.append(self._frame())
        message, payload = self._inbox.popleft()
        if isinstance(message, messages.Refusal):
            if "stopping" in message.reason:
                raise EOFError(message.reason)
            raise PoolRefused("the pool", message.reason, message.cure)
        return message, payload

    def _frame(self) -> tuple[Any, bytes]:
        said, payload = frames.receive(self._socket)
        return messages.parse(said, messages.TO_CLIENT), payload


_NOBODY_THERE = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError, PermissionError)
"""What connecting ends in where no broker listens; where none ever can, starting one says why."""


def _connect(settings: PoolSettings) -> socket.socket:
    """A connection to the broker; where there is none, and settings allow it, one is started.

    Raises:
        OSError: nobody answers.
        BadSettings: the folder cannot be a broker's.
        PoolRefused: the one who answers is not of this user.
    """
    path, now = socket_path(settings.folder), time.monotonic()
    start_at, deadline = now, now + _CONNECT_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_FRAME_S)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            gone = isinstance(error, _NOBODY_THERE)
            if gone and settings.start and time.monotonic() >= start_at:
                _start(settings)
                start_at = time.monotonic() + _START_EVERY_S
            elif (gone and not settings.start) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return _trusted(connection, path)


def _trusted(connection: socket.socket, path: Path) -> socket.socket:
    _, user, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    if user != os.getuid():
        connection.close()
        raise PoolRefused(f"pool at {path}", f"the broker there is of another user, {user}", "Set pool.folder to a place of your own")
    return connection


def _start(settings: PoolSettings) -> None:
    """Start a broker that ends by itself when it has been idle. Returns once it listens, or where another one is there."""
    import subprocess

    own_folder(settings.folder)
    command = [
        sys.executable,
        "-m",
        "gpu_workers",
        "serve",
        "--detach",
        "--folder",
        str(settings.folder),
        "--idle-exit-s",
        str(settings.idle_exit_s),
    ]
    if settings.workers is not None:
        command += ["--workers", str(settings.workers)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"a broker that was started has said nothing for {_ANSWER_S:.0f} s") from error
    if done.returncode and _RUNS_ALREADY not in done.stderr:
        raise ConnectionRefusedError(f"a broker could not be started: {done.stderr.strip()[-500:]}")
