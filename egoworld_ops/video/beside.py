"""Files in a video's folder that its sidecar names: only regular ones of that folder itself, read to a limit, with their SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from egoworld_ops.errors import BadSidecar, unreadable
from egoworld_ops.files import regular

CURE = "Mend the file or move it away; the format is in docs/data_contract.md, section Sidecar"
MAX_FILES = 200_000
"""In a folder: two hours of frames."""
_MAX_NAME_BYTES = 255


def plain_file(name: str, what: str) -> str:
    """The name, if it is that of a file or folder in the video's folder itself; else raise ValueError."""
    if Path(name).name != name or name in ("", ".", "..") or "\0" in name:
        raise ValueError(f"{what} must be the plain name of a file in the video's folder")
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        raise ValueError(f"{what} must be a name of at most {_MAX_NAME_BYTES} bytes")
    return name


def file_at(folder: Path, name: str, what: str) -> Path:
    """The regular file of that name in the video's folder.

    Raises:
        BadSidecar: it is none.
        StorageUnavailable: that cannot be told now.
    """
    path = folder / name
    with _answering(path):
        there = not path.is_symlink() and path.is_file()
    if not there:
        raise BadSidecar(path, f"the {what} named in the sidecar is not a regular file", f"Put the {what} beside the video")
    return path


def files_in(folder: Path, name: str, what: str, pattern: str) -> list[Path]:
    """The files of a folder in the video's folder whose names fit a regular expression, in the order of their names; `.` is that folder itself.

    Raises:
        BadSidecar: there is no such folder, or it holds no such file, or too many, or one is a link.
        StorageUnavailable: it cannot be listed now.
    """
    path = folder / name
    with _answering(path):
        if path.is_symlink() or not path.is_dir():
            raise BadSidecar(path, f"the {what} named in the sidecar is not a folder", f"Put the {what} beside the video")
        with os.scandir(path) as entries:
            found = {entry.name: entry.is_symlink() for entry in entries if re.fullmatch(pattern, entry.name)}
    for file in sorted(file for file, is_link in found.items() if is_link):
        raise BadSidecar(path / file, f"is a link, not a file of the {what}", "Put the file itself there")
    if not 0 < len(found) <= MAX_FILES:
        raise BadSidecar(path, f"holds {len(found)} files for the {what}, want 1 to {MAX_FILES}", CURE)
    return [path / file for file in sorted(found)]


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; never blocks on a pipe or device.

    Raises:
        BadSidecar: it is not regular, or larger.
        StorageUnavailable: it is there and cannot be read now, for whatever reason.
    """
    try:
        with regular.opened(path) as file:
            content = file.read(limit + 1)
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        raise BadSidecar(path, f"cannot be read: {error.strerror}", CURE) from error
    if len(content) > limit:
        raise BadSidecar(path, f"is larger than {limit} bytes", CURE)
    return content


_hashed: dict[Path, tuple[tuple[int, ...], bytes]] = {}


def file_sha256(path: Path, limit: int) -> bytes:
    """SHA-256 of a file's content, cached by the process until the file changes: every clip of the video asks for it."""
    with _answering(path):
        now = path.stat()
    state = now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
    if _hashed.get(path, ((), b""))[0] != state:
        _hashed[path] = state, hashlib.sha256(read_regular(path, limit)).digest()
    return _hashed[path][1]


@contextmanager
def _answering(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        raise BadSidecar(path, f"cannot be read: {error.strerror}", CURE) from error
