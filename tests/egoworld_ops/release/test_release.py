"""A release holds each owned frame once, in order; it changes atomically, only where the run changed, and survives kills."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egoworld_ops.contract import encodings, schema, validation
from egoworld_ops.errors import BadSettings, SetupError
from egoworld_ops.files.tables import digest_at, provenance_at, read_table, write_table
from egoworld_ops.lake.lake import RELEASED_TABLES, Lake, Run
from egoworld_ops.lake.states import video_ids
from egoworld_ops.query import catalog
from egoworld_ops.release import plan
from egoworld_ops.release import rows as of_run
from egoworld_ops.release.make import make_release
from egoworld_ops.release.place import PAGE_NAME, folder, home, part_name, part_names, part_path
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.settings import load_settings
from tests.damage import made_again
from tests.lakes import fail, files_of_release, write_video
from tests.stages import below

N_TABLES = len(RELEASED_TABLES)
SMALL = ReleaseSettings(part_mb=0.75, writers=2)
"""Two videos a part."""


def rows(run: Run, table: str) -> pa.Table:
    """The rows that a reader of the folder gets."""
    paths = sorted((folder(run) / table).glob("part-*.parquet"))
    return pa.concat_tables([read(p, table) for p in paths])


def read(path: Path, table: str) -> pa.Table:
    return encodings.as_contract(table, pq.read_table(path, partitioning=None))


def test_each_owned_frame_is_there_once_and_in_order(run: Run) -> None:
    outcome = make_release(run, SMALL)
    assert [[v[0] for v in part.videos] for part in outcome.manifest.parts] == [["a", "b"], ["c"]]
    for table in RELEASED_TABLES:
        found = rows(run, table)
        validation.validate(table, found)
        assert outcome.manifest.rows[table] == found.num_rows
    for stage, each in (("masks", 3), ("hand_pose", 2), ("movement", 1)):
        counted = rows(run, stage).group_by(["video_id", "frame_index"]).aggregate([([], "count_all")])
        assert counted.num_rows == 3 * 50
        assert set(counted["count_all"].to_pylist()) == {each}
    clips = {(c["video_id"], c["clip_id"]): c for c in rows(run, "clips").to_pylist()}
    for row in rows(run, "detections").select(["video_id", "clip_id", "frame_index"]).to_pylist():
        clip = clips[row["video_id"], row["clip_id"]]
        assert clip["own_start"] <= row["frame_index"] < clip["own_end"]


def test_files_are_laid_out_as_the_settings_say_and_say_so(run: Run) -> None:
    settings = ReleaseSettings(row_group_mb=0.02, page_mb=0.01, level=5, bloom_columns=("video_id", "clip_id"), writers=1)
    make_release(run, settings)
    path = part_path(folder(run), "masks", part_name(run, 0))
    footer = pq.read_metadata(path)
    assert footer.num_row_groups > 3
    assert {footer.row_group(0).column(i).compression for i in range(footer.num_columns)} == {"ZSTD"}
    assert footer.row_group(0).column(0).statistics.has_min_max
    names = [footer.schema.column(s.column_index).name for s in footer.row_group(0).sorting_columns]
    assert names == list(schema.table("masks").key)
    said = provenance_at(path)
    assert said is not None
    assert said["identity"]["parquet"] == settings.model_dump(mode="json", include=set(said["identity"]["parquet"]))
    assert said["identity"]["parquet"]["level"] == 5
    sources = said["identity"]["sources"]
    assert {v: set(clips) for v, clips in sources.items()} == {v: set(_clips(run, v)) for v in video_ids(run)}
    for video_id, clips in sources.items():
        for clip_id, (digest, *_) in clips.items():
            assert digest == digest_at(run.clip_table("masks", video_id, clip_id))


def _clips(run: Run, video_id: str) -> list[str]:
    return read_table(run.video_table("clips", video_id), "clips")["clip_id"].to_pylist()


def test_a_bloom_filter_keeps_readers_from_row_groups_that_do_not_hold_a_video(run: Run) -> None:
    _, b, _ = video_ids(run)
    make_release(run, ReleaseSettings(row_group_mb=0.001))
    path = part_path(folder(run), "movement", part_name(run, 0))
    groups = duckdb.sql(f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{path}', 'video_id', '{b}')").fetchall()
    assert len(groups) == 6
    assert sum(excluded for (excluded,) in groups) == 4


def test_the_bloom_filter_of_clips_is_sized_for_the_clips(run: Run) -> None:
    video_id = write_video(run, "many", n_frames=300, clip_s=0.1, overlap_s=0.0)
    make_release(run, ReleaseSettings(bloom_columns=("clip_id",)))
    path = part_path(folder(run), "clips", part_name(run, 0))
    absent = [f"f{n:07d}_{n:07d}" for n in range(50)]
    excluded = [
        duckdb.sql(f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{path}', 'clip_id', '{name}')").fetchall()
        for name in [*absent, *_clips(run, video_id)[:5]]
    ]
    assert excluded.count([(True,)]) > 45
    assert excluded[-5:] == [[(False,)]] * 5


def test_a_second_release_writes_nothing(run: Run) -> None:
    first = make_release(run, SMALL)
    before = files_of_release(run)
    second = make_release(run, SMALL)
    assert (first.written, first.kept) == (2 * N_TABLES, 0)
    assert (second.written, second.kept, second.written_bytes) == (0, 2 * N_TABLES, 0)
    assert second.manifest == first.manifest
    assert files_of_release(run) == before


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Names of changed files: parts and release.json; the page tells their rows."""
    return {name.rpartition("/")[2] for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - {PAGE_NAME}


def test_new_changed_and_removed_videos_touch_no_part_but_their_own(run: Run) -> None:
    make_release(run, SMALL)
    before = files_of_release(run)
    write_video(run, "aa", n_frames=50)
    added = make_release(run, SMALL)
    assert changed(before, files_of_release(run)) == {f"{part_name(run, 2)}.parquet", "release.json"}
    assert added.written == N_TABLES - 1  # without failures, parts have one and the same file of them
    validation.validate("masks", read(part_path(added.path, "masks", part_name(run, 2)), "masks"))

    before = files_of_release(run)
    write_video(run, "c", n_frames=50, seed=1)
    make_release(run, SMALL)
    assert changed(before, files_of_release(run)) == {f"{part_name(run, 1)}.parquet", "release.json"}

    before = files_of_release(run)
    shutil.rmtree(run.video_folder(next(v for v in video_ids(run) if v.startswith("c-"))))
    removed = make_release(run, SMALL)
    assert changed(before, files_of_release(run)) == {f"{part_name(run, 1)}.parquet", "release.json"}
    assert [len(part.videos) for part in removed.manifest.parts] == [2, 0, 1]
    assert schema.empty("masks").schema.equals(read(part_path(removed.path, "masks", part_name(run, 1)), "masks").schema)
    assert {v[:2] for v in rows(run, "videos")["video_id"].to_pylist()} == {"a-", "aa", "b-"}


def test_a_change_of_one_stage_rewrites_that_table_alone(run: Run) -> None:
    make_release(run, SMALL)
    before = files_of_release(run)
    path = next(run.video_folder(video_ids(run)[0]).glob("clip_id=*/mapping.parquet"))
    known = provenance_at(path) or {}
    write_table(path, "mapping", schema.empty("mapping"), known | {"digest": "other", "rows": 0})
    make_release(run, SMALL)
    after = files_of_release(run)
    assert {name for name in after if before[name] != after[name]} == {f"mapping/{part_name(run, 0)}.parquet", "release.json", PAGE_NAME}


def test_anew_makes_few_parts_of_many_under_new_names(run: Run) -> None:
    for name in ("d", "e"):
        make_release(run, SMALL)
        write_video(run, name, n_frames=50)
    assert len(make_release(run, SMALL).manifest.parts) == 4
    outcome = make_release(run, ReleaseSettings(), anew=True)
    assert [(part.name, len(part.videos)) for part in outcome.manifest.parts] == [(part_name(run, 4), 5)]
    assert len(list((outcome.path / "masks").iterdir())) == 1
    validation.validate("masks", rows(run, "masks"))


def test_no_two_runs_have_files_of_one_name_in_their_releases(run: Run) -> None:
    """A reader that lists the files behind `released`, and opens them after it points elsewhere, finds none of the names."""
    other = run.lake.open_run({"a": 2}, "20260102_0000", dict)
    write_video(other, "z", n_frames=10)
    make_release(other, SMALL)
    listed = sorted(run.lake.root.glob("released/*/part-*.parquet"))
    assert len(listed) == len(RELEASED_TABLES)
    make_release(run, SMALL)
    assert not [path for path in listed if path.exists()]
    with pytest.raises(duckdb.IOException, match="No files found"):
        duckdb.sql(f"SELECT count(*) FROM read_parquet({[str(listed[0])]})")


def test_a_release_without_its_manifest_gives_no_name_anew(run: Run) -> None:
    first = make_release(run, SMALL)
    (first.path / "release.json").unlink()
    second = make_release(run, ReleaseSettings())
    assert [(part.name, len(part.videos)) for part in second.manifest.parts] == [(part_name(run, 2), 3)]
    assert part_names(run) == {part_name(run, 2)}


def test_parts_under_names_of_an_earlier_version_become_parts_under_new_ones(run: Run) -> None:
    made = make_release(run, SMALL)
    manifest = (made.path / "release.json").read_text()
    for name in part_names(run):
        old = f"part-{name[-5:]}"
        manifest = manifest.replace(name, old)
        for path in made.path.glob(f"*/{name}.parquet"):
            path.rename(path.with_name(f"{old}.parquet"))
    (made.path / "release.json").write_text(manifest)
    again = make_release(run, SMALL)
    assert again.manifest == made.manifest
    assert (again.written, again.kept) == (0, 2 * N_TABLES)
    assert part_names(run) == {part.name for part in made.manifest.parts}


def test_incomplete_videos_are_released_and_named_or_left_out_or_refused(run: Run) -> None:
    a, b, c = video_ids(run)
    first = _clips(run, b)[0]
    fail(run, b, first, "object_pose")
    gone = {"movement", "contacts", "events"}
    for stage in gone:
        run.clip_table(stage, b, first).unlink()
    run.video_table("videos", c).unlink()
    outcome = make_release(run, SMALL)
    undone = {key: {"blocked" if key in gone else "stale": 1} for key in below("object_pose")}
    assert outcome.manifest.incomplete == {b: {"object_pose": {"failed": 1}} | undone, c: None}
    said = json.loads((outcome.path / "release.json").read_text())
    assert said["incomplete"][b]["object_pose"] == {"failed": 1}
    assert rows(run, "failures")["reason"].to_pylist() == ["broken"]
    assert set(rows(run, "masks")["video_id"].to_pylist()) == {a, b}
    left_out = make_release(run, ReleaseSettings(incomplete="leave_out", part_mb=0.75))
    assert [list(part.videos) for part in left_out.manifest.parts] == [[a]]
    assert set(left_out.manifest.incomplete) == {b, c}
    before = files_of_release(run)
    with pytest.raises(SetupError, match=r"2 video\(s\) are incomplete"):
        make_release(run, ReleaseSettings(incomplete="refuse"))
    assert files_of_release(run) == before


def test_tables_that_do_not_belong_together_are_not_released_as_whole(run: Run) -> None:
    """The hand poses of one clip are recomputed, and downstream tables are still made from the old ones."""
    a, *_ = video_ids(run)
    first, second = _clips(run, a)
    made_again(run.clip_table("hand_pose", a, first))
    stale = {stage: {"stale": 1} for stage in below("hand_pose")}
    outcome = make_release(run, SMALL)
    assert outcome.manifest.incomplete == {a: stale}
    of_a = {table: {r["clip_id"] for r in rows(run, table).to_pylist() if r["video_id"] == a} for table in ("hand_pose", *stale)}
    assert of_a == {"hand_pose": {first, second}, **{stage: {second} for stage in stale}}
    run.clip_table("masks", a, second).unlink()
    twice = {key: {"stale": 2} for key in below("masks")}
    assert make_release(run, SMALL).manifest.incomplete == {a: stale | twice | {"masks": {"missing": 1}}}


def test_a_release_of_nothing_is_typed_and_empty_and_later_videos_join_it(tmp_path: Path) -> None:
    empty = Lake(tmp_path).open_run({}, None, dict)
    assert make_release(empty, SMALL).manifest.rows == dict.fromkeys(RELEASED_TABLES, 0)
    assert rows(empty, "masks").schema.equals(schema.empty("masks").schema)
    write_video(empty, "a", n_frames=10)
    assert [len(part.videos) for part in make_release(empty, SMALL).manifest.parts] == [0, 1]


def test_views_show_the_release_made_last_and_are_typed_where_there_is_none(tmp_path: Path, run: Run) -> None:
    other = run.lake.open_run({"a": 2}, "20260102_0000", dict)
    write_video(other, "z", n_frames=10)

    def ask(sql: str) -> list[Any]:
        with duckdb.connect(str(catalog.write_catalog(run.lake)), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    for table in RELEASED_TABLES:
        assert ask(f"SELECT count(*) FROM release.{table}") == [(0,)]
    make_release(run, SMALL)
    assert ask("SELECT count(*), max(joints_m[21][3]) IS NULL FROM release.hand_pose") == [(300, False)]
    make_release(other, SMALL)
    assert ask("SELECT count(*) FROM release.hand_pose") == [(20,)]
    by_run = ask("SELECT run_id, count(*) FROM releases.videos GROUP BY run_id ORDER BY run_id")
    assert by_run == [("20260101_0000", 3), ("20260102_0000", 1)]
    shutil.rmtree(folder(other))
    assert ask("SELECT count(*) FROM release.hand_pose") == [(0,)]
    make_release(run, SMALL)
    assert ask("SELECT count(*) FROM release.hand_pose") == [(300,)]


def test_the_stand_in_for_no_release_follows_the_contract(run: Run) -> None:
    database = catalog.write_catalog(run.lake)
    stand_in = home(run.lake) / "_contract" / "masks" / "part-_.parquet"
    pq.write_table(pa.table({"video_id": ["an older contract"]}), stand_in)
    database.unlink()
    with duckdb.connect(str(catalog.write_catalog(run.lake)), read_only=True) as connection:
        assert connection.execute("SELECT count(area_px) FROM release.masks").fetchall() == [(0,)]


@pytest.mark.parametrize(
    "text", ["level = 99", "compression = 'snappy'\nlevel = 1", "bloom_columns = ['masks']", "part_mb = 0", "incomplete = 'x'"]
)
def test_settings_that_no_file_can_have_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f"[release]\n{text}")
    with pytest.raises(BadSettings, match="release"):
        load_settings(path)


def test_rows_of_frames_before_and_after_those_that_a_clip_owns_are_left_out(tmp_path: Path) -> None:
    source = plan.Source(tmp_path / "masks.parquet", "masks", "v", "c", "d", (3, 6), ("c",))
    rows = pa.table({"frame_index": [1, 2, 2, 3, 3, 4, 5, 6, 6, 7]})
    assert of_run._owned(source, rows, 3, 6)["frame_index"].to_pylist() == [3, 3, 4, 5]
