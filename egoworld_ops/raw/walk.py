"""The raw folder: which files are new, whole and not yet known by content. Whether a file decodes is found out later, by the manifest.

A folder is walked without following links to folders; a link to a regular file is taken. Names that start with a dot are not looked at.
"""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from egoworld_ops.errors import EgoworldError, NotAVideo, UnstableFile, classify, unreadable
from egoworld_ops.types import VIDEO_SUFFIXES, check_id
from egoworld_ops.video.containers import check_name, file_state, hash_file, storable

_SLUG_LENGTH = 60
_SPHERICAL_SUFFIXES = (".insv", ".360")
"""Two fisheye pictures or a cube map in an MP4 that says nothing of it; only where such a file is named by itself."""


class Seen(NamedTuple):
    """How an entry was at the last scan: what must not change for it to count as whole, and what became of it."""

    bytes: int
    mtime_ns: int
    status: str


class Known(Protocol):
    """A registered content: its video and the file it was registered from."""

    @property
    def video_id(self) -> str:
        """Identifier of the video."""

    @property
    def path(self) -> Path:
        """Where the file was."""


@dataclass(frozen=True, slots=True)
class IntakeEntry:
    """One entry of the raw folder that is new or changed, and what becomes of it.

    Args:
        path: where it is, absolute.
        status: `registered`, `duplicate`, `rejected` or `unstable`.
        video_id: the video it is, or is a copy of.
        sha256, bytes, mtime_ns: content and state, where they were read.
        error: why it is not registered; None where it is, or is a copy.
    """

    path: Path
    status: str
    video_id: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    mtime_ns: int | None = None
    error: EgoworldError | None = None

    def row(self) -> dict[str, Any]:
        """The row of table `intake`; `path` is as it is, escape it for display."""
        error = self.error
        return {
            "path": storable(self.path),
            "video_id": self.video_id,
            "status": self.status,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "mtime_ns": self.mtime_ns,
            "error_class": type(error).__name__ if error else None,
            "reason": error.reason if error else None,
            "cure": error.cure if error else None,
        }


def scan(
    raw: Path, known: Mapping[str, Known], seen: Mapping[str, Seen], settle_s: float | None = None, limit: int | None = None
) -> tuple[list[IntakeEntry], dict[str, Seen]]:
    """Go through a raw folder, or look at one file, once.

    An entry that is as it was at the last scan is passed over, unless it was unstable then: now it is stable.

    Args:
        raw: folder or file.
        known: registered contents by SHA-256.
        seen: what the last scan returned; empty at the first.
        settle_s: where given, a file is stable also if its last change is at least this many seconds away.
        limit: read at most this many files now; the others wait for the next scan.

    Returns:
        What is new, in order of paths, and what to give as `seen` the next time. `unstable` entries are to be looked at again.

    Raises:
        StorageUnavailable: the folder cannot be read now; of one below it the entry is unstable.
    """
    this = _Scan(dict(known), seen, settle_s, limit)
    candidates = _walk(raw.resolve()) if is_folder(raw) else iter([(raw.parent.resolve() / raw.name, None)])
    entries = [entry for path, unlisted in candidates if (entry := this.at(path, unlisted)) is not None]
    return entries, this.now


def waiting(raw: Path, rows: Iterable[Mapping[str, Any]]) -> list[float]:
    """When each video file of a raw folder that nobody has taken or refused as it is now was last changed, seconds since the epoch.

    Args:
        rows: of table `intake`.

    Raises:
        StorageUnavailable: the folder cannot be read now.
    """
    known = {row["path"]: (row["bytes"], row["mtime_ns"]) for row in rows if row["status"] != "unstable"}
    found = []
    for path, unlisted in _walk(raw.resolve()) if is_folder(raw) else ():
        try:
            state = path.stat()
        except OSError:
            continue  # it went away, or is a link to nothing, which the next scan names
        said = known.get(storable(path))
        if unlisted is None and path.is_file() and (said is None or (said[1] is not None and said != (state.st_size, state.st_mtime_ns))):
            found.append(state.st_mtime)
    return found


class _Scan:
    """One scan: remembers the contents it has seen, so that of two copies the first is registered."""

    def __init__(self, known: dict[str, Known], seen: Mapping[str, Seen], settle_s: float | None, limit: int | None) -> None:
        self._known, self._seen, self._settle_s, self._left = known, seen, settle_s, limit
        self.now: dict[str, Seen] = {}

    def at(self, path: Path, unlisted: OSError | None) -> IntakeEntry | None:
        """What is new about one entry; None where nothing is, or where it has to wait for the next scan.

        Args:
            unlisted: why a folder could not be gone through.
        """
        try:
            if unlisted is not None:
                raise unlisted
            state = _state(path)
            before = self._seen.get(storable(path))
            same = before is not None and (before.bytes, before.mtime_ns) == (state.st_size, state.st_mtime_ns)
            if before is not None and same and before.status != "unstable":
                self.now[storable(path)] = before
                return None
            entry = self._content(path, state) if same or self._settled(state) else _moving(path, state)
        except EgoworldError as error:
            entry = self._refused(path, error)
        except OSError as error:
            entry = self._refused(path, unreadable(error, path) or classify(error, path))
        if entry is not None:
            self.now[storable(path)] = Seen(entry.bytes or 0, entry.mtime_ns or 0, entry.status)
        return entry

    def _settled(self, state: os.stat_result) -> bool:
        return self._settle_s is not None and abs(time.time() - state.st_mtime) >= self._settle_s

    def _content(self, path: Path, state: os.stat_result) -> IntakeEntry | None:
        """Read a stable file."""
        if state.st_size == 0:
            raise NotAVideo(path, "has zero bytes", "Copy the file again from its source, or remove it")
        if self._left is not None:
            if self._left == 0:
                self.now[storable(path)] = Seen(state.st_size, state.st_mtime_ns, "unstable")
                return None
            self._left -= 1
        sha256, size = hash_file(path)
        first = self._known.get(sha256)
        copy = first is not None and first.path != path and first.path.exists()
        entry = IntakeEntry(
            path=path,
            status="duplicate" if copy else "registered",
            video_id=first.video_id if first else video_id_for(path, sha256),
            sha256=sha256,
            bytes=size,
            mtime_ns=state.st_mtime_ns,
        )
        if not copy:
            self._known[sha256] = _Accepted(str(entry.video_id), path)
        return entry

    def _refused(self, path: Path, error: EgoworldError) -> IntakeEntry | None:
        """An entry that is not taken; None where the same was said at the last scan."""
        try:
            state = os.lstat(path)
            size, mtime_ns = state.st_size, state.st_mtime_ns
        except OSError:
            size, mtime_ns = 0, 0
        unstable = error.retryable or isinstance(error, UnstableFile)
        entry = IntakeEntry(path, "unstable" if unstable else "rejected", bytes=size, mtime_ns=mtime_ns, error=error)
        as_before = self._seen.get(storable(path)) == Seen(size, mtime_ns, entry.status)
        self.now[storable(path)] = Seen(size, mtime_ns, entry.status)
        return None if as_before else entry


class _Accepted(NamedTuple):
    video_id: str
    path: Path


def _moving(path: Path, state: os.stat_result) -> IntakeEntry:
    error = UnstableFile(path, "is new or has just changed", "Nothing to do: it is taken once it no longer changes")
    return IntakeEntry(path, "unstable", bytes=state.st_size, mtime_ns=state.st_mtime_ns, error=error)


def _state(path: Path) -> os.stat_result:
    check_name(path)
    if path.suffix.lower() in _SPHERICAL_SUFFIXES:
        cure = "Export it from the camera's program to a rectilinear MP4"
        raise NotAVideo(path, f"is a 360 degree recording as its camera stores it ({path.suffix}), not that of a pinhole camera", cure)
    if path.is_symlink() and path.is_dir():
        raise NotAVideo(path, "is a link to a folder, which is not followed", "Put the files, or links to them, into the raw folder")
    return file_state(path)


def is_folder(raw: Path) -> bool:
    """Whether a raw folder, or a link to one, is there.

    Raises:
        StorageUnavailable: that cannot be told now.
    """
    try:
        return raw.is_dir()
    except OSError as error:
        raise unreadable(error, raw) or error from error


def _walk(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """Entries below `folder` that are named like videos, links to folders, and folders that cannot be read, with the reason; sorted."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda e: os.fsencode(e.name))
    except OSError as error:
        yield folder, error
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        named_so = path.suffix.lower() in VIDEO_SUFFIXES
        if named_so or (entry.is_symlink() and entry.is_dir()):
            yield path, None
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path)


def video_id_for(path: str | Path, sha256: str) -> str:
    """Identifier of a video: a slug of its name and the first 12 hex digits of its content's SHA-256."""
    plain = unicodedata.normalize("NFKD", Path(path).stem).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9_]+", "-", plain)[:_SLUG_LENGTH].strip("-_")
    return check_id("video_id", f"{slug or 'video'}-{sha256[:12]}")
