"""Checks that the files of one video of a run are whole, agree with each other, and belong to the clips that the video has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from egoworld_ops import operators
from egoworld_ops.contract import references, schema
from egoworld_ops.errors import ContractError, EgoworldError
from egoworld_ops.files import footer
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import lake
from egoworld_ops.lake.lake import RUN_TABLES, VIDEO_TABLES, Run
from egoworld_ops.lake.states import ClipState, VideoState, video_ids, video_state
from egoworld_ops.lake.states import before as handed_on
from egoworld_ops.upkeep.verify_counted import check_metrics, check_states
from egoworld_ops.upkeep.verify_file import MAKE_AGAIN, Checked, check_file
from egoworld_ops.video import index_file

_MANIFEST_AGAIN = "Materialize the manifest of the video again"
_REMOVE = "Remove it; the views show its rows"
_USELESS = "Remove it; nothing reads it"
_COPY = "Copy it from another run of this version of the contract"
_FAILURES = PurePath(lake.table_glob("failures")).name
_KNOWN_FILES = {f"{stage}{suffix}" for stage in operators.stages() for suffix in (".parquet", ".failure.parquet")}
_ROUNDING_S = 1e-6


def check_video(run: Run, video_id: str) -> list[EgoworldError]:
    """All that is wrong with the files of one video."""
    try:
        state = video_state(run, video_id)
    except ContractError as error:
        return [error, *check_states(run, video_id)]
    except EgoworldError as error:
        return [error]
    if state is None:
        incomplete = ContractError(run.video_folder(video_id), "has no videos.parquet: its manifest is not complete", _MANIFEST_AGAIN)
        return [incomplete, *check_states(run, video_id)]
    of_files = [*_manifest(run, state), *_strays(run, state), *_missing(run, state), *_clips(run, state)]
    return [*of_files, *check_states(run, video_id), *check_metrics(run, video_id)]


def check_strays(run: Run) -> list[EgoworldError]:
    """Files of no video that the views show, also hidden ones; and placeholders that break the views."""
    placeholders = {run.path / lake.placeholder(name): name for name in RUN_TABLES}
    contract, videos = run.path / "_contract", {f"video_id={video_id}" for video_id in video_ids(run)}
    others = sorted(path for path in run.path.iterdir() if path.name not in {contract.name, *videos})
    found: list[EgoworldError] = [ContractError(folder, "is no folder of a run", _REMOVE) for folder in others if any(_shown(run, folder))]
    strays = sorted(set(_shown(run, contract)) - placeholders.keys())
    found += [ContractError(path, "is no file of a run", _REMOVE) for path in strays]
    return found + [finding for path, name in placeholders.items() for finding in _placeholder(path, name)]


def _shown(run: Run, folder: Path) -> Iterator[Path]:
    """The files below a folder of a run that the views read as tables."""
    depth = len(folder.relative_to(run.path).parts)
    for name in RUN_TABLES:
        if pattern := "/".join(lake.table_glob(name).split("/")[depth:]):
            yield from folder.glob(pattern)


def _placeholder(path: Path, name: str) -> Iterator[ContractError]:
    try:
        rows = read_table(path, name)
    except ContractError as error:
        yield ContractError(path, error.reason, _COPY)
    else:
        if rows.num_rows or rows.schema != schema.table(name).arrow_schema():
            yield ContractError(path, f"is not the typed, empty table {name} that the views need", _COPY)


def _manifest(run: Run, state: VideoState) -> Iterator[EgoworldError]:
    checked = {name: check_file(run.video_table(name, state.video_id), name) for name in VIDEO_TABLES}
    for one in checked.values():
        yield from one.findings
        if one.identity.get("video") not in (None, state.video.get("sha256")):
            yield one.finding("was made of another video than videos.parquet says", _MANIFEST_AGAIN)
        if one.rows is not None and set(pc.unique(one.rows["video_id"]).to_pylist()) - {state.video_id}:
            yield one.finding("holds rows of another video", _MANIFEST_AGAIN)
    if (index := run.packet_index(state.video_id)).exists() and (fault := index_file.fault(index)) is not None:
        yield ContractError(index, f"is no packet index that clips can be read by: {fault}", _MANIFEST_AGAIN)
    if state.video["status"] == "ok" and (gap := _gap(state)):
        yield checked["clips"].finding(gap, _MANIFEST_AGAIN)


def _gap(state: VideoState) -> str:
    """The first frame owned by no clip, or by two; empty if each is owned once."""
    expected = 0
    for clip in sorted(state.clips, key=lambda c: c.own_start):
        if clip.own_start != expected or not clip.frame_start <= clip.own_start < clip.own_end <= clip.frame_end:
            return f"clip {clip.clip_id} owns frames {clip.own_start} to {clip.own_end}, where frame {expected} is the next to be owned"
        expected = clip.own_end
    n_frames = state.video["n_frames"]
    return f"frames up to {expected} are owned, and the video has {n_frames}" if expected != n_frames else ""


def _strays(run: Run, state: VideoState) -> Iterator[EgoworldError]:
    known = {f"clip_id={clip.clip_id}" for clip in state.clips}
    for folder in sorted(run.video_folder(state.video_id).iterdir()):
        if folder.name in known:
            for path in sorted(folder.iterdir()):
                if ".parquet" in path.name and path.name not in _KNOWN_FILES:
                    yield ContractError(path, "is of no stage", _REMOVE if fnmatchcase(path.name, _FAILURES) else _USELESS)
        elif folder.name.startswith("clip_id=") or any(_shown(run, folder)):
            yield ContractError(folder, "is of no clip of the video", _REMOVE)


def _missing(run: Run, state: VideoState) -> Iterator[EgoworldError]:
    """One finding per stage: whole stages may be missing."""
    missing: dict[str, list[Path]] = defaultdict(list)
    for clip in state.clips:
        for stage, said in clip.states.items():
            if said == "missing":
                missing[stage].append(run.clip_table(stage, state.video_id, clip.clip_id))
    for stage, paths in missing.items():
        others = f", nor are those of {len(paths) - 1} more of the video's {len(state.clips)} clips" if len(paths) > 1 else ""
        yield ContractError(paths[0], f"is not there, and no failure says why{others}", f"Materialize {stage} of video {state.video_id}")


def _clips(run: Run, state: VideoState) -> Iterator[EgoworldError]:
    earlier: dict[tuple[str, str], pa.Table] = {}
    for clip in state.clips:
        tables: dict[str, pa.Table] = {}
        before: dict[str, pa.Table] = {}
        for stage, said in clip.states.items():
            path = run.clip_table(stage, state.video_id, clip.clip_id)
            if said not in ("done", "stale") and not path.exists():
                continue
            checked = check_file(path, stage)
            yield from checked.findings
            if said != "failed" and checked.rows is not None and not checked.findings:
                tables[stage] = checked.rows
                yield from (checked.finding(reason) for reason in _against_clip(checked, stage, state, clip))
                if (link := handed_on(checked.said)) is not None and (link[0], stage) in earlier:
                    before[stage] = earlier[link[0], stage]
        for stage in clip.failures:
            checked = check_file(run.failure(stage, state.video_id, clip.clip_id), "failures")
            yield from checked.findings
            of = [(row["video_id"], row["clip_id"], row["stage"]) for row in checked.rows.to_pylist()] if checked.rows is not None else []
            if checked.rows is not None and of != [(state.video_id, clip.clip_id, stage)]:
                yield checked.finding(f"tells of {of}, want one failure of this clip and stage")
        for reference, reason in references.dangling(tables, before):
            yield ContractError(run.clip_table(reference.child, state.video_id, clip.clip_id), reason, MAKE_AGAIN)
        earlier = {(clip.clip_id, stage): table for stage, table in tables.items() if operators.stages()[stage].handed_on}


def _against_clip(checked: Checked, stage: str, state: VideoState, clip: ClipState) -> Iterator[str]:
    """Mismatches: the file's origin against its place, and its rows against the clip and that origin."""
    identity = checked.identity
    operator, inputs = (_mapping(identity.get(name)) for name in ("operator", "inputs"))
    if operator.get("stage") != stage:
        yield f"is the result of stage {operator.get('stage')}"
    if identity.get("video") != state.video["sha256"]:
        yield "was made of another video than videos.parquet says"
    if identity.get("frames") != [clip.frame_start, clip.frame_end]:
        yield f"was made of frames {identity.get('frames')}, and the clip has {clip.frame_start} to {clip.frame_end}"
    for name, digest in inputs.items():
        if digest != (footer.provenance(checked.path.with_name(f"{name}.parquet")) or {}).get("digest"):
            yield f"was made from another {name} than the one beside it"
    if (link := handed_on(checked.said)) is not None:
        counts = next((other.stages[stage].counts for other in state.clips if other.clip_id == link[0]), None)
        if counts != link[1]:
            yield f"goes on with another {stage} than clip {link[0]} has now"
    yield from _rows_against_clip(checked, state, clip, operator.get("backend"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows_against_clip(checked: Checked, state: VideoState, clip: ClipState, backend: Any) -> Iterator[str]:
    rows = checked.rows
    if rows is None or not rows.num_rows:
        return
    for column, wanted in (("video_id", state.video_id), ("clip_id", clip.clip_id), ("backend", backend)):
        if strange := set(pc.unique(rows[column]).to_pylist()) - {wanted}:
            yield f"holds rows of {column} {', '.join(sorted(strange))}"
    least, most = pc.min_max(rows["frame_index"]).as_py().values()
    if least < clip.frame_start or most >= clip.frame_end:
        yield f"holds frames {least} to {most}, and the clip has {clip.frame_start} to {clip.frame_end}"
    strides = set(pc.unique(rows["sample_stride"]).to_pylist())
    stride = checked.identity.get("sample_stride")
    if strides != {stride} or any(frame % stride for frame in pc.unique(rows["frame_index"]).to_pylist()):
        yield f"holds frames that are not every {stride}th"
