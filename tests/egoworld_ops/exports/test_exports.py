"""Exports hold the rows that count, each owned frame once, in their types; they appear atomically and touch nothing else."""

import base64
import csv
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops import exports
from egoworld_ops.contract import encodings, schema
from egoworld_ops.contract.links import LINKS
from egoworld_ops.contract.world import VIEWS
from egoworld_ops.errors import BadSettings, InputChanged
from egoworld_ops.exports.base import Rows, rows_of
from egoworld_ops.files.tables import make_provenance, provenance_at, read_table, write_table
from egoworld_ops.lake import counted
from egoworld_ops.lake.lake import RELEASED_TABLES, Lake, Run
from tests.lakes import fail, write_video

ODD = ['a "b"', "c, d; e", "two\nlines", "\r\n", "Größe 手 🖐", " spaces ", "=1+1", "null", "0012", "\\N", "'"]
FORMATS = ("csv", "parquet")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two videos of overlapping clips; one clip of the second has failed at its masks."""
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    write_video(made, "a", n_frames=50, sample_stride=2)
    video_id = write_video(made, "b", n_frames=50)
    fail(made, video_id, clips(made, video_id)[0]["clip_id"], "events")
    return made


def clips(run: Run, video_id: str) -> list[dict[str, Any]]:
    return read_table(run.video_table("clips", video_id), "clips").to_pylist()


def stored(run: Run, table: str) -> list[dict[str, Any]]:
    """The expected rows, read from the files of the run one by one: those of the frames that each clip owns."""
    found = []
    for folder in sorted(run.path.glob("video_id=*")):
        video_id = folder.name.removeprefix("video_id=")
        if table in ("videos", "clips"):
            found += read_table(run.video_table(table, video_id), table).to_pylist()
            continue
        for clip in clips(run, video_id):
            path = run.clip_table(table, video_id, clip["clip_id"])
            rows = read_table(path, table).to_pylist() if path.exists() else []
            found += [row for row in rows if clip["own_start"] <= row["frame_index"] < clip["own_end"]]
    return found


def with_labels(run: Run, name: str, labels: list[str]) -> None:
    """Set the labels of the first clip's detections, as a sidecar may."""
    [video_id] = [v for v in rows_of(run).videos if v.startswith(name)]
    path = run.clip_table("detections", video_id, clips(run, video_id)[0]["clip_id"])
    rows, said = read_table(path, "detections").to_pylist(), provenance_at(path)
    assert said is not None
    named = [row | {"label": labels[i % len(labels)]} for i, row in enumerate(rows)]
    stamp = make_provenance(said["digest"], said["identity"], len(rows), 0.5, run.run_id)
    write_table(path, "detections", schema.from_rows("detections", named), stamp)
    counted.count(run, video_id)


def read_csv(path: Path, table: str) -> list[dict[str, Any]]:
    """Rows as read with the contract's types and the format's own description."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{c.name: value_of(row[c.name], c.type, c.nullable) for c in schema.table(table).columns} for row in csv.DictReader(file)]


def value_of(cell: str, kind: pa.DataType, nullable: bool) -> Any:
    if cell == "" and nullable:
        return None
    if pa.types.is_string(kind):
        return cell
    if pa.types.is_binary(kind):
        return base64.b64decode(cell, validate=True)
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[cell]
    if pa.types.is_integer(kind):
        return int(cell)
    return float(cell) if pa.types.is_floating(kind) else json.loads(cell)


def test_csv_gives_back_every_value_of_the_lake(run: Run, tmp_path: Path) -> None:
    with_labels(run, "b", ODD)
    exports.write("csv", rows_of(run), tmp_path / "out")
    for table in RELEASED_TABLES:
        if table not in ("failures", *LINKS):
            assert read_csv(tmp_path / "out" / f"{table}.csv", table) == stored(run, table), table
    labels = {row["label"] for row in read_csv(tmp_path / "out" / "detections.csv", "detections")}
    assert labels >= set(ODD)
    [failure] = read_csv(tmp_path / "out" / "failures.csv", "failures")
    assert (failure["stage"], failure["traceback"], failure["frame_index"]) == ("events", "", None)


def test_csv_says_units_types_and_origin_beside_the_files(run: Run, tmp_path: Path) -> None:
    files = exports.write("csv", rows_of(run), tmp_path / "out")
    assert sorted(files) == sorted(path for path in (tmp_path / "out").iterdir())
    said = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (said["run_id"], said["schema"], said["videos"]) == (run.run_id, schema.SCHEMA_VERSION, rows_of(run).videos)
    assert list(said["incomplete"]) == [v for v in rows_of(run).videos if v.startswith("b-")]
    for table in RELEASED_TABLES:
        header = (tmp_path / "out" / f"{table}.csv").read_bytes().split(b"\r\n")[0].decode().split(",")
        assert header == list(said["columns"][table]) == schema.table(table).arrow_schema().names
    depth = said["columns"]["hand_pose"]["z_m"]
    assert (depth["unit"], depth["frame"], depth["type"], depth["nullable"]) == ("m", "camera", "double", True)
    assert said["columns"]["hand_pose"]["hand"]["nullable"] is False


def test_csv_is_read_by_duckdb_with_the_numbers_of_the_lake(run: Run, tmp_path: Path) -> None:
    with_labels(run, "b", ODD)
    exports.write("csv", rows_of(run), tmp_path / "out")
    with duckdb.connect() as connection:
        for table, value in (("hand_pose", "x_m"), ("detections", "score"), ("object_pose", "inliers")):
            path = tmp_path / "out" / f"{table}.csv"
            seen = connection.execute(f"SELECT frame_index, {value} FROM read_csv('{path}', header = true, quote = '\"')").fetchall()
            assert sorted(seen) == sorted((row["frame_index"], row[value]) for row in stored(run, table))


def test_parquet_gives_back_the_rows_of_the_lake_with_types_units_and_origin(run: Run, tmp_path: Path) -> None:
    with_labels(run, "b", ODD)
    exports.write("parquet", rows_of(run), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{table}.parquet" for table in (*RELEASED_TABLES, *VIEWS)}
    for table in RELEASED_TABLES:
        path = tmp_path / "out" / f"{table}.parquet"
        found = encodings.as_contract(table, pq.read_table(path))
        assert found.schema.equals(schema.table(table).arrow_schema(), check_metadata=False)
        assert pq.read_schema(path).field(0).metadata[b"doc"]
        said = json.loads(pq.read_metadata(path).metadata[b"egoworld.export"])
        assert (said["run_id"], list(said["incomplete"])) == (run.run_id, rows_of(run).videos[1:])
        if table not in ("failures", *LINKS):
            assert found.to_pylist() == stored(run, table), table
    assert pq.read_schema(tmp_path / "out" / "hand_pose.parquet").field("z_m").metadata == {
        b"doc": b"position of the wrist frame (T_camera_wrist), z",
        b"unit": b"m",
        b"frame": b"camera",
    }


@pytest.mark.parametrize("name", FORMATS)
def test_each_owned_frame_is_exported_once(run: Run, tmp_path: Path, name: str) -> None:
    overlapping = sum(read_table(p, "masks").num_rows for p in run.path.glob("video_id=*/clip_id=*/masks.parquet"))
    exports.write(name, rows_of(run), tmp_path / "out")
    with duckdb.connect() as connection:
        query = f"SELECT video_id, frame_index, role, count(*) FROM '{tmp_path}/out/masks.{name}' GROUP BY ALL"
        found = connection.execute(query).fetchall()
    assert {n for *_, n in found} == {1}
    assert len(found) == 3 * (25 + 50) < overlapping


@pytest.mark.parametrize("name", FORMATS)
def test_tables_without_rows_and_runs_without_videos_are_files_with_their_columns(tmp_path: Path, name: str) -> None:
    empty = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    exports.write(name, rows_of(empty), tmp_path / "out")
    with duckdb.connect() as connection:
        for table in RELEASED_TABLES:
            found = connection.execute(f"DESCRIBE SELECT * FROM '{tmp_path}/out/{table}.{name}'").fetchall()
            assert [column for column, *_ in found] == schema.table(table).arrow_schema().names
            assert connection.execute(f"SELECT count(*) FROM '{tmp_path}/out/{table}.{name}'").fetchall() == [(0,)]


def test_rows_are_those_of_one_moment_though_the_run_goes_on(run: Run) -> None:
    """Tables are read one after the other. A video that is recomputed in between must not have old detections beside new masks."""
    rows = rows_of(run)
    assert list(rows.of("detections"))
    write_video(run, "a", n_frames=50, sample_stride=2, seed=1)
    with pytest.raises(InputChanged, match="changed while"):
        list(rows.of("masks"))
    assert list(rows_of(run).of("masks"))


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_is_killed_or_fails_leaves_no_half_folder(
    run: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(tmp_path / "lake")
    target = tmp_path / "exports" / "out"
    for n in (0, 4, len(RELEASED_TABLES) - 1):
        if (child := os.fork()) == 0:
            with suppress(BaseException):
                rows = rows_of(run)
                monkeypatch.setattr(Rows, "of", after(n, lambda: os.kill(os.getpid(), signal.SIGKILL)))
                exports.write(name, rows, target)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert not target.exists(), f"killed at table {n}"
    killed = set(target.parent.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(Rows, "of", after(2, changed))
        with pytest.raises(InputChanged):
            exports.write(name, rows_of(run), target)
    assert set(target.parent.iterdir()) == killed, "what fails cleans up"
    exports.write(name, rows_of(run), target)
    assert len(list(target.iterdir())) >= len(RELEASED_TABLES)
    assert files_of(tmp_path / "lake") == before


def after(n: int, what: Callable[[], object]) -> Callable[..., Any]:
    """In the place of `Rows.of`: does something in the middle of the table `n`."""
    genuine, seen = Rows.of, []

    def of(rows: Rows, table: str) -> Any:
        for part in genuine(rows, table):
            yield part
            if table == RELEASED_TABLES[n]:
                what()
        if table == RELEASED_TABLES[n]:
            what()
        seen.append(table)

    return of


def changed() -> None:
    raise InputChanged("a file", "changed", "Export again")


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_into_the_lake(run: Run, tmp_path: Path) -> None:
    before = files_of(tmp_path / "lake")
    (tmp_path / "link").symlink_to(run.path)
    for target in (
        tmp_path / "lake" / "out",
        run.path / "out",
        tmp_path / "lake" / "new" / "out",
        tmp_path / "link" / "out",
        tmp_path / "x" / ".." / "lake" / "out",
    ):
        with pytest.raises(BadSettings, match="lies in the lake"):
            exports.write("csv", rows_of(run), target)
    assert files_of(tmp_path / "lake") == before
    assert not list((tmp_path / "lake").glob("**/.tmp-export*"))
    assert not (tmp_path / "lake" / "new").exists()


def test_nothing_that_is_there_is_written_over(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "dangling"):
        with pytest.raises(BadSettings, match="is there already"):
            exports.write("csv", rows_of(run), tmp_path / name)
    target = tmp_path / "late"

    def comes_meanwhile() -> None:
        target.mkdir(exist_ok=True)
        (target / "mine").write_text("mine")

    monkeypatch.setattr(Rows, "of", after(3, comes_meanwhile))
    with pytest.raises(BadSettings, match="is there already"):
        exports.write("csv", rows_of(run), target)
    assert [path.name for path in target.iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".tmp-*"))
    assert (tmp_path / "file").read_text() == "mine"


def test_the_command_writes_says_sizes_and_what_is_incomplete_and_takes_some_videos(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "lake"))
    videos = list(rows_of(run).videos)
    done = CliRunner().invoke(egoworld, ["export", "csv", run.run_id, str(tmp_path / "deep" / "out")])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path}/deep/out/masks.csv" in done.stdout
    assert f"1 video(s) are incomplete: {videos[1]}" in done.stderr
    done = CliRunner().invoke(egoworld, ["export", "parquet", run.run_id, str(tmp_path / "one"), "--video", videos[0]])
    assert done.exit_code == 0, done.output
    assert "incomplete" not in done.stderr
    assert set(pq.read_table(tmp_path / "one" / "masks.parquet")["video_id"].to_pylist()) == {videos[0]}
    for arguments, said in (
        (["csv", run.run_id, str(tmp_path / "two"), "--video", "kitchne"], "has no manifest in run"),
        (["xml", run.run_id, str(tmp_path / "two")], "there is no such format"),
        (["csv", run.run_id, str(tmp_path / "lake" / "two")], "lies in the lake"),
    ):
        refused = CliRunner().invoke(egoworld, ["export", *arguments])
        assert refused.exit_code == 1
        assert said in str(refused.exception)
    assert not (tmp_path / "two").exists()
