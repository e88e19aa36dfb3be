"""A worker: one process that runs tasks for the broker over an inherited socket, and loads each model once.

Four threads: one reads messages, one prepares the next task (decoding ahead), the main one computes, one sends results. Standard library, numpy
and pyarrow only, so that an operator may bring an interpreter of its own; what it runs there is its runner.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import platform
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pyarrow as pa

from gpu_workers.wire import frames, messages

TRACEBACK_CHARS = 4000
_WORDS_BYTES, _TRACEBACK_BYTES = 8000, 24_000
_PR_SET_PDEATHSIG = 1
_BEAT_S = 1.0


class Abandoned(BaseException):
    """Raised inside an operator whose result nobody wants. Not an Exception, so that no operator catches it as an error of its own."""


class Job:
    """What a runner may tell and ask while it computes."""

    def __init__(self) -> None:
        self.frames = 0
        self.last_frame = -1
        self.abandoned = threading.Event()

    def frame(self, index: int = -1) -> None:
        """One more frame is being worked on. Call it for each, so that people see progress and the task can be stopped.

        Args:
            index: of the frame in its video, where known.

        Raises:
            Abandoned: nobody wants the result.
        """
        self.frames += 1
        self.last_frame = index
        if self.abandoned.is_set():
            raise Abandoned


class Runner(Protocol):
    """Runs tasks in a worker. Built once, as `Runner(threads)`; `prepare` is called in another thread than `compute`."""

    code: str
    """Fingerprint of the code it would run; the broker compares it with what the client expects."""

    def prepare(self, task: Mapping[str, Any]) -> Any:
        """Begin a task: open its inputs, decode ahead within bounds. What is returned is handed to `compute`, or closed by its `close()`."""

    def compute(self, prepared: Any, job: Job) -> pa.Table:
        """The task's table."""

    def self_test(self) -> None:
        """Compute something with a known answer on the device; raise where the answer is wrong."""

    def describe(self, error: BaseException, task: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Class in `egoworld_ops.errors`, culprit, reason and cure of an error."""


class _Held:
    """A task in this worker."""

    def __init__(self, number: int, payload: bytes) -> None:
        self.number, self.payload, self.job = number, payload, Job()
        self.task: Mapping[str, Any] = {}
        self.computing = False
        self.preparing = False
        self.dropped = False
        self.prepared: Any = None
        self.error: BaseException | None = None


class Worker:
    """The threads and what they share."""

    def __init__(self, connection: socket.socket, runner: Runner) -> None:
        self._connection, self._runner = connection, runner
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._inbox: queue.SimpleQueue[_Held] = queue.SimpleQueue()
        self._ready: queue.Queue[_Held | None] = queue.Queue(maxsize=1)
        self._results: queue.Queue[tuple[Any, bytes]] = queue.Queue(maxsize=2)

    def run(self) -> NoReturn:
        """Work until told to leave, or until the broker is gone."""
        for target in (self._read, self._prepare_all, self._send_results, self._beat):
            threading.Thread(target=_or_die, args=(target,), name=target.__name__, daemon=True).start()
        self._say(messages.Ready(os.getpid(), self._runner.code, platform.python_version()))
        while True:
            held = self._ready.get()
            if held is None:
                self._test()
            elif self._may_compute(held):
                self._results.put(self._outcome(held))
                with self._lock:
                    del self._held[held.number]

    def _say(self, message: Any, payload: bytes = b"") -> None:
        with self._send_lock:
            frames.send(self._connection, messages.header(message), payload)

    def _read(self) -> None:
        while True:
            said, payload = frames.receive(self._connection)
            self._obey(messages.parse(said, messages.TO_WORKER), payload)

    def _obey(self, message: Any, payload: bytes) -> None:
        if isinstance(message, messages.Assign):
            held = _Held(message.id, payload)
            with self._lock:
                self._held[message.id] = held
            self._inbox.put(held)
        elif isinstance(message, messages.Revoke):
            self._drop(message.id)
        elif isinstance(message, messages.Abandon):
            if not self._drop(message.id) and (running := self._held.get(message.id)):
                running.job.abandoned.set()
        elif isinstance(message, messages.SelfTest):
            self._ready.put(None)
        else:
            os._exit(0)

    def _drop(self, number: int) -> bool:
        """Give a task back, unless it is computing."""
        with self._lock:
            held = self._held.get(number)
            if held is None or held.computing:
                return False
            held.dropped = True
            del self._held[number]
            preparing = held.preparing
        if not preparing:  # else its code still runs, and the task is given back when that has ended
            self._give_back(held)
        return True

    def _give_back(self, held: _Held) -> None:
        _close(held.prepared)
        self._say(messages.Revoked(held.number))

    def _prepare_all(self) -> None:
        while True:
            held = self._inbox.get()
            with self._lock:
                if held.dropped:
                    continue
                held.preparing = True
            self._say(messages.Entered(held.number, "decoding"))
            try:
                held.task = json.loads(held.payload)
                held.prepared = self._runner.prepare(held.task)
            except BaseException as error:  # noqa: BLE001 - told to the broker in its turn
                held.error = error
            with self._lock:
                held.preparing, dropped = False, held.dropped
            if dropped:
                self._give_back(held)
                continue
            self._say(messages.Entered(held.number, "decoded"))
            self._ready.put(held)

    def _may_compute(self, held: _Held) -> bool:
        with self._lock:
            held.computing = not held.dropped
        if held.computing:
            self._say(messages.Entered(held.number, "computing"))
        return held.computing

    def _outcome(self, held: _Held) -> tuple[Any, bytes]:
        started = time.monotonic()
        try:
            if held.error is not None:
                raise held.error
            payload = _encoded(self._runner.compute(held.prepared, held.job))
            return messages.Finished(held.number, time.monotonic() - started), payload
        except Abandoned:
            return messages.Revoked(held.number), b""
        except BaseException as error:  # noqa: BLE001 - whatever an operator raises costs its own clip and no other
            seconds = time.monotonic() - started
            error_class, culprit, reason, cure = (_bounded(said, _WORDS_BYTES) for said in self._described(error, held.task))
            where, last_frame = _bounded(innermost(error), _TRACEBACK_BYTES), held.job.last_frame
            return messages.Broke(held.number, seconds, error_class, culprit, reason, cure, where, last_frame), b""
        finally:
            _close(held.prepared)

    def _described(self, error: BaseException, task: Mapping[str, Any]) -> tuple[str, str, str, str]:
        if isinstance(error, WrongResult):
            return "ContractError", "the operator's result", str(error), "Mend the operator"
        try:
            return self._runner.describe(error, task)
        except Exception as second:  # noqa: BLE001 - a task of which the runner cannot even say what failed costs no worker
            reason = f"{type(error).__name__}: {error}, and the runner cannot describe it: {type(second).__name__}: {second}"
            return "OperatorCrash", "the task", reason, "This is a bug: report it with the traceback in the failures table"

    def _send_results(self) -> None:
        while True:
            self._say(*self._results.get())

    def _beat(self) -> None:
        told: dict[int, int] = {}
        while True:
            time.sleep(_BEAT_S)
            with self._lock:
                now = {number: held.job.frames for number, held in self._held.items() if held.computing}
            for number in (n for n in now if now[n] != told.get(n)):
                self._say(messages.Progress(number, now[number]))
            told = now

    def _test(self) -> None:
        try:
            self._runner.self_test()
        except BaseException as error:  # noqa: BLE001 - told to the broker, which takes the device out
            self._say(messages.Tested(False, f"{type(error).__name__}: {error}"[:500]))
        else:
            self._say(messages.Tested(True))


class WrongResult(Exception):
    """What an operator returned is no table, or too large for the socket."""


def _encoded(table: Any) -> bytes:
    if not isinstance(table, pa.Table):
        raise WrongResult(f"want a pyarrow.Table, got {type(table).__name__}")
    if table.nbytes > frames.MAX_PAYLOAD_BYTES:
        raise WrongResult(f"the table has {table.nbytes} bytes; a result may have {frames.MAX_PAYLOAD_BYTES}")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    encoded: bytes = sink.getvalue().to_pybytes()
    if len(encoded) > frames.MAX_PAYLOAD_BYTES:
        raise WrongResult(f"the encoded table has {len(encoded)} bytes; a result may have {frames.MAX_PAYLOAD_BYTES}")
    return encoded


def innermost(error: BaseException) -> str:
    """The end of an error's traceback, of printable characters."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join("".join(ch if ch.isprintable() else "?" for ch in line) for line in lines)[-TRACEBACK_CHARS:]


def _bounded(text: str, most_bytes: int) -> str:
    """The start of a text that fits into so many bytes of a header."""
    text = text[:most_bytes]
    while len(json.dumps(text)) > most_bytes:
        text = text[: len(text) // 2]
    return text


def _or_die(target: Callable[[], None]) -> None:
    """Run one of the worker's threads. A worker cannot work without any of them, so where one fails the process ends, with the reason in the log."""
    try:
        target()
    except (EOFError, ConnectionError):
        os._exit(0)  # the broker is gone
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(70)


def _close(prepared: Any) -> None:
    if prepared is not None and hasattr(prepared, "close"):
        prepared.close()


def load_runner(name: str, threads: int) -> Runner:
    """The runner that `name` stands for: `package.module:Class`, or `/path/of/a/file.py:Class`."""
    where, _, what = name.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(where).stem, where)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    runner: Runner = getattr(module, what)(threads)
    return runner


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(descriptor: int, runner: str, broker_pid: int) -> NoReturn:
    """Be a worker on an inherited socket. Ends with the broker, whatever ends that."""
    _die_with_parent()
    if os.getppid() != broker_pid:
        os._exit(0)  # the broker died before the line above
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    os.register_at_fork(after_in_child=connection.close)
    os.register_at_fork(after_in_child=_die_with_parent)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    threads = int(os.environ.get("EGOWORLD_WORKER_THREADS", "1"))
    Worker(connection, load_runner(runner, threads)).run()
