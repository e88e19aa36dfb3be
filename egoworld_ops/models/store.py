"""The folder of weights: which files are here, and whether they are the right ones."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from egoworld_ops.errors import BadSettings, StorageUnavailable, WeightsMismatch, WeightsMissing, WeightsUnreadable, unreadable
from egoworld_ops.models import lock
from egoworld_ops.models.entries import TOKEN, HubFile, Supplied, Weight
from egoworld_ops.models.registry import GROUPS, REGISTRY

CHUNK_BYTES = 1 << 20

_chosen: ContextVar[Path | None] = ContextVar("weights folder", default=None)

_verified: dict[Path, tuple[int, int, str]] = {}
"""Files checked by this process: size, mtime in ns, SHA-256."""


def weight(name: str) -> Weight:
    """The entry of that name.

    Raises:
        BadSettings: there is none.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise BadSettings(f"weights {name}", "not in the registry", f"Name one of {', '.join([*REGISTRY, *GROUPS])}") from None


def named(names: Iterable[str]) -> list[Weight]:
    """The entries of these names and groups, each once.

    Raises:
        BadSettings: there is no entry and no group of a name.
    """
    return list({n: weight(n) for name in names for n in GROUPS.get(name, (name,))}.values())


@contextmanager
def lying_in(where: Path) -> Iterator[None]:
    """Within the context, weights are read from that folder, whatever this process's environment says: a worker serves several users."""
    before = _chosen.set(where)
    try:
        yield
    finally:
        _chosen.reset(before)


def folder() -> Path:
    """Where the weight files lie."""
    if chosen := _chosen.get():
        return chosen
    if given := os.environ.get("EGOWORLD_WEIGHTS"):
        return Path(given).expanduser()
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".weights"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "egoworld" / "weights"


def pinned(name: str) -> lock.Pin | None:
    """What the lock file says of the file of that name; None where it says nothing."""
    return lock.read(folder()).get(name)


def sha256(name: str) -> str:
    """The SHA-256, hex, that the file of that name must have: its publisher's, or the one it had when it first came.

    Raises:
        WeightsMissing: nobody publishes it, and no file came yet.
    """
    wanted = weight(name)
    if wanted.sha256 is not None:
        return wanted.sha256
    if (pin := pinned(name)) is not None:
        return pin.sha256
    raise WeightsMissing(folder() / wanted.filename, f"weights {name} were never fetched into this folder", cure(wanted))


def path(name: str) -> Path:
    """The file of that name to load, checked; of a checkpoint that is converted, the safetensors made of it.

    Raises:
        WeightsMissing: it is not there, or is no regular file.
        WeightsMismatch: it has another content.
        StorageUnavailable: it is there and cannot be read now.
    """
    wanted = weight(name)
    found = place(wanted)
    try:
        now = found.stat()
    except OSError as error:
        if (away := unreadable(error, found)) is not None:
            raise away from error
        raise WeightsMissing(found, f"weights {name} are not there ({error.strerror})", cure(wanted)) from error
    if not stat.S_ISREG(now.st_mode):  # a pipe would wait for a writer, and a device has no end
        raise WeightsMissing(found, f"weights {name} are not a regular file", f"Remove it, then: {cure(wanted)}")
    want = _sha256_here(wanted)
    known = (now.st_size, now.st_mtime_ns, want)
    if _verified.get(found) != known:
        check(found, want, cure(wanted))
        _verified[found] = known
    return found


def place(wanted: Weight) -> Path:
    """Where the file to load lies."""
    original = folder() / wanted.filename
    return original.with_suffix(".safetensors") if wanted.converted else original


def _sha256_here(wanted: Weight) -> str:
    """The SHA-256 that the file to load must have."""
    if not wanted.converted:
        return sha256(wanted.name)
    pin = pinned(wanted.name)
    if pin is None or pin.sha256 != (wanted.sha256 or pin.sha256):
        raise WeightsMissing(place(wanted), f"the lock file does not say what it was made of: {folder() / lock.NAME}", cure(wanted))
    return pin.converted_sha256


def state(name: str) -> str:
    """`here`, `-` (missing), `wrong` (another content) or `unreadable`."""
    try:
        path(name)
    except WeightsMissing:
        return "-"
    except WeightsMismatch:
        return "wrong"
    except (StorageUnavailable, WeightsUnreadable):
        return "unreadable"
    return "here"


def verify(name: str) -> str:
    """Read a file again, whatever is known of it, and say its state."""
    _verified.pop(place(weight(name)), None)
    return state(name)


def steps(wanted: Weight) -> str:
    """What a person must do before the publisher gives a file; empty where nothing."""
    if isinstance(wanted.source, HubFile):
        ask = f"Sign in at {wanted.source.terms} and accept its terms, " if wanted.source.gated else "If it is gated, "
        return f"{ask}make a token at https://huggingface.co/settings/tokens and set {TOKEN} to it, then run: egoworld models fetch {wanted.name}"
    return ""


def by_hand(wanted: Weight) -> str:
    """How to bring a file oneself."""
    return f"bring the file and run: egoworld models register {wanted.name} FILE"


def cure(wanted: Weight) -> str:
    """How to get a file that is not here."""
    if isinstance(wanted.source, Supplied):
        done = f"{wanted.source.steps}, then run: egoworld models register {wanted.name} {wanted.filename}"
        licence = f"{wanted.licence.name}, commercial use: {wanted.licence.commercial}"
        return f"Its licence ({licence}) lets nobody but its publisher give it to you. {done}"
    if isinstance(wanted.source, HubFile) and wanted.source.gated and not os.environ.get(TOKEN):
        return steps(wanted)
    return f"Run: egoworld models fetch {wanted.name}"


def digest_of(file: Path) -> str:
    """SHA-256, hex, of a file's content.

    Raises:
        StorageUnavailable: it cannot be read now.
    """
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(error, file) or error from error
    return digest.hexdigest()


def check(file: Path, want_sha256: str, what_to_do: str) -> None:
    """Raise WeightsMismatch where a file has another content."""
    if (found := digest_of(file)) != want_sha256:
        raise WeightsMismatch(file, f"SHA-256 is {found}, the registry has {want_sha256}", what_to_do)
