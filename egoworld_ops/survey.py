"""What of a run is there, by its files alone: the clips of each video, and what became of each clip in each stage."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from egoworld_ops import lake, operators
from egoworld_ops.errors import ContractError
from egoworld_ops.lake import Run

State = Literal["done", "failed", "blocked", "missing"]


@dataclass(frozen=True, slots=True)
class ClipState:
    """One clip: its frames, the failures on record, and its state in each stage.

    Args:
        states: `done` where the table is there; `failed` where a failure is there in its place; `blocked` where an input is not there;
            `missing` where nothing is, though all inputs are.
        failures: stages with a failure on record, also where a fallback backend made the table.
    """

    clip_id: str
    frame_start: int
    frame_end: int
    own_start: int
    own_end: int
    states: Mapping[str, State]
    failures: Sequence[str]


@dataclass(frozen=True, slots=True)
class VideoState:
    """One video of a run that has a manifest: its row of `videos`, and its clips in order of their names."""

    video_id: str
    video: Mapping[str, Any]
    clips: Sequence[ClipState]

    def lacking(self) -> dict[str, dict[str, int]]:
        """How many clips have no table, by stage and state; empty for a whole video, and for one that was rejected."""
        found: dict[str, Counter[str]] = {}
        for clip in self.clips:
            for stage, state in clip.states.items():
                if state != "done":
                    found.setdefault(stage, Counter())[state] += 1
        return {stage: dict(counted) for stage, counted in found.items()}


def video_ids(run: Run) -> list[str]:
    """The videos a run has a folder of, sorted."""
    return sorted(p.name.removeprefix("video_id=") for p in run.path.glob("video_id=*"))


def survey(run: Run, video_id: str) -> VideoState | None:
    """The state of one video; None where it has no manifest, which `videos.parquet` completes.

    Raises:
        ContractError: `videos.parquet` or `clips.parquet` cannot be read, or the former has not one row.
    """
    if not run.video_table("videos", video_id).exists():
        return None
    videos, clips = (lake.read_table(run.video_table(name, video_id), name).to_pylist() for name in lake.VIDEO_TABLES)
    if len(videos) != 1:
        reason = f"holds {len(videos)} rows, want one"
        raise ContractError(run.video_table("videos", video_id), reason, "Delete it and materialize the manifest again")
    ordered = sorted(clips, key=lambda row: str(row["clip_id"]))
    return VideoState(video_id, videos[0], [_clip(run, video_id, row) for row in ordered])


def _clip(run: Run, video_id: str, row: Mapping[str, Any]) -> ClipState:
    there = _names(run.clip_folder(video_id, row["clip_id"]))
    states: dict[str, State] = {}
    for name, stage in operators.stages().items():
        if f"{name}.parquet" in there:
            states[name] = "done"
        elif f"{name}.failure.parquet" in there:
            states[name] = "failed"
        else:
            states[name] = "blocked" if any(states[i] != "done" for i in stage.inputs) else "missing"
    failures = sorted(name for name in operators.stages() if f"{name}.failure.parquet" in there)
    return ClipState(row["clip_id"], row["frame_start"], row["frame_end"], row["own_start"], row["own_end"], states, failures)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
