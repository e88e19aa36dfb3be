"""Aggregates over groups of files that overlap: each group's are those of its rows, also where it has none."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.contract import grouped


def test_groups_that_share_files_and_such_without_rows_each_have_their_own_values(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"[{n}].parquet") for n in range(4)]
    for path, values in zip(paths, ([1.0, 5.0], [], [3.0], [10.0, 20.0, 60.0]), strict=True):
        pq.write_table(pa.table({"x": pa.array(values, pa.float64())}), path)
    groups = {"video": paths[:3], "other": paths[3:], "0": paths[:1], "1": paths[1:2], "2": paths[2:3], "pair": paths[1:3], "none": []}
    with duckdb.connect() as connection:
        found = grouped.aggregated(connection, ["count(*)", "median(x)", "max(x)"], groups)
    assert found == {
        "video": (3, 3.0, 5.0),
        "other": (3, 20.0, 60.0),
        "0": (2, 3.0, 5.0),
        "1": (0, None, None),
        "2": (1, 3.0, 3.0),
        "pair": (1, 3.0, 3.0),
    }
