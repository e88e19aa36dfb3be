"""Who works on clips, and how it is found out that an owner has ended. No wall clock is compared anywhere.

An owner counts beats in the database. An observer takes an owner for gone where it can see that its process is; else where it has seen the same beat
for a whole lease, on its own monotonic clock. So a clock that is set, here or there, changes nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Protocol

from egoworld_ops.errors import EgoworldError, unreadable

_LOG = logging.getLogger(__name__)
_ENDED: set[str] = set()
"""Owners of this process that ended while the database did not answer: the process lives on, so nothing else says that they are gone."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, so named that no other one, later or elsewhere, has the same name. Empty text where the system does not say.

    Args:
        host: name of the machine and the start of its machine id.
        boot_id: of this start of the machine.
        pid_namespace: in which `pid` counts: containers have their own.
        start_ticks: when it started, in clock ticks since the machine did.
    """

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_ticks: int

    @classmethod
    def current(cls) -> Process:
        """This process."""
        return cls(_host(), _boot_id(), _pid_namespace(), os.getpid(), _start_ticks(os.getpid()))

    def is_gone(self, here: Process) -> bool:
        """Whether it can be seen from the process `here` that this one has ended; False where that cannot be told.

        Raises:
            StorageUnavailable: /proc cannot be read now.
        """
        if not (self.boot_id and here.boot_id):
            return False
        if self.boot_id != here.boot_id:
            return self.host == here.host
        return bool(self.pid_namespace) and self.pid_namespace == here.pid_namespace and _start_ticks(self.pid) != self.start_ticks


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """One owner, as it stands in the database."""

    owner: str
    process: Process
    beat: int


class Observer:
    """Judges owners by what it has seen of them itself.

    Args:
        lease_s: for how long an owner may not beat, seconds.
        clock: gives monotonic seconds.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._first_seen: dict[str, tuple[int, float]] = {}

    def expired(self, owners: Iterable[OwnerRow]) -> list[OwnerRow]:
        """Those of all present owners that are gone or have not beaten for a lease."""
        here, now = Process.current(), self._clock()
        before, self._first_seen = self._first_seen, {}
        found = []
        for seen in owners:
            beat, since = before.get(seen.owner, (seen.beat, now))
            if beat != seen.beat:
                since = now
            self._first_seen[seen.owner] = (seen.beat, since)
            if now - since >= self._lease_s or seen.owner in _ENDED or seen.process.is_gone(here):
                found.append(seen)
        return found


class Beats(Protocol):
    """Where an owner counts its beats: the ledger."""

    def beat(self, owner: str, process: Process, beat: int) -> None:
        """Say that an owner is alive."""

    def release(self, owner: Owner) -> object:
        """Give back all that an owner still runs, and forget it."""


class Owner:
    """Someone who starts clips. It is alive as long as it beats. A context manager; at its end its running clips become pending.

    An owner that was taken for gone while it slept finds its clips moved on by others; it beats again and may start others.

    Args:
        ledger: in which it counts its beats.
        beat_s: seconds from one beat to the next.
    """

    def __init__(self, ledger: Beats, beat_s: float) -> None:
        self.id = uuid.uuid4().hex
        self._ledger, self._beat_s = ledger, beat_s
        self._process, self._beat = Process.current(), 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name=f"ledger-owner-{self.id[:8]}", daemon=True)

    def __enter__(self) -> Owner:
        self._ledger.beat(self.id, self._process, 0)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._ledger.release(self)
        except EgoworldError as unreleased:  # the next `recover` finds that it ended, that this process is gone, or that it does not beat
            _ENDED.add(self.id)
            _LOG.warning("owner %s could not give back its clips: %s", self.id, unreleased)

    def _go_on(self) -> None:
        while not self._ended.wait(self._beat_s):
            self._beat += 1
            try:
                self._ledger.beat(self.id, self._process, self._beat)
            except EgoworldError as error:
                _LOG.warning("owner %s could not beat: %s", self.id, error)


@cache
def _host() -> str:
    return f"{socket.gethostname()}/{_text('/etc/machine-id')[:12]}"


@cache
def _boot_id() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 where there is no such process, or one that has ended and was not waited for."""
    _, _, fields = _text(f"/proc/{pid}/stat").rpartition(")")
    state, *numbers = fields.split() or [""]
    return int(numbers[18]) if state not in ("", "Z", "X") else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except ProcessLookupError:
        return ""
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        return ""
