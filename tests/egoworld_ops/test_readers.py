"""Common readers can read a lake and a release: each one, in its own version, returns every row, nulls included.

The packages are installed once, into `.bench/readers`; where the package index cannot be reached, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from egoworld_ops.contract import schema
from egoworld_ops.files.tables import read_result, write_table
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.settings import ReleaseSettings
from tests.conftest import ROOT
from tests.lakes import write_video

PANDAS = ("pandas", "python-dateutil", "six", "pytz", "tzdata")
POINTS = {"detections": "points_px", "hand_pose": "joints_m"}
FROM_FILES = """
import glob, json, sys
READ
found = []
for table, column in {"detections": "points_px", "hand_pose": "joints_m"}.items():
    for path in sorted(glob.glob(sys.argv[1].replace("TABLE", table))):
        for row in rows(path, column):
            found.append([table, *row])
print(json.dumps(found))
"""
TO_LISTS = "lambda points: None if points is None else [[float(x) for x in point] for point in points]"
READERS = {
    "pyarrow": """
import pyarrow.parquet as pq
def rows(path, column):
    for row in pq.read_table(path).to_pylist():
        yield row["video_id"], row["clip_id"], row["frame_index"], row[column]
""",
    "pyarrow, the file alone": """
import pyarrow.parquet as pq
def rows(path, column):
    for row in pq.read_table(path, partitioning=None).to_pylist():
        yield row["video_id"], row["clip_id"], row["frame_index"], row[column]
""",
    "pyarrow, a data set of folders": """
import pyarrow.dataset
by_folder = pyarrow.dataset.HivePartitioning.discover(infer_dictionary=True)
def rows(path, column):
    for row in pyarrow.dataset.dataset([path], partitioning=by_folder).to_table().to_pylist():
        yield row["video_id"], row["clip_id"], row["frame_index"], row[column]
""",
    "pandas": f"""
import pandas
lists = {TO_LISTS}
def rows(path, column):
    frame = pandas.read_parquet(path)
    for video_id, clip_id, index, points in zip(frame["video_id"], frame["clip_id"], frame["frame_index"], frame[column]):
        yield str(video_id), str(clip_id), int(index), lists(points)
""",
    "polars": """
import polars
def rows(path, column):
    yield from polars.read_parquet(path).select("video_id", "clip_id", "frame_index", column).rows()
""",
    "duckdb": """
import duckdb
def rows(path, column):
    yield from duckdb.execute(f"SELECT video_id, clip_id, frame_index, {column} FROM read_parquet('{path}')").fetchall()
""",
    "duckdb, hive": """
import duckdb
def rows(path, column):
    said = f"SELECT video_id, clip_id, frame_index, {column} FROM read_parquet('{path}', hive_partitioning = true)"
    yield from duckdb.execute(said).fetchall()
""",
}


def installed(*requirements: str) -> str:
    """A folder with these packages and none that they need, to be put before others on Python's path."""
    folder = ROOT / ".bench" / "readers" / "_".join(requirements).replace("==", "-")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = folder.with_name(f".{folder.name}-{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--target", str(aside), *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(aside, ignore_errors=True)
            pytest.skip(f"cannot install {', '.join(requirements)}: {done.stderr.strip().splitlines()[-1:]}")
        if not folder.is_dir():  # another process of the tests may have made it meanwhile
            aside.rename(folder)
    return str(folder)


def run_with(packages: tuple[str, ...], code: str, *arguments: str, cwd: Path | None = None) -> Any:
    """What a program printed, as JSON, in a process that has these packages before those of the project."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


Truth = dict[str, list[list[Any]]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Truth]:
    """A lake and its release, of one clip a video, where every third row has no points; and the rows as they were before they were written."""
    run = Lake(tmp_path_factory.mktemp("readers") / "lake").open_run({}, "20260101_0000", dict)
    truth: Truth = {table: [] for table in POINTS}
    for name in ("one", "two"):
        video_id = write_video(run, name, n_frames=8)
        [folder] = run.video_folder(video_id).glob("clip_id=*")
        for table, column in POINTS.items():
            path = folder / f"{table}.parquet"
            rows, said = read_result(path, table)
            kept = [row | {column: None if i % 3 == 1 else row[column]} for i, row in enumerate(rows.to_pylist())]
            write_table(path, table, schema.from_rows(table, kept), said)
            truth[table] += [[table, row["video_id"], row["clip_id"], row["frame_index"], row[column]] for row in kept]
    make_release(run, ReleaseSettings(writers=1))
    return run, truth


CASES = [
    ("pyarrow", ("pyarrow==17.0.0",)),
    ("pyarrow", ("pyarrow==24.0.0",)),
    ("pyarrow", ("pyarrow",)),
    ("pyarrow, the file alone", ("pyarrow==17.0.0",)),
    ("pyarrow, a data set of folders", ("pyarrow==17.0.0",)),
    ("pyarrow, a data set of folders", ("pyarrow==24.0.0",)),
    ("pyarrow, a data set of folders", ("pyarrow",)),
    ("pandas", ("pyarrow==17.0.0", PANDAS)),
    ("pandas", (PANDAS,)),
    ("polars", (("polars", "polars-runtime-32"),)),
    ("duckdb", ("duckdb==1.1.3",)),
    ("duckdb", ()),
    ("duckdb, hive", ("duckdb==1.1.3",)),
    ("duckdb, hive", ()),
]


@pytest.mark.parametrize(("reader", "packages"), CASES, ids=[f"{r} with {', '.join(map(str, p)) or 'ours'}" for r, p in CASES])
def test_every_reader_reads_every_row_of_a_lake_and_of_a_release(
    reader: str, packages: tuple[Any, ...], written: tuple[Run, Truth]
) -> None:
    run, truth = written
    folders = tuple(installed(*([p] if isinstance(p, str) else p)) for p in packages)
    code = FROM_FILES.replace("READ", READERS[reader])
    wanted = [row for table in POINTS for row in truth[table]]
    for pattern in (f"{run.path}/video_id=*/clip_id=*/TABLE.parquet", f"{place.folder(run)}/TABLE/*.parquet"):
        found = run_with(folders, code, pattern)
        assert sorted(found, key=str) == sorted(wanted, key=str)


def test_our_own_reader_gives_back_the_types_of_the_contract(written: tuple[Run, Truth]) -> None:
    run, truth = written
    for table, column in POINTS.items():
        for path in sorted(run.path.glob(f"video_id=*/clip_id=*/{table}.parquet")):
            rows, _ = read_result(path, table)
            assert rows.schema.equals(schema.table(table).arrow_schema())
            of_file = [row for row in truth[table] if row[1] in str(path)]
            assert rows[column].to_pylist() == [row[4] for row in of_file]
