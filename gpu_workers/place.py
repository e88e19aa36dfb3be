"""Where the broker's files are: its socket, lock, journal and logs."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from egoworld_ops.errors import BadSettings

CREDENTIALS = struct.Struct("3i")
"""Layout of SO_PEERCRED, the other side of a socket: process, user, group."""
_MAX_SOCKET_PATH = 100


def socket_path(folder: Path) -> Path:
    """The broker's socket.

    Raises:
        BadSettings: its path would be too long for a socket.
    """
    path = folder / "sock"
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise BadSettings(f"pool folder {folder}", f"its path is longer than {_MAX_SOCKET_PATH} bytes", "Set pool.folder to a shorter path")
    return path


def own_folder(folder: Path) -> Path:
    """The folder, made where it is not there: this user's, readable by nobody else.

    Raises:
        BadSettings: it cannot be made, belongs to someone else, others may enter it, or its path is too long for a socket.
    """
    socket_path(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise BadSettings(f"pool folder {folder}", f"cannot be made: {error.strerror}", "Set pool.folder to another place") from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        reason = "is not a folder of this user alone (mode 0700)"
        raise BadSettings(f"pool folder {folder}", reason, "Remove it, or set pool.folder to another place")
    return folder
