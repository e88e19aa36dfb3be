"""RTMDet and RTMPose: what they are shown and how their answers are read, with stand-ins for their files that know where the hands are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops import models
from egoworld_ops.contract import validation
from egoworld_ops.errors import WeightsMismatch, WeightsUnreadable
from egoworld_ops.operators.detections import _rtm_networks as rtm
from egoworld_ops.operators.detections import mediapipe, rtmpose
from egoworld_ops.operators.detections._overlapping import Overlapping
from egoworld_ops.video import decoding
from tests.egoworld_ops.operators.clips import clip_input, pictures_input
from tests.egoworld_ops.operators.onnx_stand_ins import constant, simcc_of_colours

WIDTH, HEIGHT = 640, 480
COLOURS = np.stack(np.meshgrid(*[[70, 160, 250]] * 3), -1).reshape(-1, 3)[3:24]
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
DETECTOR: dict[str, Any] = {"input": ((1, 3, 320, 320), np.float32)}
HAND = np.array(
    [
        [0.5, 0.95], [0.3, 0.85], [0.18, 0.7], [0.1, 0.58], [0.04, 0.48], [0.34, 0.5], [0.3, 0.32], [0.28, 0.2], [0.26, 0.08], [0.48, 0.48],
        [0.48, 0.28], [0.48, 0.14], [0.48, 0.02], [0.62, 0.5], [0.65, 0.33], [0.67, 0.2], [0.69, 0.08], [0.75, 0.56], [0.82, 0.44],
        [0.87, 0.35], [0.92, 0.26],
    ]
)  # fmt: skip
"""Points of an open hand in a square."""


def hand_at(x: float, y: float, side: float = 120) -> np.ndarray:
    return np.array([x, y]) + HAND * side


def picture(hands: Sequence[np.ndarray]) -> np.ndarray:
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for points in hands:
        for (x, y), colour in zip(points, COLOURS.tolist(), strict=True):
            cv2.circle(rgb, (round(x), round(y)), 2, colour, -1)
    return rgb


def dets(boxes: Sequence[tuple[float, float, float, float, float]]) -> dict[str, np.ndarray]:
    """The detector's answer: corners in pixels of the picture, and scores."""
    found = np.array(boxes, np.float32).reshape(1, -1, 5) * np.array([0.5, 0.5, 0.5, 0.5, 1], np.float32)
    return {"dets": found, "labels": np.zeros(found.shape[:2], np.int64)}


def box_of(points: np.ndarray, score: float = 0.9) -> tuple[float, float, float, float, float]:
    (x0, y0), (x1, y1) = points.min(0) - 6, points.max(0) + 6
    return float(x0), float(y0), float(x1), float(y1), score


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Paths of the networks' files; the landmark network is the real one."""
    found = {name: tmp_path / f"{name}.onnx" for name in ("rtmdet_hand", "rtmpose_hand")}
    real = models.path
    monkeypatch.setattr(models, "path", lambda name: found.get(name) or real(name))
    return found


def run(stand_ins: Mapping[str, Path], pictures: list[np.ndarray], says: Mapping[str, np.ndarray], **options: Any) -> pa.Table:
    constant(stand_ins["rtmdet_hand"], DETECTOR, says)
    if not stand_ins["rtmpose_hand"].exists():
        simcc_of_colours(stand_ins["rtmpose_hand"], (COLOURS - MEAN) / STD)
    backend = rtmpose.Backend(rtmpose.Settings(device="cpu", objects=False, **options), 1)
    table = backend.run(pictures_input(pictures))
    validation.validate("detections", table)
    return table


def nearest_px(table: pa.Table, hands: Sequence[np.ndarray]) -> float:
    """Greatest distance of a true point to the row's, each hand with the row that fits it."""
    rows = [np.array(row["points_px"]) for row in table.to_pylist()]
    return max(min(float(np.linalg.norm(points - hand, axis=1).max()) for points in rows) for hand in hands)


def test_hands_are_found_where_they_are_also_at_the_corner(stand_ins: dict[str, Path]) -> None:
    hands = [hand_at(200, 150), hand_at(-30, -20), hand_at(560, 390, 90)]
    table = run(stand_ins, [picture(hands)] * 2, dets([box_of(hand) for hand in hands]))
    assert table.num_rows == 6
    assert set(table["source"].to_pylist()) == {"detector"}
    inside = [hand[((hand >= 0) & (hand < (WIDTH, HEIGHT))).all(1)] for hand in hands]
    rows = [np.array(row["points_px"]) for row in table.to_pylist()[:3]]
    for hand, seen in zip(hands, inside, strict=True):
        shown = ((hand >= 0) & (hand < (WIDTH, HEIGHT))).all(1)
        assert min(np.linalg.norm(points[shown] - seen, axis=1).max() for points in rows) < 2.5


def test_five_hands_are_four_and_a_warning(stand_ins: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    hands = [hand_at(20 + 120 * i, 100 + 40 * i, 100) for i in range(5)]
    with caplog.at_level(logging.WARNING):
        table = run(stand_ins, [picture(hands)] * 3, dets([box_of(hand, 0.5 + i / 10) for i, hand in enumerate(hands)]))
    assert table.num_rows == 12
    assert nearest_px(table, hands[1:]) < 2.5
    assert "1 hand(s) left out" in caplog.text


def test_no_hands_doubled_boxes_and_unsure_ones(stand_ins: dict[str, Path]) -> None:
    hand = hand_at(200, 150)
    x0, y0, x1, y1, _ = box_of(hand)
    assert run(stand_ins, [picture([hand])], dets([])).num_rows == 0
    assert run(stand_ins, [picture([hand])], dets([(x0, y0, x1, y1, 0.2)])).num_rows == 0
    doubled = dets([(x0, y0, x1, y1, 0.8), (x0 + 4, y0, x1, y1 + 5, 0.9), (x0, y0, x0, y1, 0.9), (np.nan, y0, x1, y1, 0.9)])
    table = run(stand_ins, [picture([hand])], doubled)
    assert table["score"].to_pylist() == pytest.approx([0.9])
    assert run(stand_ins, [np.zeros((HEIGHT, WIDTH, 3), np.uint8)], doubled).num_rows == 0, "a box without points is no hand"


def test_a_hand_without_landmarks_has_points_and_no_metres(stand_ins: dict[str, Path]) -> None:
    """Coloured dots are no hand to the landmark network."""
    hand = hand_at(200, 150)
    [row] = run(stand_ins, [picture([hand])], dets([box_of(hand)])).to_pylist()
    assert row["landmarks_m"] is None
    assert row["points_px"] is not None


def test_real_hands_have_the_landmarks_that_mediapipe_gives_there(stand_ins: dict[str, Path], synthetic_example: Path) -> None:
    """Answers that say where MediaPipe's own points are in a rendered frame: metric landmarks and side are those of MediaPipe."""
    item = clip_input(synthetic_example, 40, 44, 640, 480, lambda: decoding.decode(synthetic_example, 40, 44, threads=1))
    known = mediapipe.Backend(mediapipe.Settings(objects=False), 1).run(item).to_pylist()
    [*_, last] = [row for row in known if row["role"] == "hand_right" and row["source"] == "tracked"]
    points = np.array(last["points_px"])
    box = box_of(points)
    square = rtm.Square.around(np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]]))
    bins = np.rint(2 * ((points - square.centre_px) * 256 / square.side_px + 128)).astype(int)
    answers = np.zeros((2, 1, 21, 512), np.float32)
    for axis in (0, 1):
        answers[axis, 0, np.arange(21), bins[:, axis]] = 0.9
    constant(stand_ins["rtmpose_hand"], {"input": ((1, 3, 256, 256), np.float32)}, {"simcc_x": answers[0], "simcc_y": answers[1]})
    constant(stand_ins["rtmdet_hand"], DETECTOR, dets([box]))
    frame = [f for f in item.frames() if f.index == last["frame_index"]]
    backend = rtmpose.Backend(rtmpose.Settings(device="cpu", objects=False), 1)
    [row] = backend.run(replace(item, open_frames=lambda: iter(frame))).to_pylist()
    assert np.abs(np.array(row["points_px"]) - points).max() < 0.25 * square.side_px / 256 + 1e-3
    off_m = np.abs(np.array(row["landmarks_m"]) - np.array(last["landmarks_m"]))
    # the network is less sure of depth than of what it sees; its square is that of these points, not of those of the frame before
    assert off_m[:, :2].max() < 0.006
    assert off_m.max() < 0.02
    assert row["role"] == "hand_right"


def test_simcc_is_read_within_a_quarter_of_a_pixel() -> None:
    rng = np.random.default_rng(4)
    truth = rng.uniform(0, 255.4, (21, 2))
    bins = np.arange(512)
    x, y = (np.exp(-(((bins - 2 * truth[:, axis, None]) / 6) ** 2)).astype(np.float32) for axis in (0, 1))
    assert np.abs(rtm.simcc_points(x, y) - truth).max() <= 0.25 + 1e-6


def test_a_crop_shows_what_its_pixels_stand_for() -> None:
    """A picture whose values are its coordinates: OpenCV interpolates at 32nds of a pixel."""
    ramp = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).astype(np.float32)
    square = rtm.Square.around(np.array([210.3, 120.7, 80.0, 131.0]))
    assert square.side_px == pytest.approx(1.25 * 131)
    v, u = np.mgrid[0:256, 0:256].astype(np.float64)
    assert np.abs(square.crop(ramp) - square.to_picture(np.stack([u, v], -1))).max() < 1 / 64 + 1e-3
    corners = square.to_picture(np.array([[0.0, 0.0], [256.0, 256.0], [128.0, 128.0]]))
    assert np.allclose(corners, [square.centre_px - square.side_px / 2, square.centre_px + square.side_px / 2, square.centre_px], atol=1e-9)


@pytest.mark.parametrize("size", [(1280, 720), (480, 640), (320, 320), (1919, 1079)])
def test_the_detector_is_shown_the_picture_at_its_top_left_blue_first(size: tuple[int, int]) -> None:
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    rgb[:] = (10, 20, 250)
    shown, scale = rtm.letterbox(rgb)
    assert shown.shape == (1, 3, 320, 320)
    inner = np.rint(np.array(size) * 320 / max(size)).astype(int)
    assert np.allclose(
        shown[0, :, inner[1] - 1, inner[0] - 1], [(250 - 103.53) / 57.375, (20 - 116.28) / 57.12, (10 - 123.675) / 58.395], atol=1e-5
    )
    if min(size) < max(size):
        assert np.allclose(shown[0, :, -1, -1], (114 - MEAN[::-1]) / STD[::-1], atol=1e-5)
    assert np.abs(np.array(size) * scale - inner).max() < 0.01
    low, high = np.array([0.31, 0.2]), np.array([0.8, 0.9])
    det = np.array([[[*low * inner, *high * inner, 0.9]]], np.float32)
    [box] = rtm.find_boxes(lambda **_: [det, np.zeros((1, 1), np.int64)], rgb, 0.3, 0.5)
    assert np.abs(box.box_px - np.concatenate([low * size, (high - low) * size])).max() < 0.01


def test_boxes_that_overlap_are_one_hand_and_a_missed_one_is_waited_for() -> None:
    hands = Overlapping(2)
    left, right = np.array([10.0, 10, 50, 60]), np.array([200.0, 20, 50, 60])
    step = np.array([6.0, 2, 0, 0])
    assert hands([left, right]) == [0, 1]
    assert hands([right + step, left + step]) == [1, 0]
    assert hands([left + 2 * step]) == [0]
    assert hands([left + 3 * step, right + step]) == [0, 1]
    for _ in range(3):
        assert hands([left + 3 * step]) == [0]
    assert hands([right + step]) == [2], "after more than two frames it is another one"
    assert hands([]) == []


@pytest.mark.parametrize("name", ["rtmdet_hand", "rtmpose_hand"])
def test_a_file_that_is_not_the_right_one_is_named(stand_ins: dict[str, Path], name: str) -> None:
    hand = hand_at(200, 150)
    run(stand_ins, [picture([hand])], dets([box_of(hand)]))
    path = stand_ins[name]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    settings = rtmpose.Settings(device="cpu")
    with pytest.raises(WeightsUnreadable, match=name):
        rtmpose.Backend(settings, 1)
    constant(path, DETECTOR, {"other": np.zeros(1, np.float32)})
    with pytest.raises(WeightsMismatch, match=rf"{name}\.onnx.*another network"):
        rtmpose.Backend(settings, 1)


@pytest.mark.parametrize(("name", "shape"), [("rtmdet_hand", (1, 3, 4)), ("rtmdet_hand", (3, 5)), ("rtmpose_hand", (1, 17, 512))])
def test_a_file_whose_answers_have_other_shapes_is_named(stand_ins: dict[str, Path], name: str, shape: tuple[int, ...]) -> None:
    hand = hand_at(200, 150)
    says = dets([box_of(hand)])
    if name == "rtmpose_hand":
        answers = dict.fromkeys(("simcc_x", "simcc_y"), np.ones(shape, np.float32))
        constant(stand_ins[name], {"input": ((1, 3, 256, 256), np.float32)}, answers)
    else:
        says["dets"] = np.ones(shape, np.float32)
    with pytest.raises(WeightsMismatch, match=rf"{name}\.onnx.*another network: its"):
        run(stand_ins, [picture([hand])], says)
