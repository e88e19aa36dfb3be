"""Replaces a folder by another atomically: at no time is there none, or a part of one."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def exchange(a: Path, b: Path) -> None:
    """Exchange two folders of one file system, with Linux's `renameat2`.

    Where the file system has no such step (NFS), `b` is away for an instant between two renames; after a crash in it, both are still whole.

    Raises:
        OSError: one of them is not there, or the storage refuses.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        _in_three_steps(a, b)
        return
    if rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return
    failed = ctypes.get_errno()
    if failed not in _UNSUPPORTED:
        raise OSError(failed, os.strerror(failed), str(a), None, str(b))
    _in_three_steps(a, b)


def _in_three_steps(a: Path, b: Path) -> None:
    aside = a.with_name(f"{a.name}.aside")
    os.rename(b, aside)
    os.rename(a, b)
    os.rename(aside, a)
