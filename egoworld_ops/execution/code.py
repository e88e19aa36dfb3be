"""Does code differ from that which its version was given to? `versions.json` says what each version's code was; a test holds it to that.

What differs is a version of its own: `3` becomes `3+1f0c2a...`, so that results of edited code never pass for those of the version, and `explain`
shows why they are computed. Code of packages is in no such record: its version always has that addition. See docs/adr/0022.

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
    "egoworld_ops.models",  # weights are in each digest by their SHA-256
    "egoworld_ops.plugins",
    "egoworld_ops.sources",
    "egoworld_ops.settings",  # settings are in each digest by their values
)
"""Modules that decide no value of a result, or are in its digest by other means."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the record has of one version: the modules its results depend on, and what they say."""

    version: str
    meaning: str
    bytes: str
    modules: tuple[str, ...]


def entries() -> dict[str, str]:
    """What has a version: each built-in backend as `stage.backend`, decoding and the manifest; and its version."""
    known = {
        f"{stage}.{backend}": operators.version_of(stage, backend)
        for stage in operators.stages()
        for backend in operators.backends(stage)
        if operators.is_built_in(stage, backend)
    }
    return known | {entry: str(sources.constant(*where)) for entry, where in _OF_NO_BACKEND.items()}


def version(entry: str) -> str:
    """The version of an entry, with an addition where its code is not that which was recorded for it."""
    if entry in _OF_NO_BACKEND:
        return _named(entry, str(sources.constant(*_OF_NO_BACKEND[entry])), _module(entry))
    return version_of_backend(*entry.split("."))


def version_of_backend(stage: str, backend: str) -> str:
    """The same of any backend, also of one that a package brings."""
    return _named(f"{stage}.{backend}", operators.version_of(stage, backend), operators.module_of(stage, backend))


def changed() -> Iterator[tuple[str, str]]:
    """Entries whose code is not that which was recorded, and what to do about each, as a sentence."""
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
    """Write the record anew; what kept its version though its code changed, as sentences."""
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
        # the same bytes: no need to read what they mean
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
    """Record the code as it is now, and say what kept its version."""
    for said in record():
        print(f"kept its version: {said}")
    print(f"written: {RECORD}")


if __name__ == "__main__":
    main()
