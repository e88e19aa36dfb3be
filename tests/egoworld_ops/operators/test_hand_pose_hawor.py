"""The backend `hawor` without its weights: windows of frames, a network that tells the truth, one of random numbers, and files of another network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import WeightsMismatch
from egoworld_ops.operators.hand_pose import _mesh_model
from egoworld_ops.operators.hand_pose._crops import cut
from egoworld_ops.operators.hand_pose._hawor_network import WINDOW
from egoworld_ops.operators.hand_pose._mesh_model import Hands
from egoworld_ops.operators.hand_pose._weak_perspective import Placed, place_before
from egoworld_ops.operators.hand_pose.hawor import Backend, Settings
from egoworld_ops.types import HANDS, Camera, Hand
from egoworld_ops.vision.geometry import project
from egoworld_ops.vision.lenses import unproject
from tests.egoworld_ops.operators import seeded
from tests.egoworld_ops.operators.clips import pictures_input
from tests.egoworld_ops.operators.test_hand_pose_meshes import (
    CAMERAS,
    CPU,
    MIRROR,
    PINHOLE,
    TrueHand,
    check_flat_memory,
    hand_row,
    noise,
    saved,
    some_points,
)
from tests.rows import detection_row

pytestmark = pytest.mark.usefixtures("one_thread")


def make(**options: Any) -> Backend:
    return Backend(Settings(**{"device": "cpu", "random_weights_seed": 3, **options}), threads=1)


def run(operator: Backend, rows: list[dict[str, Any]], pictures: list[np.ndarray], camera: Camera = PINHOLE) -> pa.Table:
    tables = {"detections": schema.from_rows("detections", rows)}
    table = operator.run(replace(pictures_input(pictures), camera=camera, tables=tables))
    validation.validate("hand_pose", table)
    return table


class Witness:
    """Stands in for a network that knows where one hand is, and notes what it is shown."""

    def __init__(self, hand: TrueHand, origins_m: list[np.ndarray]) -> None:
        self.hand, self.origins_m, self.shown = hand, origins_m, list[tuple[np.ndarray, np.ndarray]]()

    def __call__(self, images: np.ndarray, boxes: np.ndarray) -> Hands:
        self.shown.append((images, boxes))
        n = images.shape[0] * WINDOW
        cameras = []
        for window, of_window in enumerate(boxes):
            for at, (x, y, size) in enumerate(of_window):
                origin_m = self.origins_m[min(window * WINDOW + at, len(self.origins_m) - 1)]
                across_m = (0.06 * size + 0.24) * origin_m[2]  # the box's side where the hand is
                middle_m = np.array([x, y]) / 2.8 * origin_m[2]
                cameras.append([2 / across_m, *(origin_m[:2] - middle_m)])
        every = np.repeat(self.hand.model_m[None], n, 0)
        rotations, betas = np.repeat(self.hand.rotations[None], n, 0), np.repeat(self.hand.betas[None], n, 0)
        return Hands(rotations, betas, np.array(cameras), every, np.zeros((n, 778, 3)))


@pytest.mark.parametrize("side", HANDS)
def test_a_hand_lands_where_the_network_says_that_it_is_before_the_true_camera(side: Hand) -> None:
    """Through a pinhole; near a corner, with a principal point that is off the middle. A hand that is seen mirrored is on the other side of that."""
    rng = np.random.default_rng(11)
    mirror = MIRROR if side == "left" else np.eye(3)
    origins_m = [unproject(PINHOLE, np.array([110.0 + 5 * i, 90.0])) * 0.5 for i in range(3)]
    hand = TrueHand(side, PINHOLE, origins_m[0], rng)
    truth_m = [hand.model_m @ mirror + origin_m for origin_m in origins_m]
    rows = [hand_row(i, side, project(PINHOLE, joints_m)) for i, joints_m in enumerate(truth_m)]
    operator = make(vertices=True)
    operator._model = Witness(hand, [origin_m @ mirror for origin_m in origins_m])  # type: ignore[assignment]
    found = run(operator, rows, noise(3)).to_pylist()
    for row, joints_m in zip(found, truth_m, strict=True):
        assert row["reason"] is None
        assert np.array(row["joints_m"]) == pytest.approx(joints_m, abs=1e-5)
        assert np.array(row["joints_px"]) == pytest.approx(project(PINHOLE, joints_m), abs=1e-2)
        assert row["vertices_wrist_m"] is not None
        turns = np.array(row["mano_pose"]).reshape(16, 3) * (np.diag(-MIRROR) if side == "left" else 1)
        again_m = hand.joints_of(np.stack([_rotation(turn) for turn in turns])) @ mirror
        assert again_m - again_m[0] == pytest.approx(joints_m - joints_m[0], abs=2e-5)


@pytest.mark.parametrize("side", HANDS)
@pytest.mark.parametrize("lens", CAMERAS)
def test_through_a_lens_the_crops_own_camera_is_meant(lens: str, side: Hand) -> None:
    camera = CAMERAS[lens]
    joints_m = np.random.default_rng(3).normal(0, 0.03, (21, 3)) + unproject(camera, np.array([540.0, 390.0])) * 0.4
    points_px = project(camera, joints_m)
    crop = cut(noise(1)[0], np.concatenate([points_px.min(0), np.ptp(points_px, axis=0)]), side, camera, 256, 1.2, 1.0)
    seen_m = crop.to_crop_m(joints_m)
    scale = (crop.camera.fx_px + crop.camera.fy_px) / (256 * seen_m[0, 2])
    shift = seen_m[0, :2] - (128 - np.array([crop.camera.cx_px, crop.camera.cy_px])) * 2 / (256 * scale)
    placed = place_before(crop, seen_m - seen_m[0], np.array([scale, *shift]))
    assert isinstance(placed, Placed)
    assert placed.joints_m == pytest.approx(joints_m, abs=1e-9)
    assert placed.joints_px == pytest.approx(points_px, abs=1e-6)


def _rotation(turn: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(turn).as_matrix())


def test_half_the_focal_length_is_told_to_the_network_and_halves_the_depth() -> None:
    rows = [hand_row(0, "right", some_points(300, 200))]
    depths, told = [], []
    for camera in (PINHOLE, replace(PINHOLE, fx_px=300.0, fy_px=300.0)):
        operator = make()
        model = operator._model
        shown: list[np.ndarray] = []

        def fixed(images: np.ndarray, boxes: np.ndarray, model: Any = model, shown: list[np.ndarray] = shown) -> Hands:
            shown.append(boxes)
            said = model(images, np.zeros_like(boxes))
            return replace(said, camera=np.tile([5.0, 0.0, 0.0], (len(said.camera), 1)))

        operator._model = fixed
        [row] = run(operator, rows, noise(1), camera).to_pylist()
        depths.append(row["z_m"])
        told.append(0.06 * shown[0][0, 0, 2] + 0.24)
    assert told[1] / told[0] == pytest.approx(2, rel=1e-4)
    assert depths[1] / depths[0] == pytest.approx(0.5, rel=0.1)


def test_windows_begin_with_the_clip_and_frames_without_the_hand_are_stood_in_for() -> None:
    """40 frames: the right hand in 4, 5 and 30, the left one in 17. Three windows of 16 crops each; rows are those that are detected."""
    seen = {4: ("right",), 5: ("right",), 17: ("left",), 30: ("right",)}
    rows = [hand_row(i, side, some_points(200 + 3 * i, 200)) for i, sides in seen.items() for side in sides]
    operator, shown = make(micro_batch=2), []
    model = operator._model

    def noted(images: np.ndarray, boxes: np.ndarray) -> Hands:
        shown.append(boxes)
        return model(images, boxes)

    operator._model = noted
    pictures = noise(40)
    together = run(operator, rows, pictures)
    assert [(r["frame_index"], r["hand"], r["backend"]) for r in together.to_pylist()] == [
        (i, side, "hawor-random") for i, sides in seen.items() for side in sides
    ]
    assert [len(boxes) for boxes in shown] == [2, 1]
    first = shown[0][0]
    assert all(np.array_equal(first[n], first[4]) for n in range(5))
    assert all(np.array_equal(first[n], first[5]) for n in range(5, WINDOW))
    assert not np.array_equal(first[4], first[5])
    alone = run(make(micro_batch=1), rows, pictures)
    for one, other in zip(alone.to_pylist(), together.to_pylist(), strict=True):
        assert one["reason"] == other["reason"]
        assert one["joints_m"] is None or np.array(one["joints_m"]) == pytest.approx(np.array(other["joints_m"]), abs=1e-4)


def test_a_left_hand_is_the_mirror_image_of_a_right_one() -> None:
    pictures = noise(2)
    points_px = some_points(200, 150)
    mirror = replace(PINHOLE, cx_px=639 - PINHOLE.cx_px)
    right = run(make(), [hand_row(i, "right", points_px) for i in range(2)], pictures).to_pylist()
    flipped = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
    left = run(make(), [hand_row(i, "left", points_px * [-1, 1] + [639, 0]) for i in range(2)], flipped, mirror).to_pylist()
    for a, b in zip(left, right, strict=True):
        assert a["reason"] == b["reason"]
        assert np.array(a["joints_px"]) == pytest.approx(np.array(b["joints_px"]) * [-1, 1] + [639, 0], abs=1e-2)


@pytest.mark.parametrize("lens", CAMERAS)
def test_a_box_without_area_is_a_reason_and_a_window_of_such_asks_nothing(lens: str) -> None:
    flat = hand_row(0, "right", some_points(300, 200)) | {"points_px": np.full((21, 2), 7.0)}
    operator = make()
    operator._model = None  # type: ignore[assignment]
    assert [row["reason_class"] for row in run(operator, [flat], noise(1), CAMERAS[lens]).to_pylist()] == ["no_upstream"]
    unseen = detection_row(0, role="hand_left", points_px=None, box_px=[5.0, 5.0, 0.0, 0.0])
    assert run(operator, [unseen], noise(1), CAMERAS[lens]).num_rows == 0


def test_a_checkpoint_of_hamer_is_named(tmp_path: Path) -> None:
    checkpoint, mano = saved(tmp_path, "hamer")
    with pytest.raises(WeightsMismatch, match="HaWoR"):
        _mesh_model.load(_mesh_model.HAWOR, checkpoint, mano, CPU, "float32", seeded.TINY_HAWOR)


def test_memory_is_flat_over_a_thousand_frames() -> None:
    """In every fourth window there is a hand."""
    check_flat_memory("hawor", make(), [i for i in range(1000) if i // WINDOW % 4 == 0])
