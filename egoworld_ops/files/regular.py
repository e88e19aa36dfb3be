"""Opening files of the lake, which are regular ones: a pipe, a socket or a device in the place of one blocks no reader."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY


def descriptor(path: str | Path) -> int:
    """A regular file, open for reading; waits as `open_without_peer`.

    Raises:
        OSError: as `os.open`; where something else than a file is there, that it is a folder (EISDIR), as reading a folder does: it is no file.
    """
    try:
        handle = open_without_peer(path)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISSOCK(os.stat(path).st_mode):
            raise _other(path) from error
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise _other(path)


def open_without_peer(path: str | Path) -> int:
    """Open for reading whatever is there. Waits for nobody at the other end of a pipe, but, as long as the kernel lets it, for who holds a lease
    for writing a regular file (Samba, nfsd) to give it back; raises as `os.open`.
    """
    try:
        return os.open(path, _FLAGS | os.O_NONBLOCK)
    except BlockingIOError:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise
        return os.open(path, _FLAGS)


def opened(path: str | Path) -> BufferedReader:
    """As `descriptor`, as a file object."""
    return os.fdopen(descriptor(path), "rb")


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file; raises as `descriptor`."""
    with opened(path) as file:
        return file.read()


def read_text(path: str | Path) -> str:
    """The content of a regular file of UTF-8; raises as `descriptor`, and ValueError where it is not UTF-8."""
    return read_bytes(path).decode("utf-8")


def _other(path: str | Path) -> OSError:
    return OSError(errno.EISDIR, "it is not a regular file", str(path))
