"""Hands, objects and robot wrists in the world: the truth of a rendered scene, by query, by release and by export."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from egoworld_ops import exports
from egoworld_ops.contract import encodings, schema, validation
from egoworld_ops.contract.world import VIEWS
from egoworld_ops.exports.base import rows_of
from egoworld_ops.files.tables import make_provenance, provenance_at, read_table, write_table
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.operators.rows import pose_columns, pose_of
from egoworld_ops.query import catalog
from egoworld_ops.release.make import make_release
from egoworld_ops.settings import ReleaseSettings
from egoworld_ops.synthetic.truth import SceneTruth, load_truth
from egoworld_ops.vision.geometry import invert, transform
from tests.boxes import pose_of as true_pose
from tests.conftest import ROOT
from tests.lakes import write_video

N_FRAMES = 50
UNPOSED, UNSCALED, HIDDEN, ASSUMED = 5, 6, 7, 8
"""Frames without a camera pose, without a scale, without an object pose; and with one that rests on an assumed focal length."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """The first frames of the kitchen as a video of overlapping clips, with true poses; and those truths by frame."""

    run: Run
    camera: dict[int, np.ndarray]
    objects: dict[int, np.ndarray]
    at_rest: set[int]
    joints_m: dict[tuple[int, str], np.ndarray]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield _written(tmp_path_factory.mktemp("world"))


def _written(folder: Path) -> Scene:
    truth = load_truth(ROOT / "egoworld_assets" / "example" / "kitchen.truth")
    made = _scene(truth, Lake(folder / "lake").open_run({}, "20260101_0000", dict))
    video_id = write_video(made.run, "a", n_frames=N_FRAMES)
    rewrite(made.run, video_id, "camera", lambda row: row | camera_columns(made, row["frame_index"]))
    rewrite(made.run, video_id, "object_pose", lambda row: row | object_columns(made, row["frame_index"]))
    rewrite(made.run, video_id, "hand_pose", lambda row: row | {"joints_m": made.joints_m[row["frame_index"], row["hand"]]})
    write_video(made.run, "b", n_frames=N_FRAMES)
    empty_camera(made.run)
    catalog.write_catalog(made.run.lake)
    return made


def _scene(truth: SceneTruth, run: Run) -> Scene:
    objects = truth.objects.to_pylist()
    return Scene(
        run,
        {r["frame_index"]: np.reshape(r["T_world_camera"], (4, 4)) for r in truth.camera.to_pylist()},
        {r["frame_index"]: T for r in objects if (T := true_pose(r)) is not None},
        {r["frame_index"] for r in objects if not r["moving"] and r["frame_index"] < 10},
        {(r["frame_index"], r["hand"]): np.array(r["joints_m"]) for r in truth.hands.to_pylist()},
    )


def rewrite(run: Run, video_id: str, table: str, change: Callable[[Row], Row]) -> None:
    """Replace the rows of a video's clips."""
    for path in sorted(run.video_folder(video_id).glob(f"clip_id=*/{table}.parquet")):
        rows, said = [change(row) for row in read_table(path, table).to_pylist()], provenance_at(path)
        assert said is not None
        write_table(
            path, table, schema.from_rows(table, rows), make_provenance(said["digest"], said["identity"], len(rows), 0.1, run.run_id)
        )


def empty_camera(run: Run) -> None:
    """A video without a camera, beside the other."""
    for path in run.path.glob("video_id=b*/clip_id=*/camera.parquet"):
        said = provenance_at(path)
        assert said is not None
        write_table(path, "camera", schema.empty("camera"), make_provenance(said["digest"], said["identity"], 0, 0.1, run.run_id))


def camera_columns(scene: Scene, frame: int) -> Row:
    T = scene.camera[frame]
    unknown = dict.fromkeys(("x_m", "y_m", "z_m"))
    if frame == UNPOSED:
        return unknown | dict.fromkeys(("qw", "qx", "qy", "qz")) | {"reason": "too few points", "reason_class": "not_registered"}
    posed = pose_columns(T[:3, :3], T[:3, 3])
    return posed | unknown | {"reason": "nothing of known size", "reason_class": "no_scale"} if frame == UNSCALED else posed


def object_columns(scene: Scene, frame: int) -> Row:
    if frame == HIDDEN:
        nothing = dict.fromkeys(("qw", "qx", "qy", "qz", "x_m", "y_m", "z_m"))
        return nothing | {"converged": False, "reason": "hidden", "reason_class": "too_hidden"}
    T = scene.objects[frame]
    return pose_columns(T[:3, :3], T[:3, 3]) | {"metric": frame != ASSUMED}


def ask(run: Run, sql: str) -> list[Row]:
    with duckdb.connect(str(run.lake.root / catalog.FILE_NAME), read_only=True) as connection:
        return list(connection.sql(sql).to_arrow_table().to_pylist())


def shown(run: Run, name: str) -> list[Row]:
    return ask(run, f"SELECT * FROM {name} ORDER BY {', '.join(schema.table(name.rpartition('.')[2]).key)}")


def test_an_object_at_rest_stays_where_it_is_in_the_world_while_the_camera_moves(scene: Scene) -> None:
    rows = [row for row in shown(scene.run, "objects_world") if row["qw"] is not None and row["x_m"] is not None]
    assert len(rows) == N_FRAMES - 3
    for row in rows:
        T = pose_of(row)
        assert T is not None
        assert np.allclose(T, scene.camera[row["frame_index"]] @ scene.objects[row["frame_index"]], atol=1e-9)
    places = np.array([[row["x_m"], row["y_m"], row["z_m"]] for row in rows if row["frame_index"] in scene.at_rest])
    seen = np.array([scene.objects[f][:3, 3] for f in sorted(scene.at_rest)])
    assert np.ptp(places, axis=0).max() < 1e-9 < 1e-3 < np.ptp(seen, axis=0).max(), "in the camera's frame it moves"


def test_hands_and_robot_wrists_are_where_the_camera_puts_them(scene: Scene) -> None:
    for row in shown(scene.run, "hands_world"):
        if row["x_m"] is not None:
            joints = transform(scene.camera[row["frame_index"]], scene.joints_m[row["frame_index"], row["hand"]])
            assert np.allclose(row["joints_m"], joints, atol=1e-6)
    for view, of in (("hands_world", "hand_pose"), ("fused_hands_world", "fusion"), ("robots_world", "mapping")):
        pairs = zip(shown(scene.run, view), [r for r in shown(scene.run, of) if r["video_id"].startswith("a-")], strict=True)
        for row, source in pairs:
            if row["x_m"] is not None:
                T, T_camera = pose_of(row), pose_of(source)
                assert T is not None
                assert T_camera is not None
                assert row["qw"] >= 0
                assert np.allclose(invert(scene.camera[row["frame_index"]]) @ T, T_camera, atol=1e-9)


def test_a_pose_that_cannot_be_in_the_world_is_null_with_the_reason(scene: Scene) -> None:
    rows = {row["frame_index"]: row for row in shown(scene.run, "objects_world")}
    assert {f: (rows[f]["qw"] is None, rows[f]["x_m"] is None, rows[f]["reason_class"]) for f in (4, UNPOSED, UNSCALED, HIDDEN)} == {
        4: (False, False, None),
        UNPOSED: (True, True, "not_registered"),
        UNSCALED: (False, True, "no_scale"),
        HIDDEN: (True, True, "too_hidden"),
    }
    assert rows[UNPOSED]["reason"] == "the camera has no pose: too few points"
    hands = {row["frame_index"]: row for row in shown(scene.run, "hands_world")}
    assert [hands[f]["joints_m"] is None for f in (4, UNPOSED, UNSCALED)] == [False, True, True]
    assert {row["video_id"][0] for row in shown(scene.run, "hands_world")} == {"a"}, "without a camera there are no rows"


def test_releases_and_exports_have_the_rows_of_the_lake(scene: Scene, tmp_path: Path) -> None:
    make_release(scene.run, ReleaseSettings())
    catalog.write_catalog(scene.run.lake)
    exports.write("parquet", rows_of(scene.run), tmp_path / "parquet")
    exports.write("csv", rows_of(scene.run), tmp_path / "csv")
    said = json.loads((tmp_path / "csv" / "export.json").read_text())["columns"]
    for name in VIEWS:
        here = shown(scene.run, name)
        if name == "objects_world":
            assumed = here[ASSUMED]
            assert (assumed["metric"], assumed["x_m"] is None, assumed["reason"]) == (False, False, None), "the lake keeps these lengths"
            left_out = dict.fromkeys(("x_m", "y_m", "z_m")) | {"reason": shown(scene.run, f"release.{name}")[ASSUMED]["reason"]}
            assert "assumed focal length" in left_out["reason"]
            here[ASSUMED] |= left_out | {"reason_class": "not_metric"}
        assert len(here) == N_FRAMES * (1 if name == "objects_world" else 2)
        for other in ("release", "releases"):
            assert shown(scene.run, f"{other}.{name}") == here, other
        assert shown(scene.run, f"runs.{name}") == shown(scene.run, name)
        exported = pq.read_table(tmp_path / "parquet" / f"{name}.parquet")
        validation.validate(name, encodings.as_contract(name, exported))
        assert exported.to_pylist() == [{k: v for k, v in row.items() if k != "run_id"} for row in here]
        assert (said[name]["x_m"]["frame"], said[name]["x_m"]["unit"]) == ("world", "m")
        assert len((tmp_path / "csv" / f"{name}.csv").read_text().splitlines()) == len(here) + 1


def test_a_query_for_one_video_reads_the_files_of_that_video_alone(scene: Scene) -> None:
    with duckdb.connect(str(scene.run.lake.root / catalog.FILE_NAME), read_only=True) as connection:
        [video_id] = [v for v in rows_of(scene.run).videos if v.startswith("a-")]
        plan = connection.execute(f"EXPLAIN ANALYZE SELECT count(*) FROM hands_world WHERE video_id = '{video_id}'").fetchall()[0][1]
    assert plan.count("video_id=a-") > 1, plan
    assert "video_id=b-" not in plan, plan
