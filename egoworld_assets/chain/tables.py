"""The tables of one video as they lie in a run, whether they count or not: for those that compare them with something else."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.files.tables import read_table
from egoworld_ops.files.whole import matching
from egoworld_ops.lake.lake import Run


def tables_of(run: Run, video_id: str, stages: Iterable[str] | None = None) -> dict[str, pa.Table]:
    """`clips` and the tables of these stages, of all where none are named; of each stage the clips one after the other."""
    tables = {"clips": read_table(run.video_table("clips", video_id), "clips")}
    for stage in operators.stages() if stages is None else stages:
        paths = matching(run.video_folder(video_id), f"clip_id=*/{stage}.parquet")
        tables[stage] = pa.concat_tables([schema.empty(stage), *(read_table(p, stage) for p in paths)])
    return tables
