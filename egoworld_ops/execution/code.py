"""Detects code that changed under an unchanged version: `versions.json` records the code of each version, and a test compares it.

Changed code gets a version of its own: `3` becomes `3+1f0c2a...`, so that results of edited code never pass for those of the version, and
`explain` shows why they are computed. Code of packages is not in the record: its version always has that suffix. See docs/adr/0022.

    python -m egoworld_ops.execution.code    # `make versions`: record the code as it is now
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from egoworld_ops import operators, sources

RECORD = Path(__file__).with_name("versions.json")
DECODE, MANIFEST = "decode", "manifest"
_OF_NO_BACKEND = {DECODE: ("egoworld_ops.video.decoding", "DECODE_VERSION"), MANIFEST: ("egoworld_ops.video.manifest", "VERSION")}
OUTSIDE = (
    "egoworld_ops.contract.",  # what rows mean: SCHEMA_VERSION
    "egoworld_ops.operators",  # the registry
    "egoworld_ops.operators.base",
    "egoworld_ops.errors",
    "egoworld_ops.files.locks",  # how files are opened, written and locked
    "egoworld_ops.files.regular",
    "egoworld_ops.files.whole",
    "egoworld_ops.models",  # weights are in each digest by their SHA-256
    "egoworld_ops.models.",
    "egoworld_ops.plugins",
    "egoworld_ops.sources",
    "egoworld_ops.settings",  # settings are in each digest by their values
)
"""Modules that affect no value of a result, or are in its digest by other means."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The record of one version: the modules its results depend on, and digests of their meaning and their bytes."""

    version: str
    meaning: str
    bytes: str
    modules: tuple[str, ...]


def entries() -> dict[str, str]:
    """Everything with a version: each built-in backend as `stage.backend`, decoding and the manifest; with that version."""
    known = {
        f"{stage}.{backend}": operators.version_of(stage, backend)
        for stage in operators.stages()
        for backend in operators.backends(stage)
        if operators.is_built_in(stage, backend)
    }
    return known | {entry: str(sources.constant(*where)) for entry, where in _OF_NO_BACKEND.items()}


def version(entry: str) -> str:
    """The version of an entry, with a suffix if its code differs from the code recorded for it."""
    if entry in _OF_NO_BACKEND:
        return _named(entry, str(sources.constant(*_OF_NO_BACKEND[entry])), _module(entry))
    return version_of_backend(*entry.split("."))


def version_of_backend(stage: str, backend: str) -> str:
    """As `version`, for any backend, also one of a package."""
    return _named(f"{stage}.{backend}", operators.version_of(stage, backend), operators.module_of(stage, backend))


def changed() -> Iterator[tuple[str, str]]:
    """Entries whose code differs from the record, each with a sentence that says what to do."""
    for entry, now in entries().items():
        was = _record().get(entry)
        if was is None:
            yield entry, f"{entry} has no record. Run `make versions`"
        elif was.meaning != (meant := _meaning(_module(entry))[0]):
            cure = f"Raise its version where results may differ, then run `make versions` ({meant[:8]} was {was.meaning[:8]})"
            yield entry, f"the code of {entry} is not that which was recorded for version {was.version}. {cure}"
        elif was.version != now:
            yield entry, f"{entry} has version {now}, the record {was.version}. Run `make versions`"


def record() -> list[str]:
    """Rewrite the record; returns a sentence for each entry that kept its version though its code changed."""
    kept = [said for entry, said in changed() if entry in _record() and _record()[entry].version == entries()[entry]]
    fresh = {entry: _fresh(version, _module(entry)) for entry, version in sorted(entries().items())}
    RECORD.write_text(json.dumps(fresh, indent=1) + "\n", "utf-8")
    return kept


def _fresh(version: str, module: str) -> dict[str, Any]:
    meaning, modules = _meaning(module)
    return {"version": version, "meaning": meaning, "bytes": sources.fingerprint(modules), "modules": modules}


@cache
def _named(entry: str, version: str, module: str) -> str:
    was = _record().get(entry)
    if was is not None and was.version == version and module in was.modules:
        # the same bytes: no need to parse them
        if all(sources.exists(name) for name in was.modules) and sources.fingerprint(was.modules) == was.bytes:
            return version
        if _meaning(module)[0] == was.meaning:
            return version
    return f"{version}+{_meaning(module)[0][:12]}"


@cache
def _meaning(module: str) -> tuple[str, tuple[str, ...]]:
    modules = sources.closure(module, OUTSIDE, parents=False)
    return sources.meaning(modules), modules


def _module(entry: str) -> str:
    return _OF_NO_BACKEND[entry][0] if entry in _OF_NO_BACKEND else operators.module_of(*entry.split("."))


@cache
def _record() -> Mapping[str, Recorded]:
    said = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    return {entry: Recorded(**(value | {"modules": tuple(value["modules"])})) for entry, value in said.items()}


def main() -> None:
    """Record the current code, and print which entries kept their version."""
    for said in record():
        print(f"kept its version: {said}")
    print(f"written: {RECORD}")


if __name__ == "__main__":
    main()
