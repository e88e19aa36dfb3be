"""The backends `sam3` without weights: a network that tells the truth on a real hand, and one of random numbers; set-up errors."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from egoworld_ops import models
from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import BadSettings, EgoworldError, SetupError, WeightsMissing
from egoworld_ops.operators.detections import _sam3_random, mediapipe, sam3
from egoworld_ops.operators.detections._arms import LABELS, arm
from egoworld_ops.operators.detections._boxed_hands import BoxedHands, evidence_of_mask
from egoworld_ops.operators.detections._landmarks import LandmarkNetwork
from egoworld_ops.operators.detections._phrases import phrases_for
from egoworld_ops.operators.detections._text_rows import Looked, Thing, text_rows
from egoworld_ops.operators.masks import sam3 as masks_sam3
from egoworld_ops.video import decoding
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from egoworld_ops.vision import rle
from egoworld_ops.vision.boxes import iou
from tests.egoworld_ops.operators.clips import pictures_input
from tests.rows import detection_row

RANDOM: Mapping[str, Any] = {"random_weights_seed": 5, "min_new_score": 0.3, "min_score": 0.25, "nms_iou": 0.3, "max_objects": 5}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(**options: Any) -> sam3.Backend:
    return sam3.Backend(sam3.Settings(device="cpu", **options), threads=1)


def detect(operator: sam3.Backend, pictures: list[np.ndarray], objects: tuple[SidecarObject, ...] = ()) -> pa.Table:
    table = operator.run(replace(pictures_input(pictures), sidecar=Sidecar(objects=objects)))
    validation.validate("detections", table)
    return table


def masks_of(detections: pa.Table) -> pa.Table:
    operator = masks_sam3.Backend(masks_sam3.Backend.Settings(), 1)
    table = operator.run(replace(pictures_input([np.zeros((8, 8, 3), np.uint8)]), tables={"detections": detections}))
    validation.validate("masks", table)
    return table


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[np.ndarray]:
    """24 frames of a moving right hand, 1280x720."""
    return [f.rgb for f in decoding.decode(shared_data / "dexretarget_human_hand_video.mp4", 0, 48, stride=2)]


@pytest.fixture(scope="module")
def points(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Where the palm network and what follows see the hand's 21 points, frame by frame."""
    table = mediapipe.Backend(mediapipe.Settings(objects=False), 1).run(pictures_input(pictures))
    found = [np.array(row["points_px"]) for row in table.to_pylist()]
    assert len(found) == len(pictures)
    return found


SHOWN = [*range(6, 14), *range(18, 22)]
"""Frames in which the thing is seen."""


class Truth:
    """In place of the network: the hand's hull from its true points; a square that comes, leaves and returns; a ghost removed after four frames."""

    def __init__(self, points: list[np.ndarray], width: int, height: int) -> None:
        real = _sam3_random.small_config(hotstart_unmatch_thresh=3, hotstart_dup_thresh=3, hotstart_delay=6)
        self.config, self.device, self.dtype, self.n_dropped = real, torch.device("cpu"), torch.float32, 0
        self._points, self._scale = points, np.array([288 / width, 288 / height])

    def __call__(self, inference_session: Any, frame_idx: int) -> SimpleNamespace:
        session = inference_session
        hand = np.zeros((288, 288), np.uint8)
        cv2.fillConvexPoly(hand, cv2.convexHull(np.round(self._points[frame_idx] * self._scale).astype(np.int32)), 1)
        square, ghost = np.zeros_like(hand), np.zeros_like(hand)
        if frame_idx in SHOWN:
            square[20:60, 30:90] = 1
        ghost[200:210, 200:210] = 1
        seen = {0: hand, 1: square, 2: ghost} if frame_idx < 4 else {0: hand, 1: square}
        if frame_idx == 0:
            for number, phrase in ((0, 0), (1, 1), (2, 1)):
                session.obj_id_to_idx(number)
                session.obj_id_to_prompt_id[number] = phrase
        if frame_idx == 3:
            session.remove_object(2)
        return SimpleNamespace(
            obj_id_to_mask={number: torch.from_numpy(mask.astype(np.float32) * 20 - 10)[None] for number, mask in seen.items()},
            obj_id_to_tracker_score=dict.fromkeys(seen, 0.9),
            obj_id_to_score={0: 0.8, 1: 0.95, 2: 0.9},
            suppressed_obj_ids=set(),
        )


def truthful(points: list[np.ndarray], width: int = 1280, height: int = 720) -> sam3.Backend:
    operator = make(**RANDOM)
    operator._model = Truth(points, width, height)  # type: ignore[assignment]
    return operator


def test_a_hand_has_its_side_and_points_and_a_thing_its_label(pictures: list[np.ndarray], points: list[np.ndarray]) -> None:
    cup = SidecarObject(label="my cup", text="cup")
    rows = detect(truthful(points), pictures, (cup,)).to_pylist()
    hands = [row for row in rows if row["role"] != "object"]
    assert [(row["frame_index"], row["role"], row["track_id"]) for row in hands] == [(i, "hand_right", 1 + 1) for i in range(len(pictures))]
    for row, want in zip(hands, points, strict=True):
        size_px = np.ptp(want, axis=0).max()
        assert np.linalg.norm(np.array(row["points_px"]) - want, axis=1).mean() < 0.03 * size_px
        assert (row["score"], row["score_age_s"]) == (pytest.approx(0.8), None), "that of its first detection"
        x, y, w, h = row["box_px"]
        assert iou(np.array([x, y, w, h]), np.concatenate([want.min(0), np.ptp(want, axis=0)])) > 0.9
    things = [row for row in rows if row["role"] == "object"]
    assert [row["frame_index"] for row in things] == SHOWN, "it comes late, leaves and returns; the ghost was never there"
    assert {(row["track_id"], row["label"], row["source"]) for row in things} == {(10, "my cup", "text")}
    assert things[0]["score"] == pytest.approx(0.9)
    assert {row["score_age_s"] for row in things} == {0.0}
    assert np.abs(np.array(things[0]["box_px"]) - np.array([30, 20, 60, 40]) * np.tile([1280 / 288, 720 / 288], 2)).max() < 5


def test_the_mirrored_hand_is_the_other_hand(pictures: list[np.ndarray], points: list[np.ndarray]) -> None:
    mirrored = [np.ascontiguousarray(p[:, ::-1]) for p in pictures[:10]]
    rows = detect(truthful([p * [-1, 1] + [1279, 0] for p in points]), mirrored, (SidecarObject(label="cup"),)).to_pylist()
    assert [row["role"] for row in rows if row["role"] != "object"] == ["hand_left"] * 10


def test_masks_are_the_detections_own_pixels(pictures: list[np.ndarray], points: list[np.ndarray]) -> None:
    detections = detect(truthful(points), pictures[:10], (SidecarObject(label="cup"),))
    masks = masks_of(detections)
    assert masks.num_rows == detections.num_rows
    for found, mask in zip(detections.to_pylist(), masks.to_pylist(), strict=True):
        assert (found["frame_index"], found["track_id"], found["role"], found["label"]) == (
            mask["frame_index"],
            mask["track_id"],
            mask["role"],
            mask["label"],
        )
        assert mask["bbox_px"] == found["box_px"]
        assert mask["rle"] == found["rle"]
        assert mask["backend"] == "sam3-random"


def noise(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (90, 120, 3), np.uint8)
    return [np.where(rng.random((90, 120, 1)) < 0.1, rng.integers(0, 256, (90, 120, 3), np.uint8), picture) for _ in range(n)]


def test_a_random_network_runs_through_both_stages_and_says_so() -> None:
    table = detect(make(phrases=("cup",), **RANDOM), noise(9))
    assert set(table["backend"].to_pylist()) == {"sam3-random"}
    assert set(table["frame_index"].to_pylist()) == set(range(9)), "frames that were held back are there too"
    masks = masks_of(table)
    assert set(masks["backend"].to_pylist()) == {"sam3-random"}
    for index in range(9):
        pixels = [rle.decode(row["rle"]) for row in masks.to_pylist() if row["frame_index"] == index]
        assert not pixels or np.sum(pixels, 0).max() == 1, "a pixel is of one thing"


def test_the_same_clip_gives_the_same_table_whatever_ran_before() -> None:
    operator = make(phrases=("cup",), hands="", **RANDOM)
    first = detect(operator, noise(7))
    detect(operator, noise(3))
    assert detect(operator, noise(7)).equals(first)
    assert first.num_rows > 0


def test_where_the_network_sees_nothing_the_table_is_empty() -> None:
    class Blind(Truth):
        def __call__(self, inference_session: Any, frame_idx: int) -> SimpleNamespace:
            nothing: dict[int, Any] = {}
            return SimpleNamespace(
                obj_id_to_mask=nothing, obj_id_to_tracker_score=nothing, obj_id_to_score=nothing, suppressed_obj_ids=set()
            )

    operator = make(phrases=("cup",), **RANDOM)
    operator._model = Blind([], 120, 90)  # type: ignore[assignment]
    assert detect(operator, noise(9)).equals(schema.empty("detections"))


def test_of_five_hands_the_four_surest_count(caplog: pytest.LogCaptureFixture) -> None:
    """No two of the same side at once; the fifth is left out, and that is said."""
    hands = [Thing(i, "hand", np.array([60.0 * i, 100.0, 40.0, 40.0]), 0.5 + 0.1 * i) for i in range(5)]
    mask = np.ones((4, 4), bool)
    sides = {hand.number: evidence_of_mask(mask, np.array([10.0 + i, 10.0])) for i, hand in enumerate(hands)}
    frames = [Looked(i, i / 30, hands, sides) for i in range(3)]
    rows = text_rows(pictures_input(noise(3)), "test", phrases_for("hand", (), ()), frames)
    assert {round(row["score"], 3) for row in rows} == {0.6, 0.7, 0.8, 0.9}
    for i in range(3):
        roles = [row["role"] for row in rows if row["frame_index"] == i]
        assert roles.count("hand_left") <= 1
        assert roles.count("hand_right") <= 1
        assert len({row["track_id"] for row in rows if row["frame_index"] == i}) == 4
    assert "1 hand(s) left out" in caplog.text


def test_without_phrases_nothing_is_looked_for() -> None:
    assert detect(make(hands="", **RANDOM), noise(2)).equals(schema.empty("detections"))


def test_phrases_come_from_settings_and_sidecar() -> None:
    known = (
        SidecarObject(label="mug", text="red  cup"),
        SidecarObject(label="spoon"),
        SidecarObject(label="left block", text="block"),
        SidecarObject(label="right block", text="block"),
        SidecarObject(label="a hand"),
    )
    found = phrases_for("hand", ("knife", "spoon", "hand"), known)
    assert found.all == ["hand", "knife", "spoon", "red cup", "block", "a hand"]
    assert found.labels == {"knife": "knife", "spoon": "spoon", "red cup": "mug", "block": "block", "a hand": "a hand"}


@pytest.mark.parametrize("turn", range(4))
def test_points_are_found_whichever_way_a_hand_is_turned(turn: int, pictures: list[np.ndarray], points: list[np.ndarray]) -> None:
    look = BoxedHands(LandmarkNetwork(models.path(sam3.LANDMARKS), 1), 0.5)
    for picture, want in zip(pictures[:12:6], points[:12:6], strict=True):
        for quarter in range(turn):
            want = np.stack([want[:, 1], (1280 if quarter % 2 == 0 else 720) - 1 - want[:, 0]], 1)
        low, size = want.min(0), np.ptp(want, axis=0)
        found = look(np.rot90(picture, turn).copy(), {7: np.concatenate([low, size])})
        assert np.linalg.norm(found[7].points_px - want, axis=1).mean() < 0.03 * size.max()


def test_where_there_is_no_hand_there_are_no_points(pictures: list[np.ndarray]) -> None:
    looks: list[int] = []
    network = LandmarkNetwork(models.path(sam3.LANDMARKS), 1)

    def counted(rgb: np.ndarray, roi: Any) -> Any:
        looks.append(1)
        return network(rgb, roi)

    look = BoxedHands(counted, 0.5)
    blank = np.full((240, 320, 3), 90, np.uint8)
    assert [look(blank, {0: np.array([100.0, 80.0, 60.0, 60.0])}) for _ in range(5)] == [{}] * 5
    assert len(looks) == 2 * 9, "it is searched for in every fourth frame"


@pytest.mark.parametrize(("side", "lean"), [("left", -1), ("right", 1)])
def test_the_mask_of_a_hand_says_which_side_its_arm_comes_from(side: str, lean: int) -> None:
    for reaches_edge in (True, False):
        mask = np.zeros((100, 100), np.uint8)
        end = (50 + lean * 35, 99 if reaches_edge else 85)
        cv2.line(mask, (50, 40), end, 1, 9)
        seen = evidence_of_mask(mask > 0, np.array([12.8, 7.2]))
        likely = dict(zip(LABELS, arm(seen, "bottom"), strict=True))
        other = "right" if side == "left" else "left"
        assert likely[side] > likely[other]  # type: ignore[index]


def test_masks_need_detections_with_pixels() -> None:
    boxes = schema.from_rows("detections", [detection_row(0)])
    with pytest.raises(BadSettings, match=r"those of `test` have none.*stages.detections.backend to `sam3`"):
        masks_of(boxes)
    assert masks_of(schema.empty("detections")).num_rows == 0


def hide_package(patch: pytest.MonkeyPatch, folder: Path) -> None:
    find = importlib.util.find_spec
    patch.setattr("egoworld_ops.operators.extras.find_spec", lambda name: None if name == "transformers" else find(name))


def no_weights(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("EGOWORLD_WEIGHTS", str(folder))


@pytest.mark.parametrize(
    ("broken", "kind", "says"),
    [
        (hide_package, SetupError, "transformers, which is not installed. Run: pip install egoworld[sam3]"),
        (no_weights, WeightsMissing, "https://huggingface.co/facebook/sam3 and accept its terms"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(
    broken: Callable[[pytest.MonkeyPatch, Path], None],
    kind: type[EgoworldError],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    broken(monkeypatch, tmp_path)
    with pytest.raises(kind) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadSettings, match=r"detections\.sam3\.device"):
        sam3.Backend(sam3.Settings(device="cuda", random_weights_seed=1), 1)
