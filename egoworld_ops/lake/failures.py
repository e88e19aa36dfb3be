"""Dead letters: failures on record that wait for a person, and how they are redriven."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError
from egoworld_ops.files.tables import write_table
from egoworld_ops.files.whole import hold_swept, matching
from egoworld_ops.lake import counted, states
from egoworld_ops.lake.failure_file import TABLE, Failure, on_record
from egoworld_ops.lake.lake import Run


@dataclass(frozen=True, slots=True)
class Which:
    """A choice of dead letters; what is None does not matter."""

    video_id: str | None = None
    clip_id: str | None = None
    stage: str | None = None
    error_class: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A clip that a stage could not process and that is not tried again; or, with an empty `clip_id`, a video that was rejected.

    Args:
        frame_index: the last frame the operator had taken; None where it had taken none.
        path: the file that says so.
    """

    run_id: str
    video_id: str
    clip_id: str
    stage: str
    backend: str
    culprit: str
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
        clip = ["--clip", self.clip_id] if self.clip_id else []
        words = ["egoworld", "run", "--video", self.video_id, *clip, "--from", self.stage, "--to", self.stage]
        return shlex.join([*words, "--inline", "--dry"])

    @property
    def redriving(self) -> str:
        """Lets the next materialization try it again; makes the manifest anew of a video that was rejected."""
        if not self.clip_id:
            return shlex.join(["egoworld", "run", "--video", self.video_id, "--to", self.stage, "--anew"])
        chosen = ["--run", self.run_id, "--video", self.video_id, "--clip", self.clip_id, "--stage", self.stage]
        return shlex.join(["egoworld", "redrive", *chosen])


def find(run: Run, which: Which) -> Iterator[DeadLetter]:
    """The dead letters of a run, by video, clip and stage: clips, and videos that were rejected. What is damaged is left out.

    Raises:
        StorageUnavailable: a file is there and cannot be read now.
    """
    for video_id in states.video_ids(run):
        if which.video_id in (None, video_id):
            try:
                manifest = states.manifest_of(run, video_id)
            except ContractError:
                continue
            if manifest is not None:
                yield from (letter for letter in _of_video(run, manifest, which) if which.error_class in (None, letter.error_class))


def _of_video(run: Run, manifest: states.VideoManifest, which: Which) -> Iterator[DeadLetter]:
    video_id, rejected = manifest.video_id, manifest.state.failure
    if rejected and rejected.dead_letter and which.clip_id is None and which.stage in (None, states.MANIFEST):
        yield _letter(run, rejected, run.video_table("videos", video_id), video_id)
    for clip_id in manifest.clip_ids:
        if which.clip_id in (None, clip_id):
            for path in matching(run.clip_folder(video_id, clip_id), f"{which.stage or '*'}.failure.parquet"):
                if (failed := on_record(path)) is not None and failed.dead_letter:
                    yield _letter(run, failed, path, video_id)


def _letter(run: Run, failed: Failure, path: Path, video_id: str) -> DeadLetter:
    whole_video = {"video_id": video_id, "clip_id": "", "stage": states.MANIFEST, "backend": "", "attempts": 1, "frame_index": None}
    row = {**whole_video, "traceback": "", **failed.row}
    return DeadLetter(run_id=run.run_id, path=path, **{name: row[name] for name in DeadLetter.__dataclass_fields__ if name in row})


def redrive(run: Run, which: Which) -> list[DeadLetter]:
    """Let the next materialization try these again; returns them. What went wrong stays on record until then.

    A video that was rejected is not redriven: its manifest is made anew.
    """
    hold_swept(run.path)  # so that nobody takes the files being written here for orphans of a killed process
    driven = []
    for letter in list(find(run, which)):
        if letter.clip_id and (failed := on_record(letter.path)) is not None:
            row = {**failed.row, "dead_letter": False}
            write_table(letter.path, TABLE, schema.from_rows(TABLE, [row]), failed.known)
            driven.append(letter)
    for video_id in sorted({letter.video_id for letter in driven}):
        counted.count(run, video_id, {letter.clip_id for letter in driven if letter.video_id == video_id})
    return driven
