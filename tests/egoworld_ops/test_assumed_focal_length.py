"""Lengths that rest on an assumed focal length do not pretend to be metric: not in the rows, not in exports and releases, not at the terminal."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner

from egoworld_assets.cli import outcome
from egoworld_assets.cli.main import egoworld
from egoworld_ops import exports, operators
from egoworld_ops.contract import quality, schema, validation
from egoworld_ops.execution.identity import operator_of
from egoworld_ops.exports.base import rows_of
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.operators.rows import depth_error_share
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.settings import load_settings
from egoworld_ops.upkeep.verify import verify
from egoworld_ops.video.fields_of_view import assumed_error_share
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.geometry import project
from tests.egoworld_ops.operators.clips import pictures_input
from tests.egoworld_ops.operators.test_hand_pose import AHEAD_M, CAMERA, detected, hand_of, solve_rows
from tests.lakes import write_video

GIVEN = {"fx": 500, "fy": 500, "cx": 319.5, "cy": 239.5, "width": 640, "height": 480}
WITH_LENGTHS = ("hand_pose", "fusion", "object_pose", "movement", "mapping")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A video with a sidecar, and one without."""
    made = Lake(tmp_path_factory.mktemp("lake") / "lake").open_run({}, "20260101_0000", dict)
    write_video(made, "known", n_frames=30)
    write_video(made, "unknown", n_frames=30, metric=False)
    return made


def rows_by_video(rows: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    return {name: [r for r in rows if r["video_id"].startswith(f"{name}-")] for name in ("known", "unknown")}


def test_every_table_with_lengths_in_the_cameras_frame_says_whether_they_are_metric() -> None:
    """A new column in metres of the camera or the world is found here: its table needs `schema.METRIC`, and it must be able to be null."""
    for stage in operators.stages().values():
        lengths = [c for c in stage.table.columns if c.rests_on_focal_length]
        assert not lengths or stage.table.assumed_lengths, f"{stage.name}: {[c.name for c in lengths]} without `metric`"
        assert all(c.nullable for c in lengths), stage.name
    assert set(schema.table("hand_pose").assumed_lengths) >= {"joints_m", "x_m", "y_m", "z_m"}
    assert "joints_wrist_m" not in schema.table("hand_pose").assumed_lengths, "a hand's size is the network's, not the camera's"


def test_the_camera_says_how_sure_its_focal_length_is() -> None:
    given = resolve(640, 480, Sidecar.model_validate({"camera": GIVEN}), CameraSettings(), "v")
    assert (given.source, given.metric, given.focal_error_share) == ("file", True, 0.03), "an error that is not stated is not none"
    exact = resolve(640, 480, Sidecar.model_validate({"camera": GIVEN | {"focal_error_share": 0.0}}), CameraSettings(), "v")
    assert (exact.metric, exact.focal_error_share) == (True, 0.0)
    measured = resolve(640, 480, Sidecar.model_validate({"camera": GIVEN | {"focal_error_share": 0.05}}), CameraSettings(), "v")
    assert (measured.metric, measured.focal_error_share) == (True, 0.05)
    unknown = resolve(640, 480, Sidecar(), CameraSettings(), "v")
    assert (unknown.source, unknown.metric) == ("assumed_fov", False)
    assert 0.2 < unknown.focal_error_share < 0.6


def test_the_error_of_an_assumption_covers_the_cameras_that_people_wear() -> None:
    """A headset's wide lens, whose depths came out twice as large, lies within two standard errors of the default; a far assumption says so."""
    default = 1 / (2 * math.tan(math.radians(35)))
    wide = default / 1.99
    assert abs(wide / default - 1) < 2 * assumed_error_share(default)
    assert assumed_error_share(1 / (2 * math.tan(math.radians(60)))) > 2 * assumed_error_share(default)


def test_a_phone_held_upright_has_the_same_lens() -> None:
    wide, upright = (resolve(*size, Sidecar(), CameraSettings(), "v") for size in ((1920, 1080), (1080, 1920)))
    assert upright.fx_px == pytest.approx(wide.fx_px)
    assert upright.focal_error_share == wide.focal_error_share


@pytest.mark.parametrize("off", [0.9, 1.1])
def test_a_focal_length_that_is_a_tenth_off_is_in_the_stated_error_of_the_depth(off: float) -> None:
    """The depth is off by a tenth, and says so; with the right camera, known exactly, it is right and its error has no such part."""
    truth_m = hand_of("right") + AHEAD_M
    detections = [detected(0, "right", truth_m - truth_m.mean(0), project(CAMERA, truth_m))]
    wrong = replace(CAMERA, fx_px=CAMERA.fx_px * off, fy_px=CAMERA.fy_px * off, focal_error_share=0.1)
    [right_row], [wrong_row] = (solve_rows(detections, camera).to_pylist() for camera in (CAMERA, wrong))
    assert right_row["z_m"] == pytest.approx(truth_m[0, 2], rel=0.01)
    assert wrong_row["z_m"] == pytest.approx(off * truth_m[0, 2], rel=0.01)
    assert abs(wrong_row["z_m"] / truth_m[0, 2] - 1) <= wrong_row["depth_error_share"]
    assert wrong_row["depth_error_share"] ** 2 - right_row["depth_error_share"] ** 2 == pytest.approx(0.1**2, rel=0.05)
    assert (wrong_row["focal_error_share"], right_row["focal_error_share"]) == (0.1, 0.0)


def test_the_errors_of_a_depth_add_up_as_independent_ones_do() -> None:
    rng = np.random.default_rng(11)
    focal, size, image = (1 + rng.normal(0, s, 200_000) for s in (0.1, 0.05, 0.02))
    found = np.std(focal * size / image)
    assert depth_error_share(replace(CAMERA, focal_error_share=0.1), 0.05, 0.02) == pytest.approx(found, rel=0.02)


def test_rows_of_an_assumed_camera_say_that_they_are_not_metric() -> None:
    truth_m = hand_of("right") + AHEAD_M
    detections = [detected(0, "right", truth_m - truth_m.mean(0), project(CAMERA, truth_m))]
    camera = resolve(CAMERA.width, CAMERA.height, Sidecar(), CameraSettings(), "v")
    [row], [known] = solve_rows(detections, camera).to_pylist(), solve_rows(detections).to_pylist()
    assert (row["metric"], row["intrinsics_source"]) == (False, "assumed_fov")
    assert known["metric"]
    assert row["depth_error_share"] > row["focal_error_share"] == camera.focal_error_share
    assert np.array(row["joints_wrist_m"]) == pytest.approx(np.array(known["joints_wrist_m"])), "the hand's own shape needs no camera"
    tables = {"hand_pose": schema.from_rows("hand_pose", [row]), "depth": schema.empty("depth")}
    item = pictures_input([np.zeros((480, 640, 3), np.uint8)])
    for stage in ("fusion", "mapping"):
        kind, options = operator_of(stage, load_settings("laptop"))
        tables[stage] = kind(options, 1).run(replace(item, tables=tables))
    [fused], [robot] = tables["fusion"].to_pylist(), tables["mapping"].to_pylist()
    assert (fused["metric"], robot["metric"], robot["converged"]) == (False, False, True)


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_exports_leave_assumed_lengths_out_and_say_so(run: Run, tmp_path: Path, name: str) -> None:
    for keep in (False, True):
        rows = rows_of(run, assumed_metric=keep)
        exports.write(name, rows, tmp_path / f"{keep}")
        for table in WITH_LENGTHS:
            found = read(tmp_path / f"{keep}" / f"{table}.{name}")
            stored = rows_by_video([row for part in rows_of(run, assumed_metric=True).of(table) for row in part.to_pylist()])
            for video, of_video in rows_by_video(found).items():
                assert len(of_video) == len(stored[video]) > 0
                for column in schema.table(table).assumed_lengths:
                    there = [row[column] is not None for row in of_video]
                    assert all(there) if keep or video == "known" else not any(there), (table, video, column)
                assert all(row["metric"] == (video == "known") for row in of_video)
        said = rows.described()
        assert [v.partition("-")[0] for v in said["videos_of_assumed_focal_length"]] == ["unknown"]
        assert (said["assumed_metric"], said["assumed_lengths"]["mapping"]) == (keep, ["x_m", "y_m", "z_m"])
    stored_hands = [row for part in rows_of(run).of("hand_pose") for row in part.to_pylist()]
    assert all(row["joints_wrist_m"] is not None and row["qw"] is not None for row in stored_hands), "what needs no focal length stays"


def read(path: Path) -> list[Mapping[str, Any]]:
    with duckdb.connect() as connection:
        return connection.sql(f"SELECT * FROM '{path}'").to_arrow_table().to_pylist()


def test_the_command_says_what_it_leaves_out(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(run.lake.root))
    done = CliRunner().invoke(egoworld, ["export", "csv", run.run_id, str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 video(s) have an assumed focal length" in done.stderr
    assert "are left out (--assumed-metric keeps them): unknown-" in done.stderr
    assert json.loads((tmp_path / "out" / "export.json").read_text())["assumed_metric"] is False
    with (tmp_path / "out" / "hand_pose.csv").open(newline="") as file:
        assert {row["z_m"] == "" for row in csv.DictReader(file) if row["video_id"].startswith("unknown")} == {True}
    done = CliRunner().invoke(egoworld, ["export", "csv", run.run_id, str(tmp_path / "all"), "--assumed-metric"])
    assert "are exported all the same: unknown-" in done.stderr
    done = CliRunner().invoke(egoworld, ["runs", "show", run.run_id])
    assert [v.partition("-")[0] for v in json.loads(done.stdout)["videos_of_assumed_focal_length"]] == ["unknown"]
    assert "not metric: lengths of 1 video(s) (unknown-" in done.stderr
    assert "egoworld calibrate import" in done.stderr


def test_releases_leave_assumed_lengths_out_unless_told(run: Run) -> None:
    for keep in (False, True, False):
        make_release(run, ReleaseSettings(assumed_metric=keep))
        manifest = place.read(run)
        assert manifest is not None
        assert manifest.parquet["assumed_metric"] is keep
        for table in WITH_LENGTHS:
            [path] = (place.folder(run) / table).glob("part-*.parquet")
            of_video = rows_by_video(read(path))
            for column in schema.table(table).assumed_lengths:
                assert all(row[column] is not None for row in of_video["known"])
                assert all((row[column] is not None) is keep for row in of_video["unknown"]), (table, column)
        assert [str(finding) for finding in verify(run) if "release" in str(finding)] == []


def test_process_and_checks_warn_of_the_video_without_intrinsics_alone(run: Run) -> None:
    for video_id in rows_of(run).videos:
        folder = run.video_folder(video_id)
        done = {stage: {"folder": str(folder), "run": run.run_id} for stage in ("manifest", *operators.stages(), "preview")}
        said = "\n".join(outcome.not_metric(done))
        files = sorted(folder.glob("clip_id=*/hand_pose.parquet"))
        with duckdb.connect() as connection:
            verdicts = quality.verdicts("hand_pose", quality.measure(connection, "hand_pose", files), {})
        warned = [verdict for verdict in verdicts if verdict.startswith("metric_share")]
        assert bool(said) == bool(warned) == video_id.startswith("unknown")
        if said:
            assert "rest on an assumed focal length" in said
            assert set(WITH_LENGTHS) <= set(said.partition("lengths in ")[2].partition(" rest on")[0].split(", "))
            assert "egoworld calibrate import" in said
            assert "egoworld calibrate import" in warned[0]


def test_null_lengths_keep_the_contract(run: Run) -> None:
    for table in WITH_LENGTHS:
        for part in rows_of(run).of(table):
            validation.validate(table, part)
    assert all(read_table(p, "hand_pose")["z_m"].null_count == 0 for p in run.path.glob("video_id=*/clip_id=*/hand_pose.parquet"))
