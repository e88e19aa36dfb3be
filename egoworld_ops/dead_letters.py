"""Clips that wait for a person: found in the files of a run, and driven again. What is a dead letter is decided where results are planned."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from egoworld_ops import in_use, lake, schema
from egoworld_ops.lake import Run

TABLE = "failures"


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


def find(run: Run, which: Which) -> Iterator[DeadLetter]:
    """The dead letters of a run, by video, clip and stage."""
    for path in sorted(
        run.path.glob(f"video_id={which.video_id or '*'}/clip_id={which.clip_id or '*'}/{which.stage or '*'}.failure.parquet")
    ):
        for row in lake.read_table(path, TABLE).to_pylist():
            if row["dead_letter"] and which.error_class in (None, row["error_class"]):
                wanted = {name: row[name] for name in DeadLetter.__dataclass_fields__ if name in row}
                yield DeadLetter(run_id=run.run_id, path=path, **wanted)


def redrive(run: Run, which: Which) -> list[DeadLetter]:
    """Let the next materialization try these again; returns them. What went wrong stays on record until then."""
    in_use.hold(run.path)  # nobody takes what is being written here for what a killed process left
    letters = list(find(run, which))
    for letter in letters:
        [row] = lake.read_table(letter.path, TABLE).to_pylist()
        known = lake.provenance(letter.path) or {}
        lake.write_table(letter.path, TABLE, schema.from_rows(TABLE, [row | {"dead_letter": False}]), known)
    return letters
