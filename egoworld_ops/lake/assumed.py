"""Which files have rows whose lengths rest on an assumed focal length: `metric = false` in the data contract."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egoworld_ops.contract import schema
from egoworld_ops.files import regular
from egoworld_ops.files.tables import read_table

METRIC = schema.METRIC.name


def has_assumed(path: Path, table: str) -> bool:
    """Whether a file of the lake has rows whose lengths rest on an assumed focal length. Reads that column alone.

    Raises:
        ContractError, StorageUnavailable: as `read_table`.
    """
    if not schema.table(table).assumed_lengths:
        return False
    try:
        with regular.opened(path) as source, pq.ParquetFile(source) as file:
            metric = file.read(columns=[METRIC], use_threads=False)[METRIC]
    except (pa.ArrowException, OSError, KeyError):
        metric = read_table(path, table)[METRIC]  # says what is wrong with the file
    return pc.all(metric, min_count=0).as_py() is False
