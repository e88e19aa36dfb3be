"""Parquet: one file a table, without folders, parts or views: to be sent to somebody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from egoworld_ops.contract import encodings
from egoworld_ops.exports.base import Rows


def export(rows: Rows, target: Path) -> Sequence[Path]:
    """One Parquet file a table, a row group a clip, which says what its columns mean and where its rows are from."""
    origin = json.dumps(rows.described())
    written = []
    for table in rows.tables:
        path = target / f"{table}.parquet"
        with pq.ParquetWriter(path, rows.schema_of(table), compression="zstd", **encodings.encodings(table)) as writer:
            for part in rows.of(table):
                if part.num_rows:
                    writer.write_table(part)
            writer.add_key_value_metadata({**encodings.said_schema(table), "egoworld.export": origin})
        written.append(path)
    return written
