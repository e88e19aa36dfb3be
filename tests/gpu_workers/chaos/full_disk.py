"""The disk under the broker's folder is full at each kind of write, and then has space again."""

from __future__ import annotations

import contextlib
import logging.handlers
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.journal import Journal
from tests import brokers
from tests.gpu_workers.chaos import tools

_DISK_BYTES = 64 << 20
_LOUD_WITHIN_S = 5.0
_COMPLAINT = "the journal cannot be read or written"
_FULL_FOR_S = 0.5
_RECORD_BYTES = 250
_MOST_WAIT_S = 10.0
_SLOTS = 3
_LONG_S = 2.0


class Unmounted(Exception):
    """This user may not mount a file system."""


def run(size: int, seed: int) -> str:
    """The disk is full `size` times: a small file system that is filled to its last byte, or, where none may be mounted, not at all; and `size`
    times a limit on the size of files, somewhere within the next record, so that writes fail after any byte.
    """
    random, began = Random(f"disk {seed}"), time.monotonic()
    try:
        with _small_disk() as disk:
            on_disk = _full(disk / "p", size, random, lambda _: _filled(disk))
            _starts_on_full(disk)
            _log_survives(disk)
        said = f"{on_disk}; a broker that starts on a full disk serves or says why not; its log file goes on once there is space"
    except Unmounted as error:
        said = f"no file system may be mounted ({error}), so none was filled"
    limited = _full(None, size, random, lambda settings: _limited(settings, random))
    return f"{said}; with a limit on files: {limited}; {time.monotonic() - began:.0f} s"


Fill = Callable[[PoolSettings], contextlib.AbstractContextManager[None]]


def _full(folder: Path | None, size: int, random: Random, fill: Fill) -> str:
    """Fill it `size` times under work that goes on all the time."""
    with brokers.broker("--workers", str(_SLOTS), folder=folder) as settings:
        going, loud, well = True, [], []
        stream = tools.Stream(settings, "client", _orders(random.random(), lambda: going))
        try:
            for number in range(size):
                time.sleep(random.uniform(0, 0.3))
                stream.check()
                loud_s, well_s = _once(settings, number, stream, fill, on_stderr=folder is not None)
                loud.append(loud_s)
                well.append(well_s)
        finally:
            going = False
        stream.settle().only("done")
        tools.balanced(settings)
        assert not _begun(settings.folder), f"nothing runs, and the journal says {_begun(settings.folder)}"
        assert stream.longest_wait_s < _MOST_WAIT_S, f"a client waited {stream.longest_wait_s:.1f} s for an answer"
    return (
        f"{size} times full: seen within {max(loud):.2f} s, well within {max(well):.2f} s, {len(stream.given)} clips meanwhile all done, "
        f"the longest wait for one {stream.longest_wait_s:.2f} s"
    )


def _once(settings: PoolSettings, number: int, stream: tools.Stream, fill: Fill, *, on_stderr: bool) -> tuple[float, float]:
    """Seconds until a full disk is noticed, and until all works again. While it is full, workers print a lot and a task begins that ends after."""
    long_key = f"long-{number}"
    with fill(settings):
        loud_s = tools.wait_for(lambda: _journal(settings) != "ok", _LOUD_WITHIN_S, "the full disk shows in the status")
        if on_stderr:
            tools.wait_for(lambda: _COMPLAINT in _stderr(settings).read_text("utf-8", "replace"), _LOUD_WITHIN_S, "stderr says so")
        chatty = tools.Stream(settings, "chatty", [tools.order(f"chatty-{number}", fault="print")])
        long = tools.Stream(settings, "long", [tools.order(long_key, _LONG_S)])
        tools.wait_for(lambda: long_key in brokers.phases(settings), _MOST_WAIT_S, "a task begins")
        done, full_until = len(stream.taken), time.monotonic() + _FULL_FOR_S
        tools.wait_for(lambda: len(stream.taken) > done + 5 and time.monotonic() > full_until, _MOST_WAIT_S, "work goes on")
        chatty.settle().only("done")
    well_s = tools.wait_for(lambda: _journal(settings) == "ok", _LOUD_WITHIN_S, "the journal is well again")
    known = _begun(settings.folder)
    assert long.taken or long_key in known, f"the journal does not know what began while the disk was full, but {sorted(known)}"
    assert len(known) <= _SLOTS * 2, f"the journal takes {len(known)} tasks for running, of {_SLOTS * 2} that workers hold at most"
    long.settle().only("done")
    return loud_s, well_s


def _journal(settings: PoolSettings) -> str:
    said: str = client.status(settings)["journal"]
    return said


def _stderr(settings: PoolSettings) -> Path:
    """The file to which the broker's stderr goes, on a disk that is not full."""
    return Path(os.readlink(f"/proc/{client.status(settings)['pid']}/fd/2"))


def _begun(folder: Path) -> set[str]:
    """The tasks that would count as running if the machine crashed now."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "journal.jsonl")
        shutil.copy(folder / "journal.jsonl", copy)
        return set(Journal(copy, "another boot").machine_deaths)


def _orders(seed: float, going: Callable[[], bool]) -> Iterator[client.Order]:
    random, number = Random(seed), 0
    while going():
        number += 1
        # long keys: each page of the disk is soon full
        yield tools.order(f"k{number}" + "x" * random.randrange(400), random.uniform(0, 0.02))


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of a few megabytes.

    Raises:
        Unmounted: that takes root, and a container may not allow it.
    """
    place = Path(tempfile.mkdtemp(prefix="egoworld-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=0700", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        place.rmdir()
        raise Unmounted(mounted.stderr.strip())
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


@contextlib.contextmanager
def _filled(disk: Path) -> Iterator[None]:
    """Not one byte is left on it."""
    ballast = os.open(disk / "ballast", os.O_WRONLY | os.O_CREAT, 0o600)
    for n_bytes in (1 << 16, 1 << 12, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(ballast, bytes(n_bytes))
    try:
        yield
    finally:
        os.close(ballast)
        (disk / "ballast").unlink()


@contextlib.contextmanager
def _limited(settings: PoolSettings, random: Random) -> Iterator[None]:
    """No file of the broker may be longer than the first or second record of a journal, cut anywhere. Its workers inherit this; they write none."""
    pid = client.status(settings)["pid"]
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (random.randrange(2 * _RECORD_BYTES), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def _starts_on_full(disk: Path) -> None:
    """A broker that is started where nothing can be written serves without a journal, and says so; it does not hang."""
    (disk / "q").mkdir(mode=0o700)
    with _filled(disk), brokers.broker("--workers", "1", folder=disk / "q") as settings:
        first = tools.Stream(settings, "first", [tools.order("first", 1.0)])
        tools.wait_for(lambda: _journal(settings) != "ok", tools.STUCK_S, "a task begins and the full disk shows in the status")
        first.settle().only("done")


def _log_survives(disk: Path) -> None:
    """The handler that the broker logs with: records are lost while the disk is full, also where the file is to be turned over; then it goes on."""
    handler = logging.handlers.RotatingFileHandler(disk / "log", maxBytes=3000, backupCount=2)
    handler.handleError = lambda record: None  # type: ignore[method-assign]

    def say(text: str) -> None:
        for _ in range(100):
            handler.emit(logging.makeLogRecord({"msg": text * 20, "levelno": logging.INFO}))

    say("before ")
    for number in range(3):
        with _filled(disk):
            say(f"full {number} ")
        say(f"after {number} ")
        assert f"after {number}" in (disk / "log").read_text("utf-8"), "the log stays silent after the disk was full"
    handler.close()
