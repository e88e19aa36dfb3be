"""Which videos have rows whose lengths rest on an assumed focal length: `metric = false` in the data contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egoworld_ops.contract import schema
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import video_ids

METRIC = schema.METRIC.name


def has_assumed(path: Path, table: str) -> bool:
    """Whether a file of the lake has rows whose lengths rest on an assumed focal length. Reads that column alone.

    Raises:
        ContractError, StorageUnavailable: as `read_table`.
    """
    if not schema.table(table).assumed_lengths:
        return False
    try:
        with pq.ParquetFile(path) as file:
            metric = file.read(columns=[METRIC], use_threads=False)[METRIC]
    except (pa.ArrowException, OSError, KeyError):
        metric = read_table(path, table)[METRIC]  # says what is wrong with the file
    return pc.all(metric, min_count=0).as_py() is False


def stages_of(run: Run, video_id: str) -> list[str]:
    """The stages that have such rows of a video."""
    folder = run.video_folder(video_id)
    tables = [t.name for t in schema.TABLES.values() if t.assumed_lengths]
    return [t for t in tables if any(has_assumed(path, t) for path in sorted(folder.glob(f"clip_id=*/{t}.parquet")))]


def videos_of(run: Run) -> Iterator[str]:
    """The videos of a run that have such rows."""
    return (video_id for video_id in video_ids(run) if stages_of(run, video_id))
