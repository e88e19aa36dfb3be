"""Hand detection on real and rendered hands, and its parts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.detections import mediapipe
from egoworld_ops.operators.detections._palm import _anchors, views
from egoworld_ops.operators.detections._roi import Roi, roi_from_landmarks, upright_angle_rad
from egoworld_ops.synthetic.truth import load_truth
from egoworld_ops.video import decoding
from tests.egoworld_ops.operators.clips import pictures_input, video_input

Backend = operators.load("detections", "mediapipe")


def detect(item: ClipInput, **options: Any) -> pa.Table:
    table = Backend(operators.check_options(Backend, "detections", "mediapipe", options), 2).run(item)
    validation.validate("detections", table)
    return table


def hands_by_frame(table: pa.Table) -> dict[int, dict[str, dict[str, Any]]]:
    """Hand rows by frame and role."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for row in table.to_pylist():
        if row["role"] != "object":
            found.setdefault(row["frame_index"], {})[row["role"]] = row
    return found


@pytest.fixture(scope="module")
def hand_pictures(shared_data: Path) -> list[np.ndarray]:
    """30 frames of a moving right hand, 1280x720."""
    return [f.rgb for f in decoding.decode(shared_data / "dexretarget_human_hand_video.mp4", 0, 60, stride=2)]


def test_pictures_without_hands_give_an_empty_typed_table() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8)
    assert detect(pictures_input([np.full((240, 320, 3), 128, np.uint8), noise])).equals(schema.empty("detections"))


def test_mirrored_hand_is_the_other_hand_in_the_mirrored_place(hand_pictures: list[np.ndarray]) -> None:
    seen = hands_by_frame(detect(pictures_input(hand_pictures), objects=False))
    mirrored = hands_by_frame(detect(pictures_input([np.ascontiguousarray(p[:, ::-1]) for p in hand_pictures]), objects=False))
    assert all(set(s) == {"hand_right"} for s in seen.values())
    assert all(set(s) == {"hand_left"} for s in mirrored.values())
    assert len(seen) == len(mirrored) == len(hand_pictures)
    for i in seen:
        points, flipped = np.array(seen[i]["hand_right"]["points_px"]), np.array(mirrored[i]["hand_left"]["points_px"])
        assert np.linalg.norm(points - (1279 - flipped[:, 0])[:, None] * [1, 0] - flipped * [0, 1], axis=1).mean() < 12
        assert (seen[i]["hand_right"]["track_id"], mirrored[i]["hand_left"]["track_id"]) == (2, 1)


def test_two_hands_side_by_side_are_left_and_right_and_their_boxes_hold_them(hand_pictures: list[np.ndarray]) -> None:
    """One picture beside its mirror image: a pair of hands of one person."""
    pairs = [cv2.resize(np.hstack([p[:, ::-1], p]), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in hand_pictures]
    seen = hands_by_frame(detect(pictures_input(pairs), search_interval_frames=2))
    both = [s for s in seen.values() if len(s) == 2]
    assert len(both) >= len(pairs) - 6
    for frame in both:
        assert np.mean(frame["hand_left"]["points_px"], 0)[0] < 640 < np.mean(frame["hand_right"]["points_px"], 0)[0]
    for frame in seen.values():
        for row in frame.values():
            x, y, w, h = row["box_px"]
            points = np.array(row["points_px"])
            inside = points[((points >= 0) & (points <= (1279, 359))).all(1)]
            assert ((inside >= (x, y)) & (inside <= (x + w, y + h))).all()
            assert 0 <= x < x + w <= 1280
            assert 0 <= y < y + h <= 360


def test_hand_that_vanishes_leaves_no_rows_and_is_found_again(hand_pictures: list[np.ndarray]) -> None:
    black = np.zeros_like(hand_pictures[0])
    seen = hands_by_frame(detect(pictures_input(hand_pictures[:5] + [black] * 4 + hand_pictures[9:14])))
    assert sorted(seen) == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13]
    sources = {i: seen[i]["hand_right"]["source"] for i in seen}
    assert [i for i, s in sources.items() if s == "palm"] == [0, 9]


def test_same_clip_gives_the_same_table(hand_pictures: list[np.ndarray]) -> None:
    item = pictures_input(hand_pictures[:10])
    operator = Backend(Backend.Settings(), 2)
    assert operator.run(item).equals(operator.run(item))


def test_names_the_weights_it_loads() -> None:
    assert Backend.weights(Backend.Settings()) == ("palm_detection_full", "hand_landmark_full")
    assert Backend.weights(Backend.Settings.model_validate({"model": "lite"})) == ("palm_detection_lite", "hand_landmark_lite")


def test_top_view_of_two_hands_is_found_as_often_as_mediapipe_does(shared_data: Path) -> None:
    table = detect(video_input(shared_data / "sam2_03_blocks.mp4", 0, 292, 1280, 720))
    seen = hands_by_frame(table)
    pairs = sum(len(s) == 2 for s in seen.values())
    print(f"FIGURE hands in sam2_03_blocks.mp4: found in {len(seen)} of 292 frames (limit 220), both hands in {pairs}")
    assert len(seen) >= 220
    # The person sits opposite: their right hand is on the image's left.
    assert all(
        np.mean(s["hand_right"]["points_px"], 0)[0] < np.mean(s["hand_left"]["points_px"], 0)[0] for s in seen.values() if len(s) == 2
    )


def test_synthetic_hands_are_found_where_they_are(synthetic_example: Path) -> None:
    truth = load_truth(synthetic_example.with_suffix(".truth"))
    size = truth.scene["width"], truth.scene["height"]
    bounds = [0, *truth.cuts, truth.camera.num_rows]
    seen: dict[int, dict[str, dict[str, Any]]] = {}
    for start, end in pairwise(bounds):
        seen |= hands_by_frame(detect(video_input(synthetic_example, start, end, *size)))
    rows = truth.hands.to_pylist()
    found = [(np.array(t["joints_px"]), seen.get(t["frame_index"], {}).get(f"hand_{t['hand']}")) for t in rows]
    errors_px = np.concatenate([np.linalg.norm(np.array(row["points_px"]) - joints, axis=1) for joints, row in found if row])
    extra = sum(len(s) for s in seen.values()) - sum(row is not None for _, row in found)
    share = sum(row is not None for _, row in found) / len(rows)
    p50, p95 = np.percentile(errors_px, [50, 95])
    print(f"FIGURE synthetic hands: {share:.1%} of {len(rows)} found on the right side, {extra} extra")
    print(f"FIGURE synthetic 2D joints: median {p50:.1f} px (limit 8.0), p95 {p95:.1f} px")
    assert share >= 0.95
    assert extra == 0
    assert p50 <= 8.0


def test_roi_maps_its_corners_to_the_corners_of_its_crop() -> None:
    xs, ys = np.meshgrid(np.arange(200.0), np.arange(150.0))
    picture = np.stack([xs, ys, np.zeros_like(xs)], -1).astype(np.uint8)
    roi = Roi(np.array([100.0, 75.0]), 80.0, 0.6)
    crop = roi.crop(picture, 160, cv2.BORDER_REPLICATE)
    for u, v in [(0, 0), (0, 159), (159, 0), (40, 120)]:
        assert crop[v, u, :2] == pytest.approx(roi.to_image(np.array([u, v]) / 160), abs=1)


@pytest.mark.parametrize("turn_rad", [-2.5, -0.3, 0.0, 1.2, 3.0])
def test_roi_of_a_turned_hand_turns_with_it(turn_rad: float) -> None:
    hand = np.array([[0, 0], *([x, -40 - 12 * j] for x in (-24, -12, 0, 12, 24) for j in range(4))], float)
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    upright, turned = roi_from_landmarks(hand), roi_from_landmarks(hand @ np.array([[c, s], [-s, c]]) + 300)
    assert turned.side_px == pytest.approx(upright.side_px)
    assert np.cos(turned.angle_rad - upright.angle_rad - turn_rad) == pytest.approx(1)
    assert turned.centre_px == pytest.approx(np.array([[c, -s], [s, c]]) @ upright.centre_px + 300)


def test_upright_angle_points_up() -> None:
    assert upright_angle_rad(np.array([5.0, 9.0]), np.array([5.0, 2.0])) == pytest.approx(0)
    assert upright_angle_rad(np.array([0.0, 0.0]), np.array([1.0, 0.0])) == pytest.approx(np.pi / 2)


def test_anchors_are_as_many_as_the_network_answers() -> None:
    anchors = _anchors(192)
    assert anchors.shape == (2016, 2)
    assert anchors.min() > 0
    assert anchors.max() < 1


def test_pictures_are_searched_whole_and_beyond_their_edges() -> None:
    wide, tall, square = ([(*v.centre_px, v.side_px) for v in views(*size)] for size in ((1280, 720), (720, 1280), (640, 600)))
    whole, above, below = (640, 360, 1280), 288, 460.8
    assert np.allclose(wide, [whole, (288, below, 720), (992, below, 720), whole, (288, above, 720), (992, above, 720)])
    assert np.allclose(tall, [(360, 640, 1280), (360, 288, 720), (360, 992, 720)])
    assert np.allclose(square, [(320, 300, 640), (320, 384, 640), (320, 240, 640)])


@pytest.mark.parametrize(
    ("low", "high", "box"),
    [
        ((100, 100), (200, 150), (90, 90, 120, 70)),
        ((-30, 100), (70, 150), (0, 90, 80, 70)),
        ((580, 100), (680, 150), (570, 90, 70, 70)),
        ((100, -30), (150, 70), (90, 0, 70, 80)),
        ((100, 420), (150, 520), (90, 410, 70, 70)),
        ((700, 100), (800, 150), (640, 90, 0, 70)),
    ],
    ids=["inside", "left", "right", "top", "bottom", "wholly outside"],
)
def test_a_hand_box_ends_at_the_edge_that_the_hand_leaves_the_picture_by(
    low: tuple[int, int], high: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    points_px = np.linspace(low, high, 21)
    assert mediapipe.hand_box(points_px, (640, 480)).tolist() == pytest.approx(box)
