"""Checks that table `intake`, the record of raw files, is whole and agrees with itself and with the videos of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from egoworld_ops.contract import validation
from egoworld_ops.errors import ContractError, EgoworldError
from egoworld_ops.lake.lake import VIDEO_TABLES, Run
from egoworld_ops.lake.states import manifest_of, video_ids
from egoworld_ops.raw import intake

_AGAIN = "Restore it from a copy, or move it away and register the raw files again: their results are found by what they hold"
_LAKE_ID = re.compile(r"[0-9a-f]{12}")


def check_intake(run: Run) -> list[EgoworldError]:
    """All that is wrong with the record, by itself and against a run's videos.

    Raises:
        StorageUnavailable: it cannot be read now.
    """
    path = intake.path(run.lake)
    try:
        rows = intake.read(run.lake)
    except ContractError as error:
        return [ContractError(path, error.reason, _AGAIN), *_beside(run)]
    findings = [ContractError(path, reason, _AGAIN) for reason in (*validation.violations("intake", rows), *_strange(rows))]
    return [*findings, *_of_videos(run, rows), *_beside(run)]


def _strange(rows: pa.Table) -> Iterator[str]:
    """Rows that no registration writes."""
    registered = [row for row in rows.to_pylist() if row["status"] == "registered"]
    for video_id, n in Counter(row["video_id"] for row in registered).items():
        if n > 1:
            yield f"registers video {video_id} {n} times"
    for row in registered:
        if not row["sha256"] or not str(row["video_id"]).endswith(f"-{row['sha256'][:12]}"):
            yield f"registers {row['path']} as video {row['video_id']}, and its SHA-256 is {row['sha256']}"


def _of_videos(run: Run, rows: pa.Table) -> Iterator[ContractError]:
    """Videos of the run that the record does not know, or knows with other content."""
    path = intake.path(run.lake)
    known = {row["video_id"]: row for row in rows.to_pylist() if row["status"] in ("registered", "forgotten")}
    for video_id in video_ids(run):
        try:
            manifest = manifest_of(run, video_id)
        except EgoworldError:  # reported where the video is checked
            continue
        if manifest is None:
            continue
        if video_id not in known:
            cure = f"Register {manifest.video['path']} again, or remove {run.video_folder(video_id)}"
            yield ContractError(path, f"has no row of video {video_id}, which run {run.run_id} has", cure)
        elif known[video_id]["sha256"] != manifest.video["sha256"]:
            registered = str(known[video_id]["sha256"])[:12]
            reason = f"was made of content {str(manifest.video['sha256'])[:12]}, and {path} has {registered} for the video"
            yield ContractError(run.video_table(VIDEO_TABLES[0], video_id), reason, "Materialize the manifest of the video again")


def _beside(run: Run) -> Iterator[ContractError]:
    """Foreign files beside the record, and a malformed name by which the sensor knows the lake."""
    path = intake.path(run.lake)
    if not path.parent.is_dir():
        return
    for other in sorted(path.parent.glob("*.parquet")):
        if other.name != path.name and not other.name.startswith("."):
            yield ContractError(other, f"is read by nobody: a copy of {path.name}?", "Remove it")
    lake_id = path.with_name("lake_id")
    if lake_id.exists() and not (lake_id.is_file() and _LAKE_ID.fullmatch(lake_id.read_text("ascii", "replace"))):
        yield ContractError(lake_id, "is not 12 hex digits", "Delete it: another is made, and the sensor looks at all videos again")
