"""Which code this is: a worker that stays warm must not run older code than the run that asks it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_PACKAGES = ("egoworld_ops", "gpu_workers")


@cache
def fingerprint() -> str:
    """SHA-256, hex, over the sources of the packages that make results, as they lie on disk at the first call in this process."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """The same of a runner that is a file of its own."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
