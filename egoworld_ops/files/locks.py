"""Locks that say which folders living processes work in. The kernel drops them when a process ends: there is no lease and no clock."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from egoworld_ops.errors import StorageUnavailable, unreadable

LOCK_NAME = ".lock"
_NOTHING_IS_WRITTEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP})
_ENDED_OR_ANOTHERS = frozenset({errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM})
MOST_HELD = 64
"""The largest number of folders that a process holds: those it opened last."""

_held: OrderedDict[Path, int] = OrderedDict()


def hold(folder: Path) -> bool:
    """Take a shared lock on a folder until this process ends; waits while another process has an exclusive one.

    Returns:
        False where the folder is not there, or was taken away meanwhile. A folder in which nothing can be written needs no hold.

    Raises:
        StorageUnavailable: it is there, and cannot be held now.
    """
    path = folder.absolute() / LOCK_NAME
    if path in _held and is_at(_held[path], path):
        _held.move_to_end(path)
        return True
    let_go(folder)
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in _NOTHING_IS_WRITTEN:
            return folder.is_dir()
        if (away := unreadable(error, path)) is not None:
            raise away from error
        raise
    try:
        flock(descriptor, fcntl.LOCK_SH, path)
        if is_at(descriptor, path):
            _held[path] = descriptor
    except OSError as error:
        raise unreadable(error, path) or error from error
    finally:
        if _held.get(path) != descriptor:
            os.close(descriptor)
    if path not in _held:
        return False
    while len(_held) > MOST_HELD:
        os.close(_held.popitem(last=False)[1])
    return True


def let_go(folder: Path) -> None:
    """Release the shared lock on a folder."""
    if (descriptor := _held.pop(folder.absolute() / LOCK_NAME, None)) is not None:
        os.close(descriptor)


@contextmanager
def alone(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Take an exclusive lock on a folder. Without `wait`, gives False where another process has a lock.

    Raises:
        StorageUnavailable: it cannot be locked now, or not at all.
        OSError: there is no such folder, or nothing can be written there.
    """
    descriptor = _open(folder / LOCK_NAME)
    try:
        flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), folder / LOCK_NAME)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def open_files(below: Path) -> set[Path]:
    """Files below a folder that processes of this host have open, as far as this user may see.

    Raises:
        OSError: that cannot be told now, say because this process has too many files open itself.
    """
    root = str(below.resolve()) + os.sep
    found = set()
    for listing in Path("/proc").glob("[0-9]*/fd"):
        try:
            names = os.listdir(listing)
        except OSError as error:
            if error.errno not in _ENDED_OR_ANOTHERS:
                raise
            continue
        for name in names:
            try:
                target = os.readlink(listing / name)
            except OSError as error:
                if error.errno not in _ENDED_OR_ANOTHERS:
                    raise
                continue
            if target.startswith(root):
                found.add(Path(target))
    return found


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def flock(descriptor: int, how: int, path: Path) -> None:
    """Lock an open file, the one of `path`.

    Args:
        how: as of `fcntl.flock`.

    Raises:
        BlockingIOError: another process has a lock, and `how` says not to wait.
        StorageUnavailable: it cannot be locked now, or not at all.
    """
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            cure = "Mount it with locks (`flock`), or use a folder on another file system"
            raise StorageUnavailable(path, "its file system has no locks, by which processes that write there keep apart", cure) from error
        raise unreadable(error, path) or error from error


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
