"""Clips of one walk are linked through the frames they share: their worlds by a similarity, their tracks by where they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egoworld_ops import exports
from egoworld_ops.contract import encodings, schema, validation
from egoworld_ops.contract.links import LINKS
from egoworld_ops.exports.base import rows_of
from egoworld_ops.files.tables import make_provenance, provenance_at, read_table, write_table
from egoworld_ops.lake import counted
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.operators.rows import pose_columns
from egoworld_ops.query import catalog
from egoworld_ops.release.make import make_release
from egoworld_ops.settings import ReleaseSettings
from egoworld_ops.upkeep.verify import verify
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, rotations
from tests.walks import NOISE, PATH, UNITS, Row, write_walk


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A walk in three overlapping clips, each in the frame of its own first camera and in its own unit; the third does not fit in `broken`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        made = Lake(tmp_path_factory.mktemp("links")).open_run({}, "20260101_0000", dict)
        for name in ("walk", "broken"):
            write_walk(made, name, name == "broken")
        catalog.write_catalog(made.lake)
        yield made


def ask(run: Run, sql: str) -> list[Row]:
    with duckdb.connect(str(run.lake.root / catalog.FILE_NAME), read_only=True) as connection:
        return list(connection.sql(sql).to_arrow_table().to_pylist())


def test_the_clips_of_a_walk_come_into_one_world(run: Run) -> None:
    clips = ask(run, "SELECT * FROM clips_world WHERE video_id LIKE 'walk-%' ORDER BY clip_id")
    assert [row["links"] for row in clips] == [0, 1, 2]
    assert {row["world_clip_id"] for row in clips} == {clips[0]["clip_id"]}
    poses = ask(run, "SELECT * FROM raw.camera WHERE video_id LIKE 'walk-%'")
    for row in poses:
        [clip] = [c for c in clips if c["clip_id"] == row["clip_id"]]
        R = matrix_from_quaternion(np.array([clip[f"q{a}"] for a in "wxyz"]))
        there = clip["scale"] * R @ row["position_units"] + [clip[f"{a}_units"] for a in "xyz"]
        true = invert(PATH[0]) @ PATH[row["frame_index"]]
        assert np.linalg.norm(there * UNITS[0] - true[:3, 3]) < 0.01, "over three clips, by two short overlaps"
        turn = make_transform(R @ matrix_from_quaternion(np.array([row[f"q{a}"] for a in "wxyz"])), true[:3, 3])
        assert np.allclose(turn, true, atol=1e-6)


def test_a_link_says_its_residual_and_a_broken_one_says_why(run: Run) -> None:
    links = ask(run, "SELECT * FROM clip_links ORDER BY video_id, clip_id")
    broken, walk = links[:3], links[3:]
    assert [row["reason"] for row in walk] == ["it begins a scene", None, None]
    for number, row in enumerate(walk[1:], 1):
        assert row["shared_frames"] >= 5
        assert row["scale"] == pytest.approx(UNITS[number] / UNITS[number - 1], rel=0.05)
        assert row["metres_ratio"] == pytest.approx(1, rel=0.05)
        assert 0 < row["residual_units"] < 8 * NOISE
        assert row["residual_deg"] < 1e-3
    assert [row["scale"] is None for row in broken] == [True, False, True]
    assert "not the same in both clips" in broken[2]["reason"]
    worlds = ask(run, "SELECT world_clip_id, links FROM clips_world WHERE video_id LIKE 'broken-%' ORDER BY clip_id")
    assert [(row["world_clip_id"] == broken[2]["clip_id"], row["links"]) for row in worlds] == [(False, 0), (False, 1), (True, 0)]


def test_releases_and_exports_hold_the_links_that_the_lake_shows(run: Run, tmp_path: Path) -> None:
    """From the frames that clips own alone they could not be told."""
    made = make_release(run, ReleaseSettings(writers=1))
    exports.write("parquet", rows_of(run), tmp_path / "parquet")
    catalog.write_catalog(run.lake)
    for name, n_rows in (("clip_links", 6), ("clips_world", 6), ("track_links", 20)):
        contract = schema.table(name)
        shown = ask(run, f"SELECT * FROM {name} ORDER BY {', '.join(contract.key)}")
        wanted = [{k: row[k] for k in row if k != "run_id"} for row in shown]
        [path] = (made.path / name).glob("*.parquet")
        for file in (path, tmp_path / "parquet" / f"{name}.parquet"):
            found = encodings.as_contract(name, pq.read_table(file, partitioning=None))
            assert found.schema.equals(contract.arrow_schema(), check_metadata=False)
            validation.validate(name, found)
            assert found.to_pylist() == wanted
        assert len(ask(run, f"SELECT * FROM release.{name}")) == len(ask(run, f"SELECT * FROM releases.{name}")) == len(wanted) == n_rows
    assert [str(found) for found in verify(run) if "release" in str(found)] == []


def test_links_of_other_results_are_released_anew_and_old_ones_are_found(run: Run, tmp_path: Path) -> None:
    copied = Lake(Path(shutil.copytree(run.lake.root, tmp_path / "lake", symlinks=True))).runs()[0]
    make_release(copied, ReleaseSettings(writers=1))
    path = next(copied.path.glob("video_id=walk-*/clip_id=*/masks.parquet"))
    said = provenance_at(path)
    assert said is not None
    rows = read_table(path, "masks").to_pylist()
    kept = schema.from_rows("masks", [row for row in rows if row["track_id"] == 1])
    write_table(path, "masks", kept, make_provenance("0" * 64, said["identity"], kept.num_rows, 0.1, copied.run_id))
    counted.count(copied, rows[0]["video_id"])
    behind = {Path(str(found).split(": ")[0]).parent.name for found in verify(copied) if "behind its run" in str(found)}
    assert {"masks", "track_links"} <= behind
    tracks = make_release(copied, ReleaseSettings(writers=1)).manifest.rows["track_links"]
    assert tracks == 20 - 2


def test_rotations_of_links_have_the_sign_of_the_contract(run: Run) -> None:
    """A clip whose first camera is turned by more than half a turn about z, so that the plain product of quaternions has a negative w."""
    spun = make_transform(rotations(np.array([[0.0, 0.0, np.radians(170)]]))[0], np.zeros(3))
    named = {"run_id": "r", "video_id": "v", "scene_index": 0}
    clips = [named | {"clip_id": c, "frame_start": start, "frame_end": start + 20} for c, start in zip("abc", (0, 10, 20), strict=True)]
    camera = []
    for number, clip in enumerate(clips):
        for index in range(clip["frame_start"], clip["frame_end"]):
            T = invert(np.linalg.matrix_power(spun, number)) @ PATH[index]
            position = {"position_units": T[:3, 3].tolist(), "metres_per_unit": 1.0}
            camera.append(clip | {"frame_index": index} | pose_columns(T[:3, :3], T[:3, 3]) | position)
    with duckdb.connect() as connection:
        connection.register("clips", pa.Table.from_pylist(clips))
        connection.register("camera", pa.Table.from_pylist(camera))
        for name in ("clip_links", "clips_world"):
            made = connection.sql(LINKS[name].sql({"clips": "clips", "camera": "camera"})).to_arrow_table().to_pylist()
            assert [row["qw"] >= 0 for row in made if row["qw"] is not None] == [True] * (2 if name == "clip_links" else 3)


def test_tracks_are_one_thing_across_clips(run: Run) -> None:
    rows = ask(run, "SELECT * FROM track_links WHERE video_id LIKE 'walk-%' ORDER BY clip_id, track_id")
    first = rows[0]["clip_id"]
    assert [(r["track_id"], r["before_track_id"], r["first_track_id"]) for r in rows] == [
        (1, None, 1), (2, None, 2), (10, None, 10),
        (1, 1, 1), (2, 2, 2), (11, None, 11), (12, 10, 10),
        (1, 1, 1), (2, 2, 2), (10, 12, 10),
    ]  # fmt: skip
    assert {r["first_clip_id"] for r in rows if r["track_id"] != 11} == {first}
    assert all(r["iou"] == pytest.approx(1) for r in rows if r["before_track_id"])
