"""Layers are the rows of a frame as plain numbers: at the pixels where the lens shows them, of the tables that count, with a word where none are."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.files.tables import read_result, write_table
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.operators.rows import intrinsics
from egoworld_ops.report.layer_values import BONES, LAYERS, FrameLayers
from egoworld_ops.report.layers import STAGES, ClipLayers, read_layers
from egoworld_ops.types import Camera
from egoworld_ops.vision import lenses, rle
from tests import lakes
from tests.rows import hand_pose_row, sample_row

WIDE = Camera(245, 245, 319.5, 239.5, 640, 480, "file", "kannala_brandt", (0.02, -0.008, 0.003, -0.0006))
JOINTS_M = np.random.default_rng(3).uniform([-0.4, -0.3, 0.3], [0.4, 0.3, 0.5], (21, 3))


def layers_of(**rows: list[dict[str, object]]) -> ClipLayers:
    """Of a clip with these rows."""
    return ClipLayers({stage: schema.from_rows(stage, found) for stage, found in rows.items()})


def test_every_layer_of_every_table_is_plain_json() -> None:
    stages = {stage: [dict(sample_row(stage, 3))] for stage in STAGES}
    said = layers_of(**stages).frame(3).to_json()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert set(LAYERS) <= set(said)
    assert [layer for layer in ("masks", "boxes", "hands", "holds") if not said[layer]] == []
    assert json.loads(json.dumps(layers_of(**stages).to_json(), allow_nan=False))["bones"] == [list(bone) for bone in BONES]


def test_hands_objects_and_robots_are_where_a_wide_lens_shows_them() -> None:
    lens = intrinsics(WIDE)
    hands = [dict(hand_pose_row(0, hand="left", joints_m=JOINTS_M, **lens))]
    fused = [dict(sample_row("fusion", 0, hand="left", joints_m=JOINTS_M + 0.01))]
    pose = {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "x_m": 0.1, "y_m": 0.0, "z_m": 0.4}
    things = [dict(sample_row("object_pose", 0, dimensions_m=[0.6, 0.2, 0.1], converged=True, reason=None, **pose, **lens))]
    frame = layers_of(hand_pose=hands, fusion=fused, object_pose=things).frame(0)
    found, smooth = frame.hands
    assert (found.stage, smooth.stage) == ("hand_pose", "fusion")
    assert np.array(found.joints_px) == pytest.approx(lenses.project(WIDE, JOINTS_M), abs=0.01)
    assert np.array(smooth.joints_px) == pytest.approx(lenses.project(WIDE, JOINTS_M + 0.01), abs=0.01)
    [thing] = frame.objects
    assert len(thing.edges_px) == 12
    top = max(thing.edges_px, key=len)
    assert len(top) > 2, "a lens bends the edges"
    middle = lenses.project(WIDE, np.array([0.1, -0.1, 0.35]))
    assert min(np.linalg.norm(np.array(line) - middle, axis=1).min() for line in thing.edges_px) < 0.1


def test_what_the_lens_does_not_show_is_left_out() -> None:
    behind = JOINTS_M.copy()
    behind[4, 2] = -0.2
    hand = layers_of(hand_pose=[dict(hand_pose_row(0, joints_m=behind))]).frame(0).hands[0]
    assert [i for i, joint in enumerate(hand.joints_px) if joint is None] == [4]
    pose = {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "x_m": 0.0, "y_m": 0.0, "z_m": 0.02}
    around = dict(sample_row("object_pose", 0, dimensions_m=[0.2, 0.2, 0.2], **pose))
    [thing] = layers_of(object_pose=[around]).frame(0).objects
    assert len(thing.edges_px) == 4, "the edges before the camera"


@pytest.mark.parametrize("mask_scale", [1.0, 0.5])
def test_an_outline_filled_by_the_even_odd_rule_is_the_mask(mask_scale: float) -> None:
    mask = np.zeros((120, 160), bool)
    mask[20:90, 30:120], mask[40:60, 60:80], mask[100:103, 5:9] = True, False, True
    row = dict(sample_row("masks", 0, rle=rle.encode(mask), mask_scale=mask_scale, bbox_px=[0, 0, 9, 9]))
    [made] = layers_of(masks=[row]).frame(0).masks
    outlines = [np.round((np.array(line) + 0.5) * mask_scale - 0.5).astype(np.int32) for line in made.outlines_px]
    assert np.array_equal(cv2.fillPoly(np.zeros(mask.shape, np.uint8), outlines, 1).astype(bool), mask)
    assert sum(map(len, outlines)) < 20, "thinned to corners"


def test_events_flags_and_phases_are_those_of_the_frame() -> None:
    event = dict(sample_row("events", 4, last_frame_index=6, hand="left", track_id=10, phase="carry"))
    boxes = [dict(sample_row("detections", i, role="object", track_id=10, points_px=None, landmarks_m=None)) for i in range(3, 8)]
    flags = [dict(sample_row("agreement", i, disagreement="shifted" if i == 5 else None)) for i in range(3, 8)]
    layers = layers_of(events=[event], detections=boxes, agreement=flags)
    assert [layers.frame(i).boxes[0].phase for i in range(3, 8)] == [None, "carry", "carry", "carry", None]
    assert [len(layers.frame(i).events) for i in range(3, 8)] == [0, 1, 1, 1, 0]
    assert [len(layers.frame(i).flags) for i in range(3, 8)] == [0, 0, 1, 0, 0]
    assert list(layers.flagged) == [5]


def test_a_frame_between_two_processed_ones_says_that_nothing_is_known() -> None:
    rows = [dict(sample_row("movement", i, sample_stride=2)) for i in (0, 2)]
    layers = ClipLayers({"movement": schema.from_rows("movement", rows)}, sample_stride=2)
    assert layers.frame(2).processed
    between = layers.frame(1)
    assert between == FrameLayers(1, processed=False, metric=True)


def test_a_camera_path_has_one_unit() -> None:
    place = {"x_m": 0.1, "y_m": 0.0, "z_m": 0.2, "position_units": [1.0, 0.0, 2.0]}
    known, unknown = (sample_row("camera", i, **place) for i in (0, 1))
    unknown |= dict.fromkeys(("x_m", "y_m", "z_m"))
    said = layers_of(camera=[dict(known), dict(unknown)]).to_json()
    assert (said["camera_unit"], said["camera_path"]) == ("m", [[0, 0.1, 0.0, 0.2]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with rows in every table."""
    return Lake(tmp_path_factory.mktemp("lake")).open_run({"a": 1}, None, dict)


def test_layers_are_read_from_the_tables_that_count(run: Run) -> None:
    video_id = lakes.write_video(run, "whole", n_frames=30)
    clip_id = next(p.name for p in run.video_folder(video_id).glob("clip_id=*")).removeprefix("clip_id=")
    assert read_layers(run, video_id, clip_id).without == {}
    for stage in ("fusion", "masks"):
        run.clip_table(stage, video_id, clip_id).unlink()
    lacking = read_layers(run, video_id, clip_id)
    assert {h.stage for h in lacking.frame(4).hands} == {"hand_pose"}
    assert lacking.without["masks"] == "masks was not computed"
    assert "no longer count" in lacking.without["objects"], "its rows were made of masks that are gone"
    assert lacking.frame(4).objects == ()
    only = lacking.frame(4, ["hands"])
    assert (len(only.hands), only.boxes, only.holds, only.events) == (2, (), (), ())


def test_a_clip_in_which_nothing_was_found_has_the_frames_that_were_looked_at(run: Run) -> None:
    video_id = lakes.write_video(run, "empty", n_frames=30, sample_stride=5)
    clip_id = next(p.name for p in run.video_folder(video_id).glob("clip_id=*")).removeprefix("clip_id=")
    for stage in operators.stages():
        path = run.clip_table(stage, video_id, clip_id)
        write_table(path, stage, schema.empty(stage), read_result(path, stage)[1])
    layers = read_layers(run, video_id, clip_id)
    assert layers.without["masks"] == "masks found nothing"
    assert [i for i in range(11) if layers.frame(i).processed] == [0, 5, 10]


def test_every_stage_with_a_layer_is_a_stage() -> None:
    assert set(STAGES) <= set(operators.stages())


def test_a_layer_whose_stages_found_nothing_says_so(tmp_path: Path) -> None:
    layers = ClipLayers({"camera": schema.empty("camera")})
    assert layers.without["camera"] == "camera found nothing"
    assert layers.without["hands"] == "hand_pose is not there; fusion is not there"
