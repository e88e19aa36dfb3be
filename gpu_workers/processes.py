"""The worker processes of a broker: started on a socket of their own, watched, and ended with all they started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egoworld_ops.logs import about
from gpu_workers.broker.events import DeathCause
from gpu_workers.broker.model import Environment
from gpu_workers.wire import frames, messages

log = logging.getLogger(__name__)
output_log = logging.getLogger(f"{__name__}.output")
_BOOT = Path(__file__).with_name("boot.py")
_LAST_WORDS_BYTES = 4000
_LINGER_S = 1.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""Of glibc (https://man7.org/linux/man-pages/man3/mallopt.3.html), bytes; the first is the most it takes. Without them the memory of each mask and
frame goes back to the system and comes again as pages that are cleared: 64 small clips through `contacts` took 1.16 s, and take 0.64 s."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MARK = "EGOWORLD_WORKER_OF"
"""A variable in the environment of every worker, and so of all that workers start: it names their broker."""

_OUR_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Where the broker's interpreter finds its libraries: no other interpreter must look there."""

Said = Callable[[str, Any, bytes], None]
Died = Callable[[str, DeathCause, str, str], None]
WorkingOn = Callable[[str], Mapping[str, str]]
"""By a worker's name what it computes now, as fields of its log."""


@dataclass(slots=True)
class _Process:
    name: str
    popen: subprocess.Popen[bytes]
    writer: asyncio.StreamWriter
    gone: asyncio.Event
    last_words: bytearray = field(default_factory=bytearray)


class Processes:
    """Starts and ends workers; tells what they say and when they are gone. To be used from one event loop.

    Args:
        owner: what all brokers that take each other's place have in common, and no other.
        said: called with a worker's name, message and payload.
        died: called once for each worker, after all it said: name, cause, the end of what it printed, how it ended.
    """

    def __init__(self, owner: str, said: Said, died: Died, working_on: WorkingOn = lambda worker: {}) -> None:
        self._owner, self._said, self._died, self._working_on = owner, said, died, working_on
        self._all: dict[str, _Process] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._oom_kills = _oom_kills()
        self._doomed: set[str] = set()

    async def start(self, name: str, environment: Environment, threads: int, variables: Mapping[str, str]) -> None:
        """Start a worker.

        Args:
            threads: how many threads it may use.
            variables: of its environment: which GPU it sees.
        """
        ours, theirs = socket.socketpair()
        ours_to_say = dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {"EGOWORLD_WORKER_THREADS": str(threads), _MARK: self._owner}
        given = _ALLOCATOR | os.environ | ours_to_say | dict(variables)
        if environment.python != sys.executable:
            given = {name: value for name, value in given.items() if name not in _OUR_PYTHON}
        command = [environment.python, "-u", str(_BOOT), str(theirs.fileno()), environment.runner, str(os.getpid())]
        try:
            popen = subprocess.Popen(
                command,
                env=given,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a path that no system call takes
            ours.close()
            self._died(name, "exit", f"{environment.python}: {error}", "it could not be started")
            return
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        process = _Process(name, popen, writer, asyncio.Event())
        self._all[name] = process
        if name in self._doomed:
            self.kill(name)
        pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(pidfd, _ended, pidfd, process.gone)
        watcher = asyncio.create_task(self._watch(process, reader), name=name)
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    def tell(self, name: str, message: Any, payload: bytes) -> None:
        """Send a message to a worker; nothing where it is gone already."""
        if (process := self._all.get(name)) and not process.writer.is_closing():
            for piece in frames.pieces(messages.header(message), payload):
                process.writer.write(piece)

    def kill(self, name: str) -> None:
        """End a worker and all it started; one that is being started, as soon as it is there."""
        if process := self._all.get(name):
            _kill_group(process.popen.pid)
        else:
            self._doomed.add(name)

    def end_leftovers(self) -> None:
        """End what workers, also those of a broker that was killed, have started and left running. To be called while there are no workers."""
        mark = f"{_MARK}={self._owner}".encode()
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            with contextlib.suppress(OSError):
                if pid != os.getpid() and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    log.warning("process %d was left by a worker and is ended", pid)
                    os.kill(pid, signal.SIGKILL)

    def memory_mb(self) -> dict[str, int]:
        """Resident memory of each worker."""
        found = {}
        for name, process in self._all.items():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text("ascii").split()[1])
                found[name] = pages * _PAGE_BYTES // 1_000_000
        return found

    async def _watch(self, process: _Process, reader: asyncio.StreamReader) -> None:
        assert process.popen.stdout is not None
        talk = asyncio.create_task(self._listen(process, reader))
        output = asyncio.create_task(_keep_output(process, process.popen.stdout, self._working_on))
        await asyncio.wait([talk, asyncio.create_task(process.gone.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not process.gone.is_set():
            _kill_group(process.popen.pid)  # it closed its socket or sent an invalid message: it cannot be used any more
        await process.gone.wait()
        _kill_group(process.popen.pid)  # what it started
        await asyncio.wait([talk, output], timeout=_LINGER_S)
        talk.cancel()
        output.cancel()
        process.popen.wait()
        process.popen.stdout.close()
        process.writer.close()
        del self._all[process.name]
        self._doomed.discard(process.name)
        self._died(process.name, self._cause(process.popen.returncode), _words(process), _how(process.popen.returncode))

    async def _listen(self, process: _Process, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                said, payload = await frames.receive_async(reader)
                self._said(process.name, messages.parse(said, messages.FROM_WORKER), payload)
        except (EOFError, ConnectionError):
            pass
        except frames.FrameError as error:
            log.error("worker %s: %s", process.name, error)

    def _cause(self, code: int) -> DeathCause:
        if code != -signal.SIGKILL:
            return "exit"
        before, self._oom_kills = self._oom_kills, _oom_kills()
        return "memory" if self._oom_kills > before else "sigkill"


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"it was ended by {name}"


def _ended(pidfd: int, gone: asyncio.Event) -> None:
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    gone.set()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def _keep_output(process: _Process, pipe: Any, working_on: WorkingOn) -> None:
    """Take what a worker prints: the end of it for errors, all of it for the log."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while chunk := await reader.read(1 << 16):
            process.last_words += chunk
            del process.last_words[:-_LAST_WORDS_BYTES]
            of = about(worker=process.name, **working_on(process.name))
            output_log.info("%s: %s", process.name, chunk.decode("utf-8", "replace").rstrip(), extra=of)
    finally:
        transport.close()


def _words(process: _Process) -> str:
    text = process.last_words.decode("utf-8", "replace")
    return "\n".join("".join(ch if ch.isprintable() else "?" for ch in line) for line in text.splitlines())


def _oom_kills() -> int:
    """How many processes the kernel has ended for lack of memory, on this host and in this control group; 0 where it does not say."""
    total = 0
    for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with contextlib.suppress(OSError, ValueError):
            total += sum(int(line.split()[1]) for line in path.read_text("ascii").splitlines() if line.startswith("oom_kill "))
    return total
