"""The journal: which tasks have begun and ended, so that a task that was running when the machine died is not run again without care.

One line of JSON each: `[what, key, boot id]`. Written at once and made durable by a thread beside the broker, which never waits for the disk.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)
_MAX_BYTES = 8_000_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_COMPLAIN_EVERY_S = 60.0


def boot_id() -> str:
    """What tells this boot of the machine from any other."""
    return _BOOT_ID.read_text("ascii").strip()


class Journal:
    """Appends to the journal, and rewrites it, compacted, when it is opened or has grown.

    Args:
        path: the file.
        boot: this boot of the machine.
    """

    def __init__(self, path: Path, boot: str) -> None:
        self._path, self._boot = path, boot
        self.trouble = ""
        """Why the last write failed; empty where it did not."""
        self._complained_at = 0.0
        self._open: dict[str, bool] = {}
        self.machine_deaths: dict[str, list[bool]] = {}
        """For each task that was running when the machine died, and for each such time: whether it was the only one."""
        self._read = False
        self._file: int | None = None
        self._bytes = 0
        self._dirty = threading.Event()
        try:
            self._rewrite()
        except OSError as error:
            self._complain(error)
        threading.Thread(target=self._keep_durable, name="journal", daemon=True).start()

    def record(self, what: Literal["begin", "end", "settled"], key: str) -> None:
        """Write one line. Where the disk refuses it, an error is logged, and only the journal is incomplete."""
        if what == "begin":
            self._open[key] = True
        elif what == "end":
            self._open.pop(key, None)
        else:
            self.machine_deaths.pop(key, None)
        try:
            if self._file is None or self._bytes > _MAX_BYTES:
                self._rewrite()
            else:
                self._bytes += _write(self._file, [what, key, self._boot])
            self.trouble = ""
            if not self._dirty.is_set():
                self._dirty.set()
        except OSError as error:
            self._bytes = _MAX_BYTES + 1  # the file may end in half a line, and lacks this one: make it anew as soon as that is possible
            self._complain(error)

    def _rewrite(self) -> None:
        """Replace the file by the lines that still matter. A file that could not be read yet is read first: else its lines would be lost.

        Raises:
            OSError: it cannot be read or written; the file that was there is.
        """
        if not self._read:
            self.machine_deaths, self._read = _machine_deaths(self._path, self._boot), True
        temporary, fresh, n_bytes = self._path.with_name(f".tmp-{self._path.name}"), None, 0
        try:
            fresh = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            for key, times in self.machine_deaths.items():
                for alone in times:
                    n_bytes += _write(fresh, ["death alone" if alone else "death", key, ""])
            for key in self._open:
                n_bytes += _write(fresh, ["begin", key, self._boot])
            os.fsync(fresh)
            os.replace(temporary, self._path)
        except OSError:
            if fresh is not None:
                os.close(fresh)
                temporary.unlink(missing_ok=True)
            raise
        if self._file is not None:
            os.close(self._file)
        self._file, self._bytes = fresh, n_bytes

    def _complain(self, error: OSError) -> None:
        self.trouble = f"{self._path}: {error.strerror or error}"
        if time.monotonic() > self._complained_at + _COMPLAIN_EVERY_S or not self._complained_at:
            self._complained_at = time.monotonic()
            log.error("the journal cannot be read or written, work goes on without it: %s", self.trouble)

    def _keep_durable(self) -> None:
        while True:
            self._dirty.wait()
            self._dirty.clear()
            file = self._file
            try:
                if file is not None:
                    os.fdatasync(file)
            except OSError as error:
                if file == self._file:  # else it was replaced meanwhile, by one that is durable
                    self._bytes = _MAX_BYTES + 1  # what was written may be lost: make the file anew
                    self._complain(error)


def _write(file: int, line: list[str]) -> int:
    """Write a line; how many bytes it has."""
    encoded = json.dumps(line).encode() + b"\n"
    if os.write(file, encoded) != len(encoded):
        raise OSError("short write: the disk is full")
    return len(encoded)


def _machine_deaths(path: Path, boot: str) -> dict[str, list[bool]]:
    """Read a record back: tasks begun and not ended in another boot were running when the machine died.

    Raises:
        OSError: it cannot be read now.
    """
    known: dict[str, list[bool]] = defaultdict(list)
    begun: dict[str, set[str]] = defaultdict(set)
    for what, key, when in _lines(path):
        if what == "begin":
            begun[when].add(key)
        elif what == "end":
            begun[when].discard(key)
        elif what == "settled":
            known.pop(key, None)
        elif what in ("death", "death alone"):
            known[key].append(what == "death alone")
    for when, keys in begun.items():
        for key in keys if when != boot else ():
            known[key].append(len(keys) == 1)
    return dict(known)


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """The whole lines of a record, none where there is none; one that a crash tore is passed over.

    Raises:
        OSError: it is there and cannot be read now.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for raw in content.splitlines():
        try:
            what, key, when = json.loads(raw)
        except (ValueError, TypeError, RecursionError):
            continue
        if all(isinstance(part, str) for part in (what, key, when)):
            yield what, key, when
