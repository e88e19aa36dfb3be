"""The catalog answers from its own lake, for one run, with each frame once, whoever opens it and whatever lies beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from egoworld_ops.contract import links, world
from egoworld_ops.lake import latest, pointer
from egoworld_ops.lake.lake import LAKE_TABLES, RELEASED_TABLES, RUN_TABLES, Lake, Run, placeholder
from egoworld_ops.query import asked, catalog
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.settings import ReleaseSettings
from egoworld_ops.upkeep.verify import verify
from tests.conftest import ROOT
from tests.egoworld_ops.test_readers import installed, run_with
from tests.lakes import fail, register_videos, write_video

N_FRAMES = 50
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here simulates a power loss, so syncs are skipped."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two videos of two overlapping clips each, and their catalog."""
    made = Lake(tmp_path / "a lake").open_run({}, "20260101_0000", dict)
    for name in ("one", "two"):
        write_video(made, name, n_frames=N_FRAMES)
    catalog.write_catalog(made.lake)
    return made


def ask(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(lake.root / catalog.FILE_NAME), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def rows_of(lake: Lake, views: list[str]) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of each view, in order, through one connection."""
    with duckdb.connect(str(lake.root / catalog.FILE_NAME), read_only=True) as connection:
        return {view: connection.execute(f"SELECT * FROM {view} ORDER BY ALL").fetchall() for view in views}


ASK = """
import json, sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=not sys.argv[1].startswith(":"))
for statement in sys.argv[2:-1]:
    connection.execute(statement)
try:
    print(json.dumps(connection.execute(sys.argv[-1]).fetchall()))
except duckdb.Error as error:
    print(json.dumps(str(error)))
"""
VIDEOS = "SELECT split_part(video_id, '-', 1), count(*), count(DISTINCT frame_index) FROM {}masks GROUP BY 1 ORDER BY 1"


def test_views_have_each_owned_frame_once_and_the_raw_rows_stay_reachable(run: Run) -> None:
    clips = ask(run.lake, "SELECT frame_start, frame_end, own_start, own_end FROM clips ORDER BY video_id, clip_id")
    assert any(start != own_start for start, _, own_start, _ in clips), "the clips overlap"
    assert ask(run.lake, VIDEOS.format("")) == [(name, 3 * N_FRAMES, N_FRAMES) for name in ("one", "two")]
    assert ask(run.lake, VIDEOS.format("runs.")) == [(name, 3 * N_FRAMES, N_FRAMES) for name in ("one", "two")]
    overlapping = 3 * sum(end - start for start, end, _, _ in clips) // 2
    assert ask(run.lake, VIDEOS.format("raw.")) == [(name, overlapping, N_FRAMES) for name in ("one", "two")]
    for schema in ("main", "runs", "raw"):
        for table in RUN_TABLES:
            assert ask(run.lake, f"SELECT DISTINCT run_id FROM {schema}.{table}") in ([("20260101_0000",)], []), (schema, table)


OPENINGS = {
    "by its whole path, from elsewhere": lambda lake: ("/", [str(lake / catalog.FILE_NAME)]),
    "by a path from the folder above": lambda lake: (lake.parent, [f"{lake.name}/{catalog.FILE_NAME}"]),
    "in its own folder": lambda lake: (lake, [catalog.FILE_NAME]),
    "from within the original": lambda lake: (lake.parent / "a lake", [str(lake / catalog.FILE_NAME)]),
    "attached to another database": lambda lake: ("/", [":memory:", f"ATTACH '{lake / catalog.FILE_NAME}' AS e (READ_ONLY)", "USE e"]),
    "attached to that of the original": lambda lake: (
        "/",
        [str(lake.parent / "a lake" / catalog.FILE_NAME), f"ATTACH '{lake / catalog.FILE_NAME}' AS e (READ_ONLY)", "USE e"],
    ),
}
RIGHT, REFUSED = [["two", 3 * N_FRAMES, N_FRAMES]], "this catalog cannot tell which folder it lies in"


@pytest.mark.parametrize("opened", OPENINGS)
@pytest.mark.parametrize("version", ["ours", "duckdb==1.1.3"])
def test_a_copied_lake_never_answers_from_its_original(run: Run, opened: str, version: str) -> None:
    copy = run.lake.root.with_name("copy [2]")
    shutil.copytree(run.lake.root, copy, symlinks=True)
    [one] = copy.glob("run_id=*/video_id=one*")
    shutil.rmtree(one)
    packages = () if version == "ours" else (installed(version),)
    cwd, opening = OPENINGS[opened](copy)
    for schema in ("", "runs."):
        said = run_with(packages, ASK, *opening, VIDEOS.format(schema), cwd=Path(cwd))
        assert said == RIGHT or (opened.startswith("attached") and REFUSED in said), said
    assert not opened.startswith("attached") or REFUSED in said, "DuckDB has no word for the folder of a database that is attached"


def test_a_lake_that_is_moved_answers_where_it_is_and_may_be_attached_where_it_was_written(run: Run) -> None:
    attach = "ATTACH '{}' AS e (READ_ONLY)"
    here = run_with((), ASK, ":memory:", attach.format(run.lake.root / catalog.FILE_NAME), VIDEOS.format("e."))
    assert [name for name, *_ in here] == ["one", "two"]
    moved = run.lake.root.rename(run.lake.root.with_name("moved"))
    assert [name for name, *_ in ask(Lake(moved), VIDEOS.format(""))] == ["one", "two"]
    catalog.write_catalog(Lake(moved))
    there = run_with((), ASK, ":memory:", attach.format(moved / catalog.FILE_NAME), VIDEOS.format("e."))
    assert there == here


def test_tables_of_ones_own_have_a_place_beside_the_catalog(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.duckdb"
    assert oct((run.lake.root / catalog.FILE_NAME).stat().st_mode & 0o222) == "0o0"
    [(about,)] = ask(run.lake, "SELECT about FROM about")
    assert "tables of your own in this file are lost" in about
    with duckdb.connect(str(run.lake.root / catalog.FILE_NAME), read_only=True) as connection:
        connection.execute(f"ATTACH '{mine}' AS mine (READ_WRITE)")
        connection.execute("CREATE TABLE mine.hands AS SELECT * FROM hand_pose")
    with duckdb.connect(str(mine)) as connection:
        assert connection.execute("SELECT count(*) FROM hands").fetchall() == [(2 * 2 * N_FRAMES,)]


KILLED = """
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE mine AS SELECT 42 AS x")
os._exit(9)
"""


@pytest.mark.parametrize("turned", [False, True], ids=["the same catalog", "another catalog"])
def test_a_log_that_a_killed_client_left_neither_hides_the_catalog_nor_is_lost(run: Run, turned: bool) -> None:
    database = run.lake.root / catalog.FILE_NAME
    subprocess.run([sys.executable, "-c", KILLED, str(database)], check=False)
    assert database.with_name("egoworld.duckdb.wal").exists()
    if turned:
        latest.use(run.lake.open_run({"a": 2}, "20260102_0000", dict))
    catalog.write_catalog(run.lake)
    assert not database.with_name("egoworld.duckdb.wal").exists()
    assert ask(run.lake, "SELECT count(*) FROM raw.videos") == [(2,)]
    [kept] = run.lake.root.glob("egoworld.kept-*.duckdb")
    with duckdb.connect(str(kept)) as connection:
        assert connection.execute("SELECT x FROM mine").fetchall() == [(42,)]
    first = database.stat().st_ino
    assert catalog.write_catalog(run.lake).stat().st_ino == first
    assert list(run.lake.root.glob("egoworld.kept-*.duckdb")) == [kept]


def test_a_log_that_belongs_to_another_database_is_put_out_of_the_way(run: Run) -> None:
    database = run.lake.root / catalog.FILE_NAME
    subprocess.run([sys.executable, "-c", KILLED, str(database)], check=False)
    stale = database.with_name("egoworld.duckdb.wal")
    content = stale.read_bytes()
    catalog.write_catalog(run.lake)
    stale.write_bytes(content)
    catalog.write_catalog(run.lake)
    assert not stale.exists()
    assert ask(run.lake, "SELECT count(*) FROM videos") == [(2,)]
    assert ask(run.lake, "SELECT count(*) FROM duckdb_tables()") == [(0,)]


def test_no_query_mixes_two_runs_while_the_latest_turns(run: Run) -> None:
    other = run.lake.open_run({"a": 2}, "20260102_0000", dict)
    for name in ("one", "two", "three"):
        write_video(other, name, n_frames=30, seed=1)
    right = {("20260101_0000", 2, 6 * N_FRAMES), ("20260102_0000", 3, 9 * 30)}
    stop, seen, wrong = threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            said = "SELECT m.run_id, count(DISTINCT m.video_id), count(*) FROM masks m JOIN videos v USING (video_id, run_id) GROUP BY ALL"
            rows = ask(run.lake, said)
            seen.update(rows)
            if len(rows) != 1 or rows[0] not in right:
                wrong.append(rows)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(12):
        latest.use((run, other)[n % 2])
        catalog.write_catalog(run.lake)
    stop.set()
    reader.join()
    assert wrong == []
    assert seen == right


def test_a_lake_that_does_not_say_its_latest_run_says_so(run: Run) -> None:
    for name in ("latest", "latest.json"):
        (run.lake.root / name).unlink(missing_ok=True)
    catalog.write_catalog(run.lake)
    with pytest.raises(duckdb.Error, match=r"this lake does not say which run is the latest.*egoworld runs use"):
        ask(run.lake, "SELECT count(*) FROM videos")
    assert ask(run.lake, "SELECT count(*) FROM runs.videos") == [(2,)]


def test_a_lake_without_runs_has_all_views(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    catalog.write_catalog(store)
    views = [f"{s}.{t}" for s in ("runs", "raw", "release", "releases") for t in RELEASED_TABLES if s != "raw" or t not in links.LINKS]
    views += ["intake", "runs", "run_states"]
    assert rows_of(store, views) == {view: [] for view in views}


COPIES = ("._{}", "{stem} (1).parquet", "{stem} 2.parquet", "{stem}.sync-conflict-20260101-120000-ABCDEFG.parquet", "{}~", "{}.tmp")


def test_what_other_programs_leave_beside_the_files_neither_breaks_nor_doubles_a_view(run: Run) -> None:
    [video_id, _] = sorted(p.name.removeprefix("video_id=") for p in run.path.glob("video_id=*"))
    clip_ids = sorted(p.name.removeprefix("clip_id=") for p in run.video_folder(video_id).glob("clip_id=*"))
    fail(run, video_id, clip_ids[0], "mapping")
    make_release(run, ReleaseSettings(writers=1))
    catalog.write_catalog(run.lake)
    views = [f"{s}.{t}" for s in ("main", "runs", "release", "releases") for t in RELEASED_TABLES]
    views += [f"raw.{t}" for t in RELEASED_TABLES if t not in links.LINKS]
    views += [*LAKE_TABLES, "run_states", "runs"]
    before = rows_of(run.lake, views)

    clip, released = run.clip_folder(video_id, clip_ids[0]), place.folder(run) / "masks"
    targets = [run.lake.root / "intake" / "intake.parquet", clip / "mapping.failure.parquet", clip / "masks.parquet"]
    targets += [run.video_table("videos", video_id), next(released.glob("*.parquet"))]
    for target in targets:
        for form in COPIES:
            strange = target.with_name(form.format(target.name, stem=target.name.removesuffix(".parquet")))
            strange.write_bytes(APPLE_DOUBLE if strange.name.startswith("._") else target.read_bytes())
    shutil.copytree(clip, clip.with_name(f"{clip.name} (1)"))
    shutil.copytree(run.video_folder(video_id), run.path / f"video_id={video_id} 2")
    shutil.copytree(run.path, run.lake.root / f"{run.path.name} (copy)")
    shutil.copytree(place.folder(run), place.folder(run).with_name(f"{run.path.name} (copy)"))

    assert rows_of(run.lake, views) == before


def test_verify_names_what_other_programs_left(run: Run) -> None:
    register_videos(run)
    [clip, *_] = sorted(run.path.glob("video_id=*/clip_id=*"))
    left = [clip / form.format("masks.parquet", stem="masks") for form in COPIES[:-1]]
    for path in left:
        path.write_bytes(APPLE_DOUBLE)
    found = list(verify(run))
    named = [finding.culprit for finding in found]
    assert {finding.cure for finding in found} == {"Remove it; nothing reads it"}
    assert sorted(named) == sorted(map(str, left))


HIVE = """
import json, sys, duckdb
print(json.dumps([duckdb.execute(f"SELECT count(*) FROM read_parquet('{pattern}', hive_partitioning = true)").fetchall()[0][0]
                  for pattern in sys.argv[1:]]))
"""


@pytest.mark.parametrize("version", ["ours", "duckdb==1.1.3"])
def test_patterns_that_name_folders_by_hive_meet_no_placeholder(run: Run, version: str) -> None:
    make_release(run, ReleaseSettings(writers=1))
    catalog.write_catalog(run.lake)
    root = run.lake.root
    patterns = [
        "run_id=*/*/*/masks.parquet",
        "run_id=*/video_id=*/clip_id=*/masks.parquet",
        "run_id=*/**/masks.parquet",
        "release/*/masks/*.parquet",
    ]
    packages = () if version == "ours" else (installed(version),)
    raw = ask(run.lake, "SELECT count(*) FROM raw.masks")[0][0]
    assert run_with(packages, HIVE, *(f"{root}/{pattern}" for pattern in patterns)) == [raw, raw, raw, 6 * N_FRAMES]


EVERY_VIEW = """
import json, sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
views = connection.execute("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL").fetchall()
print(json.dumps({f"{schema}.{name}": connection.execute(f"SELECT count(*) FROM {schema}.{name}").fetchall()[0][0] for schema, name in views}))
"""


def test_an_older_duckdb_has_the_same_answers_of_every_view(run: Run) -> None:
    make_release(run, ReleaseSettings(writers=1))
    database = str(catalog.write_catalog(run.lake))
    ours = run_with((), EVERY_VIEW, database)
    of_tables = 3 * len(RUN_TABLES) + 2 * len(RELEASED_TABLES) + 4 * len(world.VIEWS) + 2 * len(links.LINKS)
    assert len(ours) == of_tables + sum(4 if view.is_released else 2 for view in asked.VIEWS) + len(LAKE_TABLES) + 3
    assert ours["main.hand_pose"] == 4 * N_FRAMES
    assert run_with((installed("duckdb==1.1.3"),), EVERY_VIEW, database) == ours


def test_a_release_of_many_parts_is_shown_whole(run: Run) -> None:
    """Parts are numbered with five digits, and with more from the hundred thousandth on; copies by sync programs are no parts."""
    make_release(run, ReleaseSettings(writers=1))
    catalog.write_catalog(run.lake)
    before = ask(run.lake, "SELECT count(*) FROM release.masks")
    for folder in (place.folder(run) / table for table in RELEASED_TABLES):
        [part] = folder.glob("*.parquet")
        part.rename(folder / f"{place.part_name(run, 100_000)}.parquet")
    assert ask(run.lake, "SELECT count(*) FROM release.masks") == before != [(0,)]
    assert ask(run.lake, "SELECT count(*) FROM releases.masks") == before
    [part] = (place.folder(run) / "masks").glob("*.parquet")
    shutil.copy(part, part.with_name(f"{part.stem} (1).parquet"))
    assert ask(run.lake, "SELECT count(*) FROM release.masks") == before


def test_a_table_that_is_newer_than_the_run_and_its_release_has_typed_views(run: Run) -> None:
    """A lake from before stage `movement` existed, except for its manifest."""
    make_release(run, ReleaseSettings(writers=1))
    shutil.rmtree(place.folder(run) / "movement")
    shutil.rmtree(place.home(run.lake) / "_contract" / "movement")
    for path in [run.path / placeholder("movement"), *run.path.glob("video_id=*/clip_id=*/movement.parquet")]:
        path.unlink()
    (run.lake.root / catalog.FILE_NAME).unlink()
    catalog.write_catalog(run.lake)
    for schema in ("main", "runs", "raw", "release", "releases"):
        assert ask(run.lake, f"SELECT count(speed_background_m_s) FROM {schema}.movement") == [(0,)]
    assert ask(run.lake, "SELECT count(*) FROM release.masks") == [(6 * N_FRAMES,)]


def test_a_run_of_an_older_contract_does_not_end_the_catalog(run: Run) -> None:
    said = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(said | {"frozen": {"schema": "1"}}))
    catalog.write_catalog(run.lake)
    assert ask(run.lake, "SELECT count(*) FROM masks") == [(6 * N_FRAMES,)]


@pytest.mark.parametrize("what", ["catalog", "pointer"])
def test_a_process_that_opens_a_run_meanwhile_removes_nothing_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As the resource of the catalog does, this process writes to a lake of which it has opened no run; another one begins one meanwhile."""
    lake = Lake(tmp_path / "lake")
    opened = (
        "import sys; from pathlib import Path; from egoworld_ops.lake.lake import Lake; Lake(Path(sys.argv[1])).open_run({}, None, dict)"
    )
    replace, interrupted = os.replace, []

    def slowly(source: str | Path, target: str | Path) -> None:
        if Path(target).name in (catalog.FILE_NAME, pointer.FILE_NAME) and not interrupted:
            interrupted.append(target)
            subprocess.run([sys.executable, "-c", opened, str(lake.root)], cwd=ROOT, check=True)
        replace(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    if what == "catalog":
        catalog.write_catalog(lake)
        assert ask(lake, "SELECT count(*) FROM raw.masks") == [(0,)]
    else:
        lake.root.mkdir()
        pointer.write(lake.root, pointer.Pointer("20260101_0000"))
    assert interrupted
