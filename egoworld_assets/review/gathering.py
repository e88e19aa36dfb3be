"""Reads a chunk of a run's videos for an index: what counts, and by name what cannot be read."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import quality
from egoworld_ops.contract.quality import Bounds
from egoworld_ops.errors import EgoworldError
from egoworld_ops.lake import judging, measured
from egoworld_ops.lake.failure_file import on_record
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import MANIFEST
from egoworld_ops.query.views import as_measured

_COLUMNS = {
    "states": "video_id, clip_id, stage, rows, error_class, digest, "
    "CASE WHEN state = 'failed' AND dead_letter THEN 'dead letter' ELSE state END AS state",
    "videos": "video_id, path, bytes, status, error_class, reason, cure, warning, duration_s, n_frames, width, height",
    "clips": "video_id, clip_id, frame_start, frame_end, own_start, own_end, start_s, end_s",
    "metrics": "video_id, clip_id, stage, metric, CASE WHEN sketch IS NULL THEN value END AS value, digest, "
    "CASE WHEN sketch IS NULL THEN rows END AS rows, computed_at",
}
_FAILURE = ("backend", "culprit", "error_class", "reason", "cure", "attempts", "frame_index", "traceback", "dead_letter")
_TEXT = dict.fromkeys(("video_id", "clip_id", "stage", "metric", "said", "reason"), pa.string())
_SHAPES = {
    "failures": pa.schema(
        [(name, pa.string()) for name in ("video_id", "clip_id", "stage")]
        + [(n, {"attempts": pa.int32(), "frame_index": pa.int64(), "dead_letter": pa.bool_()}.get(n, pa.string())) for n in _FAILURE]
    ),
    "warnings": pa.schema([(n, _TEXT[n]) for n in ("video_id", "stage", "metric", "said")]),
    "unreadable": pa.schema([(n, _TEXT[n]) for n in ("video_id", "reason")]),
}

Found = dict[str, pa.Table]
"""Rows by the name of the index's table."""


def gather(reader: duckdb.DuckDBPyConnection, run: Run, video_ids: Sequence[str], bounds: Mapping[str, Mapping[str, Bounds]]) -> Found:
    """What there is of these videos.

    Args:
        reader: a connection for this alone.
        bounds: of quality metrics, by stage and metric, of the settings.
    """
    unreadable: list[tuple[Any, ...]] = []
    found: Found = {"states": _read(reader, run, "states", video_ids, unreadable)}
    states = found["states"].to_pylist()
    counting = [row["video_id"] for row in states if row["stage"] == MANIFEST and row["state"] in ("done", "failed", "dead letter")]
    found |= {table: _read(reader, run, table, counting, unreadable) for table in ("videos", "clips", "metrics")}
    failures = [row for each in states if each["error_class"] and each["clip_id"] and (row := _failure(run, each, unreadable)) is not None]
    warnings = []
    for video_id in counting:
        for stage, said in _measured(run, video_id, unreadable):
            sentences = [*quality.verdicts(stage, said.metrics, bounds.get(stage, {})), *said.odd]
            warnings += [(video_id, stage, text.partition(" ")[0], text) for text in judging.without_lengths(sentences)]
    listed = {"failures": failures, "warnings": warnings, "unreadable": unreadable}
    found |= {table: _table(table, rows) for table, rows in listed.items()}
    found |= _that_stand(reader, found["metrics"], found["states"])
    found["states"] = found["states"].drop_columns(["error_class", "digest"])
    return found


def _that_stand(reader: duckdb.DuckDBPyConnection, metrics: pa.Table, states: pa.Table) -> Found:
    """The numbers that were measured of what counts now; and how many rows videos have of objects, each with when that was computed."""
    if not metrics.num_rows:
        return {"metrics": metrics.drop_columns(["digest", "rows", "computed_at"]), "objects": metrics}
    reader.register("measured", metrics)
    reader.register("counted", states)
    now = as_measured("SELECT * FROM measured", "SELECT * FROM counted")
    numbers = f"SELECT video_id, clip_id, stage, metric, value FROM ({now}) WHERE value IS NOT NULL"
    of_objects = f"FROM ({now}) WHERE stage = 'object_pose' AND clip_id = '' GROUP BY 1"
    objects = f"SELECT video_id, max(rows) AS rows, max(computed_at) AS computed_at {of_objects}"
    found = {"metrics": reader.sql(numbers).to_arrow_table(), "objects": reader.sql(objects).to_arrow_table()}
    reader.unregister("measured")
    reader.unregister("counted")
    return found


def _read(reader: duckdb.DuckDBPyConnection, run: Run, table: str, video_ids: Sequence[str], unreadable: list[tuple[Any, ...]]) -> pa.Table:
    """The rows of a table of these videos; where a file among them cannot be read, it is found, named, and left out."""
    files = [str(path) for video_id in video_ids if (path := run.video_table(table, video_id)).exists()]
    try:
        return _select(reader, table, files)
    except duckdb.Error as error:
        if len(files) > 1:
            half = len(files) // 2
            ids = [Path(path).parent.name.partition("=")[2] for path in files]
            return pa.concat_tables(
                [_read(reader, run, table, part, unreadable) for part in (ids[:half], ids[half:])], promote_options="permissive"
            )
        if Path(files[0]).exists():  # else it was removed in this moment
            reason = " ".join(str(error).partition("LINE 1:")[0].split())
            unreadable.append((Path(files[0]).parent.name.partition("=")[2], f"{table}.parquet: {reason}"))
        return _select(reader, table, [])


def _select(reader: duckdb.DuckDBPyConnection, table: str, files: Sequence[str]) -> pa.Table:
    """Rows of files whose rows are of the video whose folder they lie in; of none, the shape alone."""
    if not files:
        return pa.table({name.split(" AS ")[-1].strip(): pa.array([], pa.null()) for name in _COLUMNS[table].split(", ")})
    read = "read_parquet($files, hive_partitioning = false, union_by_name = true, filename = true) AS f"
    said = f"SELECT {_COLUMNS[table]} FROM {read} WHERE split_part(filename, '/', -2) = 'video_id=' || video_id"
    return reader.sql(said, params={"files": [glob.escape(path) for path in files]}).to_arrow_table()


def _failure(run: Run, state: Mapping[str, Any], unreadable: list[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """What went wrong with a clip in a stage; None where it is no longer on record, or cannot be read."""
    try:
        failed = on_record(run.failure(state["stage"], state["video_id"], state["clip_id"]))
    except EgoworldError as error:
        unreadable.append((state["video_id"], str(error)))
        return None
    if failed is None:
        return None
    return (state["video_id"], state["clip_id"], state["stage"], *(failed.row.get(name) for name in _FAILURE))


def _measured(run: Run, video_id: str, unreadable: list[tuple[Any, ...]]) -> Iterator[tuple[str, measured.Measured]]:
    """What was measured of a video by the checks and is still true; nothing is measured here."""
    folder = run.video_folder(video_id)
    if not (folder / measured.FILE_NAME).exists():
        return
    try:
        for stage in (MANIFEST, *operators.stages()):
            digest = measured.digest_of(stage, list(judging.files_that_count(run, stage, video_id)))
            if (known := measured.recall(folder, stage, digest)) is not None:
                yield stage, known
    except EgoworldError as error:
        unreadable.append((video_id, str(error)))


def _table(table: str, rows: Sequence[Sequence[Any]]) -> pa.Table:
    shape = _SHAPES[table]
    return pa.table([pa.array([row[i] for row in rows], field.type) for i, field in enumerate(shape)], shape)
