"""Common readers can read a lake, a release and an export: each one, in its own version, returns every row of every table, nulls included.

The packages are installed once, into `.bench/readers`; where the package index cannot be reached, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from egoworld_ops import exports
from egoworld_ops.contract import schema
from egoworld_ops.contract.links import LINKS
from egoworld_ops.contract.world import VIEWS
from egoworld_ops.exports.base import rows_of
from egoworld_ops.files.tables import read_result, read_table, write_table
from egoworld_ops.lake.lake import RELEASED_TABLES, VIDEO_TABLES, Lake, Run
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from tests.conftest import ROOT
from tests.lakes import fail, write_video
from tests.walks import write_walk

PANDAS = ("pandas", "python-dateutil", "six", "pytz", "tzdata")
POINTS = {"detections": "points_px", "hand_pose": "joints_m"}
FROM_FILES = """
import glob, json, sys
is_null = lambda value: value is None
READ
def plain(value):
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if is_null(value) else value
found = {}
for name, (pattern, columns) in json.loads(sys.argv[1]).items():
    paths = sorted(glob.glob(pattern))
    found[name] = [[plain(row[column]) for column in columns] for path in paths for row in rows(path)]
print(json.dumps(found))
"""
READERS = {
    "pyarrow": """
import pyarrow.parquet as pq
rows = lambda path: pq.read_table(path).to_pylist()
""",
    "pyarrow, the file alone": """
import pyarrow.parquet as pq
rows = lambda path: pq.read_table(path, partitioning=None).to_pylist()
""",
    "pyarrow, a data set of folders": """
import pyarrow.dataset
by_folder = pyarrow.dataset.HivePartitioning.discover(infer_dictionary=True)
rows = lambda path: pyarrow.dataset.dataset([path], partitioning=by_folder).to_table().to_pylist()
""",
    "pandas": """
import pandas
is_null = lambda value: value is None or value != value
rows = lambda path: pandas.read_parquet(path).to_dict("records")
""",
    "polars": """
import polars
rows = lambda path: polars.read_parquet(path).iter_rows(named=True)
""",
    "duckdb": """
import duckdb
def rows(path):
    found = duckdb.execute(f"SELECT * FROM read_parquet('{path}')")
    return [dict(zip([column[0] for column in found.description], row)) for row in found.fetchall()]
""",
    "duckdb, hive": """
import duckdb
def rows(path):
    found = duckdb.execute(f"SELECT * FROM read_parquet('{path}', hive_partitioning = true)")
    return [dict(zip([column[0] for column in found.description], row)) for row in found.fetchall()]
""",
}
"""By reader, a function that gives the rows of a file as mappings. pandas has NaN for null."""


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
Rows = list[list[Any]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Truth]:
    """A lake, its release and an export, of a clip a video, where every third row has no points, and of a walk whose clips are linked.

    With the rows of the former as they were before they were written.
    """
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
    walk = write_walk(run, "walk", n_frames=20, clip_s=0.4)
    fail(run, walk, next(run.video_folder(walk).glob("clip_id=*")).name.removeprefix("clip_id="), "events")
    make_release(run, ReleaseSettings(writers=1))
    exports.write("parquet", rows_of(run), run.lake.root.parent / "export")
    return run, truth


@pytest.fixture(scope="module")
def files(written: tuple[Run, Truth]) -> dict[str, tuple[str, Sequence[str], Rows]]:
    """By place and table: where its files lie, its columns, and its rows."""
    run, _ = written
    found = {}
    for table in (*RELEASED_TABLES, *VIEWS):
        columns = schema.table(table).arrow_schema().names
        given_away = rows_in(columns, rows_of(run).of(table))
        found[f"{table} of the export"] = (f"{run.lake.root.parent}/export/{table}.parquet", columns, given_away)
        if table in RELEASED_TABLES:
            found[f"{table} of the release"] = (f"{place.folder(run)}/{table}/*.parquet", columns, given_away)
        if table in RELEASED_TABLES and table not in ("failures", *LINKS):
            pattern = f"{run.path}/video_id=*/{'' if table in VIDEO_TABLES else 'clip_id=*/'}{table}.parquet"
            found[f"{table} of the lake"] = (pattern, columns, rows_in(columns, (read_table(Path(path), table) for path in glob(pattern))))
    return found


def rows_in(columns: Sequence[str], parts: Iterable[pa.Table]) -> Rows:
    rows = (row for part in parts for row in part.to_pylist())
    return [[row[name].hex() if isinstance(row[name], bytes) else row[name] for name in columns] for row in rows]


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
def test_every_reader_reads_every_row_of_a_lake_a_release_and_an_export(
    reader: str, packages: tuple[Any, ...], files: dict[str, tuple[str, Sequence[str], Rows]]
) -> None:
    folders = tuple(installed(*([p] if isinstance(p, str) else p)) for p in packages)
    code = FROM_FILES.replace("READ", READERS[reader])
    found = run_with(folders, code, json.dumps({name: (pattern, columns) for name, (pattern, columns, _) in files.items()}))
    for name, (_, _, wanted) in files.items():
        assert wanted, name
        assert sorted(found[name], key=str) == sorted(wanted, key=str), name


def test_our_own_reader_gives_back_the_types_of_the_contract(written: tuple[Run, Truth]) -> None:
    run, truth = written
    for table, column in POINTS.items():
        for path in sorted(run.path.glob(f"video_id=*/clip_id=*/{table}.parquet")):
            rows, _ = read_result(path, table)
            assert rows.schema.equals(schema.table(table).arrow_schema())
            if of_file := [row for row in truth[table] if row[1] in str(path)]:
                assert rows[column].to_pylist() == [row[4] for row in of_file]
