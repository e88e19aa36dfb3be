"""Atomic writes, and removing the orphans of writers that were killed. Knows nothing of what the files hold."""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from egoworld_ops.errors import SetupError, StorageUnavailable, classify, unreadable
from egoworld_ops.files import locks, regular

TEMPORARY, RUN = ".tmp-", "run_id="
"""Prefixes: of temporary files and folders, and of the folders of runs."""

NO_LINKS = {errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors that say that no link can be made; a copy may be."""
_NO_FSYNC = {errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP}
_LOG = logging.getLogger(__name__)
_said = False


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file atomically: temporary file, fsync, rename, fsync the folder.

    The temporary file is in the same folder; that of what lies in a run is in the run's own, where `sweep` finds those that killed writers left.

    Without `durable` the fsyncs are left out: for what can be derived again from durable files.

    Raises:
        StorageUnavailable: the disk is full, read-only, or does not answer; what was there is as it was.
    """
    with named_errors(path):
        make_folder(path.parent)
        temporary = _scratch(path) / f"{TEMPORARY}{secrets.token_hex(8)}"
        # not tempfile: its files are private whatever the umask says, and the umask decides who may read and write in a shared lake
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """A disk that is full, read-only or does not answer is named as such; other errors stay what they are."""
    try:
        yield
    except OSError as error:
        if isinstance(named := classify(error, path), StorageUnavailable):
            raise named from error
        raise


def is_there(path: Path) -> bool:
    """Whether something has that name, also a link to nothing.

    Raises:
        StorageUnavailable: that cannot be told now. `os.path.lexists` says no then.
    """
    try:
        os.lstat(path)
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        return False
    return True


def names_in(folder: str | Path) -> set[str]:
    """The names in a folder; none where there is no such folder.

    Raises:
        StorageUnavailable: it is there and cannot be listed now. `Path.glob` takes one that must not be listed for an empty one.
    """
    try:
        return set(os.listdir(folder))
    except OSError as error:
        if (away := unreadable(error, folder)) is not None:
            raise away from error
        return set()


def matching(folder: Path, pattern: str) -> Iterator[Path]:
    """The paths below a folder that match a pattern, in order; as `Path.glob`, but for what cannot be listed.

    Raises:
        StorageUnavailable: as `names_in`, of each folder on the way.
    """
    first, _, rest = pattern.partition("/")
    for name in sorted(fnmatch.filter(names_in(folder), first)):
        yield from matching(folder / name, rest) if rest else (folder / name,)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and fsync the folders they are in, so that what is written there is not lost with them.

    Raises:
        SetupError: something else is there.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise SetupError(folder, no_folder(folder), "Move it away, or name another folder") from error
    sync_folder(folder.parent)


def no_folder(path: Path) -> str:
    """What is wrong with something that is to be a folder and is none."""
    if not path.is_symlink():
        return "is no folder"
    return f"is a link to {os.readlink(path)}, which is {'no folder' if path.exists() else 'not there: is its disk mounted?'}"


def temporary_folder(below: Path, what: str) -> Path:
    """A new, empty folder that `sweep` removes as an orphan. Its mode follows the umask and its parent."""
    folder = below / f"{TEMPORARY}{what}-{secrets.token_hex(8)}"
    folder.mkdir()
    return folder


def _scratch(path: Path) -> Path:
    """The folder for the temporary file of `path`: on the same file system, and one for the whole run, so that `sweep` finds it."""
    return next((folder for folder in path.parents if folder.name.startswith(RUN)), path.parent)


def sweep(folder: Path) -> None:
    """Remove the orphans of killed writers in a folder in which only the caller now writes temporary files."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if not path.name.startswith((f"{TEMPORARY}release", f"{TEMPORARY}gc-")):  # a release and a removal clean up after themselves
            with suppress(OSError):
                remove(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def hold_swept(folder: Path) -> bool:
    """As `locks.hold`, after removing the orphans of killed processes, if no other process holds the folder."""
    with suppress(OSError), locks.alone(folder, wait=False) as alone:
        if alone:
            sweep(folder)
    return locks.hold(folder)


def sync_folder(folder: Path) -> None:
    """Make renames and links in a folder durable, where its file system can: SMB and FUSE may have no fsync of folders, as PostgreSQL notes too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(handle)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link, or a copy where the store has no links, which is logged once."""
    with named_errors(target):
        make_folder(target.parent)
        temporary = _scratch(target) / f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}"
        temporary.unlink(missing_ok=True)
        if not hard_link(source, temporary):
            write_bytes(target, regular.read_bytes(source))
            return
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # where both were the same file already, replacing does nothing
        sync_folder(target.parent)


def hard_link(source: Path, target: Path) -> bool:
    """Make `target` a hard link to `source`; False where there can be none: the file system has none, or this user may make none to that file.

    Raises:
        OSError: the storage refuses for another reason.
    """
    global _said
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not _said:
            _said = True
            _LOG.warning(f"{target.parent}: no hard links can be made here ({error.strerror}): results of earlier runs are copied")
        return False
    return True


def remove(folder: Path) -> None:
    """Remove a folder and all in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
