"""Aggregates over groups of files that overlap: each group's are those of its rows, also where it has none."""

from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egoworld_ops.contract import gathered, grouped, quality


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


def test_a_metric_of_a_plugin_may_read_what_was_processed_in_lower_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "own.parquet")
    metric = quality.Metric("rows_a_frame", "count(*) / (select sum(frames) from processed)", "rows a frame")
    monkeypatch.setitem(gathered.stages(), "own", replace(gathered.stages()["masks"], metrics=(metric,)))  # type: ignore[arg-type]
    group = quality.Group([tmp_path / "own.parquet"], [quality.Span("c", 0, 4, 1)])
    with duckdb.connect() as connection:
        assert quality.measure_groups(connection, "own", {"v": group}) == {"v": {"rows_a_frame": 0.5}}
