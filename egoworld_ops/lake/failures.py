"""Failures on record: which of them wait for a person and are driven again, and which results count beside one.

What is a dead letter is decided where results are planned.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError
from egoworld_ops.files import locks
from egoworld_ops.files.tables import digest_at, read_result, write_table
from egoworld_ops.lake.lake import Run

TABLE = "failures"
STAND_IN = "stand_in"
"""Where the identity of a failure has the digest of the result of a fallback backend that stands in for it."""


@dataclass(frozen=True, slots=True)
class Which:
    """A choice of dead letters; what is None does not matter."""

    video_id: str | None = None
    clip_id: str | None = None
    stage: str | None = None
    error_class: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A clip that a stage could not process and that is not tried again.

    Args:
        frame_index: the last frame the operator had taken; None where it had taken none.
        path: the file that says so.
    """

    run_id: str
    video_id: str
    clip_id: str
    stage: str
    backend: str
    error_class: str
    reason: str
    cure: str
    attempts: int
    frame_index: int | None
    traceback: str
    path: Path

    @property
    def command(self) -> str:
        """Reproduces the failure alone, in the foreground, writing nothing."""
        words = ["egoworld", "run", "--video", self.video_id, "--clip", self.clip_id, "--from", self.stage, "--to", self.stage]
        return shlex.join([*words, "--inline", "--dry"])


def on_record(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The row of a failure's file and what the file says of its origin; None where there is no failure, or none that can be read."""
    try:
        rows, known = read_result(path, TABLE)
        [row] = rows.to_pylist()
    except (ContractError, ValueError):
        return None
    return row, known


def allows(known: Mapping[str, Any], digest: str) -> bool:
    """Whether a result with that digest counts beside a failure of that origin: it is of the same work, or stands in for it."""
    identity = known.get("identity")
    return digest in (known.get("digest"), identity.get(STAND_IN) if isinstance(identity, dict) else None)


def result_beside(table: Path, failure: Path) -> str | None:
    """Digest of a clip's result; None where there is none, or only one that was there before the failure."""
    digest = digest_at(table)
    if digest is None or not failure.exists() or (failed := on_record(failure)) is None:
        return digest
    return digest if allows(failed[1], digest) else None


def record_stand_in(failure: Path, digest: str) -> None:
    """Note beside a failure that the result with that digest, of a fallback backend, stands in for it."""
    if (failed := on_record(failure)) is not None and not allows(failed[1], digest):
        row, known = failed
        identity = known.get("identity") or {}
        write_table(failure, TABLE, schema.from_rows(TABLE, [row]), known | {"identity": identity | {STAND_IN: digest}})


def find(run: Run, which: Which) -> Iterator[DeadLetter]:
    """The dead letters of a run, by video, clip and stage; failures that cannot be read are left out."""
    for path in sorted(
        run.path.glob(f"video_id={which.video_id or '*'}/clip_id={which.clip_id or '*'}/{which.stage or '*'}.failure.parquet")
    ):
        row, _ = on_record(path) or ({}, {})
        if row.get("dead_letter") and which.error_class in (None, row["error_class"]):
            wanted = {name: row[name] for name in DeadLetter.__dataclass_fields__ if name in row}
            yield DeadLetter(run_id=run.run_id, path=path, **wanted)


def redrive(run: Run, which: Which) -> list[DeadLetter]:
    """Let the next materialization try these again; returns them. What went wrong stays on record until then."""
    locks.hold(run.path)  # nobody takes what is being written here for what a killed process left
    driven = []
    for letter in list(find(run, which)):
        if (failed := on_record(letter.path)) is not None:
            row, known = failed
            write_table(letter.path, TABLE, schema.from_rows(TABLE, [row | {"dead_letter": False}]), known)
            driven.append(letter)
    return driven
