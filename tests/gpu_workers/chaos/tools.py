"""Tools of the scenarios: clients in threads that count, processes as the kernel lists them, waiting with a limit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.wire import messages
from tests import brokers

RUNNER = f"{Path(__file__).with_name('runner.py')}:Plain"
STUCK_S = 120.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Taken:
    """An answer that a client got."""

    outcome: str
    digest: str
    seconds: float
    worker: str
    reason: str


def order(key: str, seconds: float = 0.0, **task: Any) -> client.Order:
    """A task as of `brokers.order`, whose result is the same bytes whoever computes it and when."""
    toy = brokers.order(key, seconds, **task)
    return client.Order(changed(toy.submit, runner=RUNNER), toy.payload)


def changed(submit: messages.Submit, **fields: Any) -> messages.Submit:
    """The message with other values."""
    said = messages.header(submit)
    del said["type"]
    return messages.Submit(**said | fields)


class Stream(threading.Thread):
    """A client that has orders worked on in a thread of its own, and keeps all it gets, also what it gets twice."""

    def __init__(self, settings: PoolSettings, name: str, orders: Iterable[client.Order]) -> None:
        super().__init__(name=name, daemon=True)
        self._settings, self._source = settings, orders
        self._error: BaseException | None = None
        self.given: list[str] = []
        self.taken: dict[str, list[Taken]] = {}
        self.last_answer = time.monotonic()
        self.longest_wait_s = 0.0
        self.start()

    def run(self) -> None:
        try:
            for answer in client.run(self._settings, self.name, self._orders()):
                said = answer.result
                taken = Taken(said.outcome, hashlib.sha256(answer.payload).hexdigest(), said.seconds, said.worker, said.reason)
                self.taken.setdefault(said.key, []).append(taken)
                now = time.monotonic()
                self.longest_wait_s, self.last_answer = max(self.longest_wait_s, now - self.last_answer), now
        except BaseException as error:
            self._error = error

    def _orders(self) -> Iterator[client.Order]:
        for order in self._source:
            self.given.append(order.submit.key)
            yield order

    def check(self) -> None:
        """Assert that it is still working."""
        if self._error is not None:
            raise AssertionError(f"client {self.name} failed: {type(self._error).__name__}: {self._error}") from self._error
        assert self.is_alive(), f"client {self.name} has ended early, with {len(self.taken)} of {len(self.given)} answers"

    def settle(self, timeout_s: float = STUCK_S) -> Stream:
        """Wait for the end; then nothing may be lost or doubled."""
        self.join(timeout_s)
        if self._error is not None:
            self.check()
        assert not self.is_alive(), f"client {self.name} hangs: {len(self.taken)} of {len(self.given)} answers within {timeout_s:.0f} s"
        lost, doubled = set(self.given) - self.taken.keys(), [k for k, t in self.taken.items() if len(t) > 1]
        assert not lost, f"client {self.name}: lost {sorted(lost)[:5]} and {max(0, len(lost) - 5)} more"
        assert not doubled, f"client {self.name}: answered more than once: {doubled[:5]}"
        return self

    @property
    def outcomes(self) -> Counter[str]:
        """How its orders ended."""
        return Counter(taken.outcome for answers in list(self.taken.values()) for taken in answers)

    def only(self, outcome: str, keys: Iterable[str] | None = None) -> None:
        """Assert how orders ended, all of them or these."""
        other = {k: self.taken[k][0] for k in (self.given if keys is None else keys) if self.taken[k][0].outcome != outcome}
        said = "; ".join(f"{key} {taken.outcome}: {taken.reason}" for key, taken in list(other.items())[:3])
        assert not other, f"client {self.name}: {len(other)} orders did not end as {outcome}: {said}"

    def same_as(self, other: Stream) -> None:
        """Assert that the same keys have the same payloads, byte for byte."""
        assert set(self.given) == set(other.given), "the runs had different orders"
        differ = [key for key in self.given if self.taken[key][0].digest != other.taken[key][0].digest]
        assert not differ, f"client {self.name}: {len(differ)} results differ from the undisturbed run: {differ[:5]}"


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.02) -> float:
    """Wait until a condition holds; the seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + timeout_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(every_s)
    return time.monotonic() - started


def counts(settings: PoolSettings) -> Counter[str]:
    """The broker's own counts."""
    return Counter(client.status(settings)["counts"])


def balanced(settings: PoolSettings) -> None:
    """Assert that, by the broker's count, each task that was ever submitted has ended exactly once."""
    said = client.status(settings)
    count = Counter(said["counts"])
    ended = sum(count[how] for how in ("done", "failed", "dead_letter", "cancelled"))
    assert count["submitted"] == ended, f"{count['submitted']} tasks were submitted and {ended} ended: {dict(count)}"
    assert not said["queue"], f"nobody waits and there is a queue: {said['queue']}"
    assert not said["in_flight"], f"nobody waits and workers hold {said['in_flight']} tasks"


def starts(said: dict[str, Any]) -> int:
    """How many workers a broker has started, by the number in the newest name of its status."""
    return max((int(worker["name"].rpartition("-")[2]) for worker in said["workers"]), default=0)


class Process:
    """A process held by a descriptor, so that its number cannot come to mean another."""

    def __init__(self, pid: int) -> None:
        self.pid, self._handle = pid, os.pidfd_open(pid)

    def gone(self, timeout_s: float = 0.0) -> bool:
        """Whether it has ended, waiting so long for that."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        os.close(self._handle)


def holding(pids: Iterable[int]) -> list[Process]:
    """Those of the processes that are still there."""
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(Process(pid))
    return found


def _stat(pid: int) -> tuple[str, int]:
    """State and parent."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def children(pid: int) -> dict[int, str]:
    """The children of a process and their states; Z is a zombie."""
    found = {}
    for other in _pids():
        with contextlib.suppress(OSError):
            state, parent = _stat(other)
            if parent == pid:
                found[other] = state
    return found


def family(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    sons = list(children(pid))
    return [*sons, *(grandson for son in sons for grandson in children(son))]


def marked(mark: str) -> dict[int, str]:
    """Processes, this one excepted, that have `mark` in their environment, and their command lines."""
    found = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            if pid != os.getpid() and mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def zombies() -> set[int]:
    """Zombies: dead children of this process, and of the one that adopts orphans."""
    found = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            state, parent = _stat(pid)
            if state == "Z" and parent in (1, os.getpid()):
                found.add(pid)
    return found


def rss_mb(pid: int) -> float:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES / 1e6


def descriptors(pid: int) -> int:
    """How many files and sockets a process holds open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
