"""What of a run is there, by its files alone: the clips of each video, and what became of each clip in each stage."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import ContractError
from egoworld_ops.files import footer
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import lake, runs
from egoworld_ops.lake.failures import result_beside
from egoworld_ops.lake.lake import Run

_MANIFEST_AGAIN = "Delete it and materialize the manifest again"
State = Literal["done", "stale", "failed", "blocked", "missing"]


@dataclass(frozen=True, slots=True)
class ClipState:
    """One clip: its frames, the failures on record, and its state in each stage.

    Args:
        states: `done` where the table is there; `stale` where it is and was made from other inputs than those beside it; `failed` where a failure
            is there in its place, or beside a table from before it; `blocked` where an input is not `done`; `missing` where nothing is there,
            though all inputs are.
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
        """How many clips have no table that counts, by stage and state; empty for a whole video, and for one that was rejected."""
        found: dict[str, Counter[str]] = {}
        for clip in self.clips:
            for stage, state in clip.states.items():
                if state != "done":
                    found.setdefault(stage, Counter())[state] += 1
        return {stage: dict(counted) for stage, counted in found.items()}


def contract_of(run: Run) -> str:
    """The version of the data contract that a run was made under; this one where its `run.json` names none.

    Raises:
        SetupError: its `run.json` cannot be read.
    """
    return str((runs.described(run).get("frozen") or {}).get("schema", schema.SCHEMA_VERSION))


def contract_of_rows(rows: pa.Table) -> str:
    """The version of the data contract that rows were written under, as their file says; `none` where it says none."""
    return (rows.schema.metadata or {}).get(b"egoworld.schema_version", b"none").decode()


def video_ids(run: Run) -> list[str]:
    """The videos a run has a folder of, sorted."""
    return sorted(p.name.removeprefix("video_id=") for p in run.path.glob("video_id=*"))


def survey(run: Run, video_id: str) -> VideoState | None:
    """The state of one video; None where it has no manifest, which `videos.parquet` completes.

    Raises:
        ContractError: `videos.parquet` or `clips.parquet` cannot be read or breaks the contract, the former has not one row, or no video or clip
            can have the name it has.
    """
    try:
        path, clips_path = (run.video_table(name, video_id) for name in lake.VIDEO_TABLES)
    except ValueError as error:
        raise ContractError(run.path / f"video_id={video_id}", f"is no folder of a video: {error}", "Remove it, or rename it") from error
    if not path.exists():
        return None
    videos, clips = _rows(path, "videos"), _rows(clips_path, "clips")
    if len(videos) != 1:
        raise ContractError(path, f"holds {len(videos)} rows, want one", _MANIFEST_AGAIN)
    try:
        return VideoState(video_id, videos[0], [_clip(run, video_id, row) for row in clips])
    except ValueError as error:
        raise ContractError(clips_path, f"names a clip as none can be named: {error}", _MANIFEST_AGAIN) from error


def _rows(path: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a file that keeps the contract."""
    try:
        rows = read_table(path, table)
        if wrong := "; ".join(validation.violations(table, rows)):
            raise ContractError(path, wrong, _MANIFEST_AGAIN)
        return rows.to_pylist()
    except (TypeError, ValueError) as error:
        raise ContractError(path, f"makes no sense: {error!r}", _MANIFEST_AGAIN) from error


def _clip(run: Run, video_id: str, row: Mapping[str, Any]) -> ClipState:
    folder = run.clip_folder(video_id, row["clip_id"])
    there = _names(folder)
    states: dict[str, State] = {}
    fresh: dict[str, Any] = {}
    for name, stage in operators.stages().items():
        if f"{name}.parquet" in there:
            said = footer.provenance(folder / f"{name}.parquet") or {}
            if f"{name}.failure.parquet" in there and not _counts(run, name, video_id, row["clip_id"]):
                states[name] = "failed"
            elif _inputs(said).items() <= fresh.items():
                states[name], fresh[name] = "done", said.get("digest")
            else:
                states[name] = "stale"
        elif f"{name}.failure.parquet" in there:
            states[name] = "failed"
        else:
            states[name] = "blocked" if any(states[i] != "done" for i in stage.inputs) else "missing"
    failures = sorted(name for name in operators.stages() if f"{name}.failure.parquet" in there)
    return ClipState(row["clip_id"], row["frame_start"], row["frame_end"], row["own_start"], row["own_end"], states, failures)


def _counts(run: Run, stage: str, video_id: str, clip_id: str) -> bool:
    """Whether a table with a failure beside it is a result still."""
    places = run.clip_table(stage, video_id, clip_id), run.failure(stage, video_id, clip_id)
    return result_beside(*places) is not None


def _inputs(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The digests of the tables that a table was made from, by stage, as it says."""
    identity = said.get("identity")
    inputs = identity.get("inputs") if isinstance(identity, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
