"""The broker as a process: sockets, workers, GPUs and the clock around the state machine, which makes all decisions.

One event loop. Each message becomes an event; the actions that come back are done at once, and what goes wrong in one of them is told to the
machine as another event or said loudly, never left to stop the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from egoworld_ops.errors import PoolRefused, SetupError
from egoworld_ops.logs import about
from gpu_workers import snapshot
from gpu_workers.broker import events
from gpu_workers.broker.machine import Broker
from gpu_workers.broker.model import Environment, Limits, Spec
from gpu_workers.hardware import Hardware
from gpu_workers.journal import Journal, boot_id
from gpu_workers.metrics import Metrics
from gpu_workers.place import CREDENTIALS, own_folder, socket_path
from gpu_workers.processes import Processes
from gpu_workers.wire import frames, messages

log = logging.getLogger(__name__)
_WATCH_S = 1.0
_GREETING_S = 10.0
_GOODBYE_S = 1.0
_MAX_CLIENTS = 256
_BACKLOG = 128
_UNREAD_BYTES = 64 << 20
"""From a client with so many unread bytes nothing is received until it reads."""


@dataclass(frozen=True, slots=True)
class Config:
    """How a broker is run.

    Args:
        folder: where its files are.
        workers: CPU workers on a host without GPUs, GPUs in use on one with; None for what the host has.
        idle_exit_s: end when there were no clients for so long; None to stay.
        stop_within_s: what runs at the end may take so long.
        metrics_port: on loopback; 0 takes a free one, None serves none.
        limits: numbers the machine goes by.
        worker_memory_mb: host memory that one worker may hold; None for a fair share.
    """

    folder: Path
    workers: int | None = None
    idle_exit_s: float | None = None
    stop_within_s: float = 60.0
    metrics_port: int | None = 0
    limits: Limits = field(default_factory=Limits)
    worker_memory_mb: int | None = None


ANOTHER = "a broker is running here"


class AnotherBroker(SetupError):
    """A broker runs in this folder already."""


class Server:
    """One broker."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = own_folder(config.folder)
        self._lock = _lock(self._folder)
        self._journal = Journal(self._folder / "journal.jsonl", boot_id())
        self.broker = Broker(config.limits, self._journal.machine_deaths)
        self._hardware = Hardware(config.workers, config.worker_memory_mb)
        self._processes = Processes(str(self._folder.absolute()), self._worker_said, self._worker_died, self._working_on)
        self._processes.end_leftovers()
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._wake_at = 0.0
        self._joined = 0
        self._metrics_port: int | None = None
        self._idle_since = self._started = time.monotonic()
        self._metrics = Metrics(self._snapshot_from_a_thread)
        self._do: dict[type, Callable[[Any], None]] = {
            events.Start: self._start,
            events.Kill: lambda a: self._processes.kill(a.worker),
            events.Tell: lambda a: self._processes.tell(a.worker, a.message, a.payload),
            events.Deliver: lambda a: self._send(a.client, a.result, a.payload),
            events.Resize: lambda a: self._send(a.client, messages.Window(a.window)),
            events.Refuse: self._refuse,
            events.Journal: lambda a: self._journal.record(a.what, a.key),
            events.Report: lambda a: log.log(logging.getLevelNamesMapping()[a.level.upper()], "%s", a.text, extra=about(**a.about)),
        }

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until told to stop, or idle for long. `ready` is called once clients can connect.

        Raises:
            OSError: the socket cannot be made.
        """
        self._loop = loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._metrics_port = self._metrics.serve(self._config.metrics_port)
        self.apply(events.SlotsWanted(self._hardware.slots()))
        server = await self._listen()
        watch = asyncio.create_task(self._watch())
        log.info("serving at %s, %d slots, metrics on %s", socket_path(self._folder), len(self.broker.state.slots), self._metrics_port)
        ready()
        stop_by: float | None = None
        while not self.broker.stopped:
            if self.broker.state.stopping and stop_by is None:
                stop_by = time.monotonic() + self._config.stop_within_s
                self._close_door(server)
            if stop_by is not None and time.monotonic() > stop_by:
                for name in list(self.broker.state.workers):
                    self._processes.kill(name)
            await self._pause()
            self.apply(events.Tick())
        watch.cancel()
        self._processes.end_leftovers()
        self._close_door(server)
        for writer in self._writers.values():
            writer.close()
        if self._talks:
            await asyncio.wait(self._talks, timeout=_GOODBYE_S)
        self._metrics.close()
        log.info("stopped")

    def apply(self, event: events.Event) -> None:
        """Give an event to the state machine, and do the actions that it returns."""
        now = time.monotonic()
        actions = self.broker.step(event, now)
        for action in actions:
            try:
                self._do[type(action)](action)
            except (OSError, frames.FrameError) as error:
                log.error("%s could not be done: %s", type(action).__name__, error)
        due = self.broker.next_deadline(now)
        if self.broker.state.stopping or (due is not None and due < self._wake_at):
            self._wake.set()

    def snapshot(self) -> dict[str, Any]:
        """The state of the broker, as plain values."""
        about = {
            "pid": os.getpid(),
            "folder": str(self._folder),
            "metrics_port": self._metrics_port,
            "uptime_s": round(time.monotonic() - self._started, 1),
        }
        return (
            about
            | {"journal": self._journal.trouble or "ok", "gpus": self._hardware.readings()}
            | snapshot.of(self.broker, time.monotonic())
        )

    def _snapshot_from_a_thread(self) -> dict[str, Any]:
        async def here() -> dict[str, Any]:
            return self.snapshot()

        return asyncio.run_coroutine_threadsafe(here(), self._loop).result(_GREETING_S)

    # clients

    async def _listen(self) -> asyncio.Server:
        path = socket_path(self._folder)
        temporary = path.with_name("sock.tmp")
        temporary.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, temporary, backlog=_BACKLOG)
        os.replace(temporary, path)
        return server

    def _close_door(self, server: asyncio.Server) -> None:
        socket_path(self._folder).unlink(missing_ok=True)
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._joined += 1
        name = f"c{self._joined}"
        try:
            await self._greet(name, reader, writer)
            while True:
                said, payload = await frames.receive_async(reader)
                self._client_said(name, messages.parse(said, messages.TO_BROKER), payload)
                await writer.drain()
        except PoolRefused as refused:
            self.broker.state.counts["bad frames"] += 1
            log.warning("client %s: %s", name, refused)
            _write(writer, messages.Refusal(refused.reason, refused.cure))
        except (frames.FrameError, TimeoutError) as error:
            self.broker.state.counts["bad frames"] += 1
            log.warning("client %s: %s", name, error or "said nothing")
            _write(writer, messages.Refusal(str(error) or "said nothing", "Use the client of this version of egoworld"))
        except (EOFError, ConnectionError):
            pass
        finally:
            if self._writers.pop(name, None):
                self.apply(events.ClientLeft(name))
            writer.close()

    async def _greet(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, user, _ = CREDENTIALS.unpack(writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        if user != os.getuid():
            raise PoolRefused("the pool", "is another user's", "Set pool.folder to a place of your own")
        if len(self._writers) >= _MAX_CLIENTS:
            raise PoolRefused("the pool", f"{_MAX_CLIENTS} clients are connected", "Wait until one has ended, or run fewer steps at once")
        said, _ = await asyncio.wait_for(frames.receive_async(reader), _GREETING_S)
        hello = messages.parse({"type": said.get("type"), "protocol": said.get("protocol"), "pid": 0}, (messages.Hello,))
        if hello.protocol != messages.PROTOCOL_VERSION:
            raise frames.FrameError(f"the client speaks version {hello.protocol} of the protocol, this broker {messages.PROTOCOL_VERSION}")
        hello = messages.parse(said, (messages.Hello,))
        writer.transport.set_write_buffer_limits(high=_UNREAD_BYTES)
        self._writers[name] = writer
        self.apply(events.ClientJoined(name, hello.name[:200], hello.pid))
        state = self.broker.state
        self._send(name, messages.Hello(messages.PROTOCOL_VERSION, os.getpid(), "broker", state.window(), len(state.slots)))

    def _client_said(self, name: str, message: Any, payload: bytes) -> None:
        if isinstance(message, messages.Submit):
            environment = Environment(message.python, message.runner, message.code)
            spec = Spec(
                message.key,
                message.operator,
                message.kind,
                environment,
                message.frames,
                message.est_s,
                message.priority,
                message.video,
                message.memory_mb,
            )
            self.apply(events.Submitted(name, spec, payload))
        elif isinstance(message, messages.Cancel):
            self.apply(events.CancelWanted(name, message.key))
        elif isinstance(message, messages.Ack):
            self.apply(events.Acked(name, message.key))
        elif isinstance(message, messages.Scale):
            self._hardware.scale(message.workers)
            self.apply(events.SlotsWanted(self._hardware.slots()))
            self._send(name, messages.Status(), json.dumps(self.snapshot()).encode())
        elif isinstance(message, messages.AskStatus):
            self._send(name, messages.Status(), json.dumps(self.snapshot()).encode())
        else:
            raise frames.FrameError("a second greeting")

    def _send(self, client: str, message: Any, payload: bytes = b"") -> None:
        if writer := self._writers.get(client):
            _write(writer, message, payload)

    def _refuse(self, action: events.Refuse) -> None:
        self._send(action.client, messages.Refusal(action.reason, action.cure))
        if writer := self._writers.get(action.client):
            writer.close()

    # workers

    def _start(self, action: events.Start) -> None:
        variables = self._hardware.variables(action.slot)
        starting = self._processes.start(action.worker, action.environment, self._hardware.threads(action.slot), variables)
        task = asyncio.get_running_loop().create_task(starting)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def _worker_said(self, worker: str, message: Any, payload: bytes) -> None:
        if isinstance(message, messages.Finished) and (task := self.broker.state.tasks.get(message.id)):
            self._metrics.observe(task.spec.operator, message.seconds)
        self.apply(events.WorkerSaid(worker, message, payload))

    def _worker_died(self, worker: str, cause: events.DeathCause, last_words: str, how: str) -> None:
        self.apply(events.WorkerDied(worker, cause, last_words, how))

    def _working_on(self, worker: str) -> dict[str, str]:
        """What a worker computes now, for the log of what it prints."""
        held = self.broker.state.workers.get(worker)
        task = next((t for n in (held.tasks if held else ()) if (t := self.broker.state.tasks[n]).state == "computing"), None)
        return {"video": task.spec.video, "stage": task.spec.operator.partition(".")[0]} if task else {}

    # time

    async def _pause(self) -> None:
        """Wait until something is due, or the broker may have to end."""
        self._wake.clear()
        now = time.monotonic()
        due = self.broker.next_deadline(now)
        self._wake_at = now + _WATCH_S if due is None else min(now + _WATCH_S, due)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(0.0, self._wake_at - now))

    async def _watch(self) -> None:
        """Once a second: memory of the workers, health of the GPUs, and whether anybody is still there."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for worker, memory_mb in self._processes.memory_mb().items():
                self.apply(events.WorkerMemory(worker, memory_mb, self._hardware.memory_limit_mb()))
            for slot, reason in await self._hardware.sick():
                self.apply(events.SlotSick(slot, reason))
            if not self.broker.idle:
                self._idle_since = time.monotonic()
            elif self._config.idle_exit_s is not None and time.monotonic() > self._idle_since + self._config.idle_exit_s:
                log.info("idle for %.0f s", self._config.idle_exit_s)
                self._stop()

    def _stop(self) -> None:
        if self.broker.state.stopping:
            log.warning("stopping at once")
            for name in list(self.broker.state.workers):
                self._processes.kill(name)
        self.apply(events.StopWanted())


def _write(writer: asyncio.StreamWriter, message: Any, payload: bytes = b"") -> None:
    if not writer.is_closing():
        for piece in frames.pieces(messages.header(message), payload):
            writer.write(piece)


def _lock(folder: Path) -> int:
    """Be the only broker of a folder; the lock goes with the process.

    Raises:
        AnotherBroker: there is one.
    """
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AnotherBroker(f"pool {folder}", ANOTHER, "Use it, or stop it first") from None
    return handle


def serve(config: Config, ready: Callable[[], None]) -> NoReturn:
    """Be a broker until told to stop; ends the process, also where a thread waits in a GPU's driver for ever."""
    server = Server(config)
    code = 0
    try:
        asyncio.run(server.run(ready))
    except Exception:
        log.critical("the broker fails; clients start another one", exc_info=True)
        code = 70
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
