"""What there is in a run and whether it counts: the one reader of the files of a video. Whoever asks "is it done?" asks here.

A result counts where it is `done`: its table is whole, no failure that it does not stand in for is on record beside it, and it was made from the
tables of its inputs that count now, and from that of the clip before, if it goes on with one. One listing a clip folder, one footer a table; a
failure is read where there is one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, EgoworldError, StorageUnavailable, recorded
from egoworld_ops.files.tables import provenance_at, read_any
from egoworld_ops.files.whole import names_in
from egoworld_ops.lake import lake
from egoworld_ops.lake.failure_file import Failure, is_dead_letter, on_record
from egoworld_ops.lake.lake import Run

MANIFEST = "manifest"
_MANIFEST_AGAIN = "Delete it and materialize the manifest again"
StateName = Literal["done", "stale", "failed", "blocked", "missing", "damaged", "unreadable"]
_CLIP_COLUMNS = ("clip_id", "frame_start", "frame_end", "own_start", "own_end")


@dataclass(frozen=True, slots=True)
class StageState:
    """What one clip is in one stage.

    Args:
        state: `done` where the result counts; `stale` where a table is there that was made from other inputs than those that count now; `failed`
            where a failure is on record and the table beside it, if any, does not stand in for it; `damaged` where what is there is not a whole
            file of the lake; `unreadable` where it cannot be read now, so that nothing may be decided; `blocked` where nothing is there and an
            input is not `done`; `missing` where nothing is there, though all inputs are.
        digest, rows: of the table that is there, whether it counts or not; None where there is none, or it does not say.
        failure: the one on record, also where a fallback backend stands in for it.
        error: why it is `unreadable`.
        said: what the table says of its origin; empty in the states of a whole video, which would be too large with it.
    """

    state: StateName
    digest: str | None = None
    rows: int | None = None
    failure: Failure | None = None
    error: StorageUnavailable | None = None
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> str | None:
        """Digest of the result; None where none counts."""
        return self.digest if self.state == "done" else None


Known = dict[tuple[str, str], StageState]
"""States by clip and stage, of clips of one video."""


@dataclass(frozen=True, slots=True)
class ClipState:
    """One clip: its frames, and what it is in each stage."""

    clip_id: str
    frame_start: int
    frame_end: int
    own_start: int
    own_end: int
    stages: Mapping[str, StageState]

    @property
    def states(self) -> dict[str, StateName]:
        """The bare states, by stage."""
        return {name: stage.state for name, stage in self.stages.items()}

    @property
    def failures(self) -> list[str]:
        """Stages with a failure on record, also where a fallback backend made the table."""
        return sorted(name for name, stage in self.stages.items() if stage.failure is not None)


@dataclass(frozen=True, slots=True)
class VideoState:
    """One video of a run that has a manifest: its row of `videos`, and its clips in order of their names.

    Args:
        manifest: `done`, with the clips as its rows; `failed` for a video that was rejected.
    """

    video_id: str
    video: Mapping[str, Any]
    manifest: StageState
    clips: Sequence[ClipState]

    def all_states(self) -> Iterator[tuple[str, StageState]]:
        """Stage and state of the manifest and of each clip in each stage."""
        yield MANIFEST, self.manifest
        yield from (pair for clip in self.clips for pair in clip.stages.items())

    def unreadable(self) -> StorageUnavailable | None:
        """Why something of it cannot be read now; None where all can."""
        return next((state.error for _, state in self.all_states() if state.error is not None), None)

    def lacking(self) -> dict[str, dict[str, int]]:
        """How many clips have no table that counts, by stage and state; empty for a whole video, and for one that was rejected."""
        found: dict[str, Counter[str]] = {}
        for clip in self.clips:
            for stage, state in clip.states.items():
                if state != "done":
                    found.setdefault(stage, Counter())[state] += 1
        return {stage: dict(counted) for stage, counted in found.items()}


def half_a_manifest(path: Path) -> ContractError:
    """The error of a `videos.parquet` that lies beside the `clips.parquet` of another manifest."""
    return ContractError(path, "is of another manifest than clips.parquet: its writer was killed", "Materialize the manifest again")


def rejection(video: Mapping[str, Any]) -> EgoworldError | None:
    """The error that a row of `videos` stands for; None for a video that can be processed."""
    if video["status"] != "rejected":
        return None
    return recorded(video["error_class"], video["path"], video["reason"], video["cure"])


@lru_cache
def upstream(stage: str) -> tuple[str, ...]:
    """The stages that a stage's result may depend on, directly or not, in order; see `Stage.optional`."""
    needed = {stage}
    for name in reversed(operators.stages()):
        if name in needed:
            needed.update(operators.stages()[name].above)
    return tuple(name for name in operators.stages() if name in needed and name != stage)


def contract_of_rows(rows: pa.Table) -> str:
    """The version of the data contract that rows were written under, as their file says; `none` where it says none."""
    return (rows.schema.metadata or {}).get(b"egoworld.schema_version", b"none").decode()


def video_ids(run: Run) -> list[str]:
    """The videos a run has a folder of, sorted.

    Raises:
        StorageUnavailable: the run's folder cannot be listed now.
    """
    return sorted(name.removeprefix("video_id=") for name in names_in(run.path) if name.startswith("video_id="))


@dataclass(frozen=True, slots=True)
class VideoManifest:
    """The manifest of a video: its row of `videos`, its rows of `clips`, and whether it counts.

    Args:
        state: `done`, with the clips as its rows; `failed` for a video that was rejected.
    """

    video_id: str
    video: Mapping[str, Any]
    clips: Sequence[Mapping[str, Any]]
    state: StageState

    @property
    def clip_ids(self) -> list[str]:
        """In order."""
        return [row["clip_id"] for row in self.clips]


def manifest_of(run: Run, video_id: str) -> VideoManifest | None:
    """The manifest of a video; None where it has none, which `videos.parquet` completes.

    Raises:
        ContractError, StorageUnavailable: as `video_state`.
    """
    try:
        path, clips_path = (run.video_table(name, video_id) for name in lake.VIDEO_TABLES)
    except ValueError as error:
        raise ContractError(run.path / f"video_id={video_id}", f"is no folder of a video: {error}", "Remove it, or rename it") from error
    if path.name not in names_in(path.parent):
        return None
    (videos, said), (clips, of_clips) = _rows(path, "videos"), _rows(clips_path, "clips")
    if len(videos) != 1:
        raise ContractError(path, f"holds {len(videos)} rows, want one", _MANIFEST_AGAIN)
    if said.get("digest") != of_clips.get("digest"):
        raise half_a_manifest(path)
    try:
        for row in clips:
            run.clip_folder(video_id, row["clip_id"])
    except ValueError as error:
        raise ContractError(clips_path, f"names a clip as none can be named: {error}", _MANIFEST_AGAIN) from error
    return VideoManifest(video_id, videos[0], clips, _manifest(videos[0], said, len(clips)))


def video_state(run: Run, video_id: str, stages: Collection[str] | None = None) -> VideoState | None:
    """The state of one video; None where it has no manifest.

    Args:
        stages: in which its clips are looked at, as of `clip_states`.

    Raises:
        ContractError: `videos.parquet` or `clips.parquet` is damaged or breaks the contract, the former has not one row, the two are not of one
            manifest, or no video or clip can have the name it has.
        StorageUnavailable: one of them is there and cannot be read now.
    """
    if (manifest := manifest_of(run, video_id)) is None:
        return None
    known: Known = {}
    return VideoState(video_id, manifest.video, manifest.state, [_clip(run, video_id, row, stages, known) for row in manifest.clips])


def _rows(path: Path, table: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a file that keeps the contract, and its origin. Of another version of it only what is needed here has to be there."""
    from egoworld_ops.contract import validation  # brings pyarrow.compute, which loading the definitions can do without

    try:
        rows, said = read_any(path, table)
        ours = contract_of_rows(rows) == schema.SCHEMA_VERSION
        wanted = {"status", "path", "reason", "cure", "error_class"} if table == "videos" else set(_CLIP_COLUMNS)
        lacking = wanted - set(rows.schema.names)
        wrong = "; ".join(validation.violations(table, rows)) if ours else f"no column {sorted(lacking)}" if lacking else ""
        if wrong:
            raise ContractError(path, wrong, _MANIFEST_AGAIN)
        return rows.to_pylist(), said
    except (TypeError, ValueError) as error:
        raise ContractError(path, f"makes no sense: {error!r}", _MANIFEST_AGAIN) from error


def _manifest(video: Mapping[str, Any], said: Mapping[str, Any], n_clips: int) -> StageState:
    error = rejection(video)
    if error is None:
        return StageState("done", said.get("digest"), n_clips)
    row = {"error_class": type(error).__name__, "culprit": error.culprit, "reason": error.reason, "cure": error.cure}
    failure = Failure(row | {"dead_letter": is_dead_letter(error)}, {"digest": said.get("digest")})
    return StageState("failed", said.get("digest"), n_clips, failure)


def _clip(run: Run, video_id: str, row: Mapping[str, Any], wanted: Collection[str] | None, known: Known) -> ClipState:
    stages = {name: replace(state, said={}) for name, state in clip_states(run, video_id, row["clip_id"], wanted, known).items()}
    return ClipState(stages=stages, **{name: row[name] for name in _CLIP_COLUMNS})


def clip_states(
    run: Run, video_id: str, clip_id: str, stages: Collection[str] | None = None, known: Known | None = None
) -> dict[str, StageState]:
    """What a clip is in each stage, in order; where `stages` are named, in those alone, which must hold all that they depend on.

    Args:
        known: of those that look at many clips of a video: what was found of clips that others go on with, to be used and added to.
    """
    known = {} if known is None else known
    found = _by_own_inputs(run, video_id, clip_id, stages, lambda name, state: _beside_before(run, video_id, clip_id, name, state, known))
    known |= {(clip_id, name): state for name, state in found.items() if operators.stages()[name].handed_on}
    return found


def _by_own_inputs(
    run: Run, video_id: str, clip_id: str, stages: Collection[str] | None, handed_on: Callable[[str, StageState], StageState]
) -> dict[str, StageState]:
    """As `clip_states`; `handed_on` judges a result further that may go on with that of the clip before."""
    folder = os.fspath(run.clip_folder(video_id, clip_id))
    try:
        there = names_in(folder)
    except StorageUnavailable as error:
        return {name: StageState("unreadable", error=error) for name in operators.stages() if stages is None or name in stages}
    found: dict[str, StageState] = {}
    for name, stage in operators.stages().items():
        if stages is None or name in stages:
            optional = {read.table: found[read.table] for read in stage.optional if read.table in found}
            state = _stage_state(folder, name, there, {i: found[i] for i in stage.inputs}, optional)
            found[name] = handed_on(name, state) if stage.handed_on else state
    return found


def before(said: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The clip that a result goes on with, by what its file says of its origin, and the digest of that clip's result, None where it had none.

    None where it goes on with no clip (docs/adr/0062).
    """
    identity = said.get("identity")
    found = identity.get("before") if isinstance(identity, dict) else None
    return (str(found.get("clip_id")), found.get("digest")) if isinstance(found, dict) else None


def _beside_before(run: Run, video_id: str, clip_id: str, stage: str, result: StageState, known: Known) -> StageState:
    """A result, where the one that it goes on with is the one that counts now.

    Walks back to a clip that is known, or goes on with none, and judges from there on. Names of clips sort as their frames do.
    """
    needed = {stage, *upstream(stage)}
    chain = [(clip_id, result)]
    while (link := before(chain[-1][1].said)) and link[0] < chain[-1][0] and (link[0], stage) not in known:
        chain.append((link[0], _by_own_inputs(run, video_id, link[0], needed, lambda _, state: state)[stage]))
    for name, state in reversed(chain):
        known[name, stage] = _after(state, before(state.said), stage, known)
    return known[clip_id, stage]


def _after(result: StageState, link: tuple[str, str | None] | None, stage: str, known: Known) -> StageState:
    if link is None or result.state != "done":
        return result
    earlier = known.get((link[0], stage))
    if earlier is not None and earlier.state == "unreadable":
        return replace(result, state="unreadable", error=earlier.error)
    return result if earlier is not None and earlier.counts == link[1] else replace(result, state="stale")


def _stage_state(
    folder: str, name: str, there: Collection[str], inputs: Mapping[str, StageState], optional: Mapping[str, StageState]
) -> StageState:
    table, failure_file = f"{name}.parquet", f"{name}.failure.parquet"
    try:
        said = provenance_at(f"{folder}/{table}") if table in there else {}
        failure = on_record(Path(folder, failure_file)) if failure_file in there else None
    except StorageUnavailable as error:
        return StageState("unreadable", error=error)
    digest = (said or {}).get("digest")
    if digest is None and table in there:
        return StageState("failed" if failure else "damaged", failure=failure)
    if digest is None and failure is None:
        if failure_file in there:
            return StageState("damaged")
        if away := next((i for i in inputs.values() if i.state == "unreadable"), None):
            return StageState("unreadable", error=away.error)
        return StageState("blocked" if any(i.state != "done" for i in inputs.values()) else "missing")
    if digest is None or said is None:
        return StageState("failed", failure=failure)
    if failure is not None and not failure.allows(digest):
        return StageState("failed", digest, said.get("rows"), failure, said=said)
    return _beside_inputs(StageState("done", digest, said.get("rows"), failure, said=said), inputs, optional)


def _beside_inputs(result: StageState, inputs: Mapping[str, StageState], optional: Mapping[str, StageState]) -> StageState:
    """A result, where it was made from the inputs that count now. Where one of them cannot be read now, nobody can tell.

    Optional inputs are those that it says it was made from; whether the settings ask for them now, the planner knows.
    """
    inputs = {**inputs, **{name: state for name, state in optional.items() if name in made_from(result.said)}}
    if away := next((i for i in inputs.values() if i.state == "unreadable"), None):
        return replace(result, state="unreadable", error=away.error)
    digests = made_from(result.said)
    fresh = all(inputs[name].counts == digest for name, digest in digests.items() if name in inputs)
    return result if fresh and all(name in inputs for name in digests) else replace(result, state="stale")


def made_from(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The digests of the tables that a table was made from, by stage, as it says."""
    identity = said.get("identity")
    inputs = identity.get("inputs") if isinstance(identity, dict) else None
    return inputs if isinstance(inputs, dict) else {}
