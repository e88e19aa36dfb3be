"""Hand pose: known hands projected and solved again, the golden joints of a real video, the synthetic truth, and crops for mesh networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.transform import Rotation

from egoworld_ops import operators
from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.hand_pose import _crops, _pnp
from egoworld_ops.operators.rows import camera_of
from egoworld_ops.synthetic.truth import load_truth
from egoworld_ops.types import HANDS, Camera, Hand
from egoworld_ops.vision.geometry import align_similarity, matrix_from_quaternion, project, rotation_angle_deg, towards
from egoworld_ops.vision.hand_frame import in_wrist_frame, wrist_rotation
from egoworld_ops.vision.lenses import unproject
from tests.egoworld_ops.operators import seeded
from tests.egoworld_ops.operators.clips import pictures_input, video_input
from tests.rows import detection_row

Detect = operators.load("detections", "mediapipe")
Backend = operators.load("hand_pose", "mediapipe")
CAMERA = Camera(600.0, 610.0, 330.0, 235.0, 640, 480, "file")
AHEAD_M = np.array([0.0, 0.0, 0.5])


def right_hand_m() -> np.ndarray:
    """(21, 3) a slightly bent right hand seen from the back, fingers up, about its own centre; axes of the camera."""
    joints = [[0.0, 0.0, 0.0]]
    fingers = [
        (-0.03, 0.03, 0.032, -0.6),
        (-0.025, 0.09, 0.028, -0.1),
        (0, 0.095, 0.03, 0),
        (0.02, 0.088, 0.028, 0.1),
        (0.036, 0.078, 0.022, 0.2),
    ]
    for x, y, length, lean in fingers:
        joints += [[x + j * length * np.sin(lean), -y - j * length * np.cos(lean), 0.004 * j * j] for j in range(4)]
    hand = np.array(joints)
    return hand - hand.mean(0)


def hand_of(side: Hand) -> np.ndarray:
    return right_hand_m() * ([1, 1, 1] if side == "right" else [-1, 1, 1])


def solve_rows(rows: list[dict[str, Any]], camera: Camera = CAMERA, **options: Any) -> pa.Table:
    item = pictures_input([np.zeros((480, 640, 3), np.uint8)])
    item = replace(item, camera=camera, tables={"detections": schema.from_rows("detections", rows)})
    return solve(item, **options)


def solve(item: ClipInput, **options: Any) -> pa.Table:
    table = Backend(operators.check_options(Backend, "hand_pose", "mediapipe", options), 1).run(item)
    validation.validate("hand_pose", table)
    return table


def detected(frame_index: int, side: Hand, landmarks_m: np.ndarray, points_px: np.ndarray) -> dict[str, Any]:
    track = 1 if side == "left" else 2
    return detection_row(frame_index, role=f"hand_{side}", track_id=track, landmarks_m=landmarks_m, points_px=points_px)


@pytest.mark.parametrize("side", HANDS)
def test_projected_hands_come_back_within_a_millimetre(side: Hand) -> None:
    rng = np.random.default_rng(3)
    truth_m, rows = [], []
    for i in range(50):
        landmarks_m = hand_of(side) @ Rotation.random(rng=rng).as_matrix().T
        at_m = np.array([rng.uniform(-0.12, 0.12), rng.uniform(-0.08, 0.08), rng.uniform(0.3, 0.9)])
        turn = _pnp._towards(at_m[None, :2] / at_m[2])[0] @ Rotation.from_rotvec(rng.normal(0, 0.03, 3)).as_matrix()
        truth_m.append(landmarks_m @ turn.T + at_m)
        rows.append(detected(i, side, landmarks_m, project(CAMERA, truth_m[-1])))
    poses = solve_rows(rows, rotation_pull_share=0.0).to_pylist()
    assert [p["hand"] for p in poses] == [side] * 50
    assert max(np.abs(np.array(p["joints_m"]) - t).max() for p, t in zip(poses, truth_m, strict=True)) < 1e-3
    assert max(p["reprojection_px"] for p in poses) < 0.05


def test_noise_of_two_pixels_costs_little_and_an_outlier_less_than_without_robustness() -> None:
    rng = np.random.default_rng(4)
    truth_m = [hand_of("right") @ Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix().T + [0.03, -0.02, 0.5] for _ in range(100)]
    noisy = [(t - t.mean(0), project(CAMERA, t) + rng.normal(0, 2, (21, 2))) for t in truth_m]
    poses = solve_rows([detected(i, "right", *n) for i, n in enumerate(noisy)]).to_pylist()
    errors_m = [np.linalg.norm(np.array(p["joints_m"]) - t, axis=1).mean() for p, t in zip(poses, truth_m, strict=True)]
    assert np.median(errors_m) < 0.012
    assert np.median([p["reprojection_px"] for p in poses]) == pytest.approx(2 * np.sqrt(2), rel=0.15)
    for _, points_px in noisy:
        points_px[8] += 60
    outlying = [detected(i, "right", *n) for i, n in enumerate(noisy)]
    robust, plain = (
        np.median([abs(p["z_m"] - t[0, 2]) for p, t in zip(solve_rows(outlying, robust_share=s).to_pylist(), truth_m, strict=True)])
        for s in (0.03, 1.0)
    )
    assert robust < 0.6 * plain


def test_the_pose_is_where_errors_and_pull_together_are_least() -> None:
    """No small rotation or translation lowers the sum of each point's Huber loss and the cost of turning away from the ray."""
    rng = np.random.default_rng(5)
    points_m = hand_of("right") @ Rotation.from_rotvec([0.1, -0.2, 0.1]).as_matrix().T
    seen_m = points_m @ Rotation.from_rotvec([0.3, 0.2, -0.2]).as_matrix().T + [0.05, -0.03, 0.4]
    points_px = project(CAMERA, seen_m) + rng.normal(0, 1, (21, 2))
    points_px[8] += 40
    huber_px, pull_px = 6.0, 20.0
    poses = _pnp.solve(points_m[None], points_px[None], CAMERA, np.array([huber_px]), np.array([pull_px]))
    rays = (points_px - [CAMERA.cx_px, CAMERA.cy_px]) / [CAMERA.fx_px, CAMERA.fy_px]
    start = _pnp._towards(rays.mean(0)[None])[0]

    def cost(R: np.ndarray, t_m: np.ndarray) -> float:
        off_px = np.linalg.norm(project(CAMERA, points_m @ R.T + t_m) - points_px, axis=1)
        loss = np.where(off_px <= huber_px, off_px**2, 2 * huber_px * off_px - huber_px**2).sum()
        turned = R @ start.T
        axis = np.array([turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]]) / 2
        return float(loss + 21 * pull_px**2 * (axis @ axis))

    R, t_m = poses.R_camera_hand[0], poses.t_camera_hand_m[0]
    least = cost(R, t_m)
    for _ in range(200):
        turn, shift_m = rng.normal(0, 2e-3, 3), rng.normal(0, 4e-4, 3)
        assert cost(Rotation.from_rotvec(turn).as_matrix() @ R, t_m + shift_m) > least * (1 - 1e-6)


@pytest.mark.parametrize("side", HANDS)
def test_rows_agree_with_themselves(side: Hand) -> None:
    """joints_m = R(q) joints_wrist_m + position; reprojection_px is that of joints_m; the intrinsics are those used."""
    truth_m = hand_of(side) @ Rotation.from_euler("xyz", [0.4, -0.3, 0.8]).as_matrix().T + [0.05, 0.03, 0.6]
    points_px = project(CAMERA, truth_m) + np.random.default_rng(5).normal(0, 1, (21, 2))
    row = solve_rows([detected(7, side, truth_m - truth_m.mean(0), points_px)]).to_pylist()[0]
    R = matrix_from_quaternion(np.array([row[f"q{a}"] for a in "wxyz"]))
    position_m = np.array([row[f"{a}_m"] for a in "xyz"])
    joints_m, joints_wrist_m = np.array(row["joints_m"]), np.array(row["joints_wrist_m"])
    assert joints_wrist_m @ R.T + position_m == pytest.approx(joints_m, abs=1e-6)
    seen_px = np.array(row["joints_px"])
    rms_px = np.sqrt(((project(CAMERA, joints_m) - seen_px) ** 2).sum(1).mean())
    assert row["reprojection_px"] == pytest.approx(rms_px, abs=1e-3)
    assert [row[c] for c in ("fx_px", "fy_px", "cx_px", "cy_px", "intrinsics_source")] == [600, 610, 330, 235, "file"]
    assert row["observed"]
    assert row["reason"] is None


def test_depth_follows_the_focal_length() -> None:
    truth_m = hand_of("right") + AHEAD_M
    row = detected(0, "right", truth_m - truth_m.mean(0), project(CAMERA, truth_m))
    twice = replace(CAMERA, fx_px=1200.0, fy_px=1220.0)
    near, far = (solve_rows([row], c).to_pylist()[0]["z_m"] for c in (CAMERA, twice))
    assert far / near == pytest.approx(2, rel=0.05)


def test_points_that_no_hand_makes_give_null_with_a_reason() -> None:
    rng = np.random.default_rng(6)
    landmarks_m = hand_of("right")
    scattered = detected(0, "right", landmarks_m, project(CAMERA, landmarks_m + AHEAD_M) + rng.normal(0, 60, (21, 2)))
    on_a_line = landmarks_m.copy()
    on_a_line[5] = 0.5 * (on_a_line[0] + on_a_line[9])
    flat = detected(1, "right", on_a_line, project(CAMERA, on_a_line + AHEAD_M))
    collapsed = detected(2, "right", np.zeros((21, 3)), np.full((21, 2), 200.0))
    rows = solve_rows([scattered, flat, collapsed]).to_pylist()
    assert "reprojection error" in rows[0]["reason"]
    assert "wrist frame is not defined" in rows[1]["reason"]
    assert [row["reason_class"] for row in rows[:2]] == ["poor_fit", "degenerate"]
    assert all(r["reason"] for r in rows)
    assert all(r[c] is None for r in rows for c in ("joints_m", "joints_wrist_m", "qw", "x_m", "z_m"))


def test_no_hands_give_an_empty_typed_table() -> None:
    only_object = detection_row(0, role="object", track_id=10, points_px=None, landmarks_m=None, source="sidecar")
    assert solve_rows([only_object]).equals(schema.empty("hand_pose"))
    assert solve_rows([]).equals(schema.empty("hand_pose"))


@pytest.mark.parametrize("side", HANDS)
def test_wrist_frame_is_a_rotation_with_the_documented_axes(side: Hand) -> None:
    joints_m = hand_of(side) @ Rotation.from_rotvec([0.3, 1.0, -0.4]).as_matrix().T
    R = wrist_rotation(joints_m, side)
    assert R is not None
    assert pytest.approx(np.eye(3), abs=1e-12) == R.T @ R
    assert np.linalg.det(R) == pytest.approx(1)
    inside = in_wrist_frame(joints_m, R)
    assert inside[0] == pytest.approx(np.zeros(3))
    assert inside[9] == pytest.approx([0, 0, np.linalg.norm(joints_m[9] - joints_m[0])])
    assert inside[5, 0] == pytest.approx(0)
    assert np.sign(inside[5, 1]) == (1 if side == "right" else -1)
    # Seen from the back with bent fingers: the fingers' ends lie on the palm's side, where x points on both hands.
    assert inside[8, 0] > 0
    assert inside[12, 0] > 0


def test_mirrored_hands_have_mirrored_wrist_joints() -> None:
    right, left = hand_of("right"), hand_of("left")
    frames = wrist_rotation(right, "right"), wrist_rotation(left, "left")
    assert frames[0] is not None
    assert frames[1] is not None
    assert in_wrist_frame(left, frames[1]) == pytest.approx(in_wrist_frame(right, frames[0]) * [1, -1, 1])


def test_wrist_frame_is_none_where_the_knuckles_are_on_a_line() -> None:
    assert wrist_rotation(np.zeros((21, 3)), "right") is None


@pytest.fixture(scope="module")
def golden_poses(shared_data: Path) -> pa.Table:
    item = video_input(shared_data / "dexretarget_human_hand_video.mp4", 0, 621, 1280, 720)
    return solve(replace(item, tables={"detections": Detect(Detect.Settings(), 2).run(item)}))


def test_golden_joints_of_a_real_hand(golden_poses: pa.Table, shared_data: Path) -> None:
    golden_m = np.load(shared_data / "dexretarget_human_joint_right.npy")
    rows = golden_poses.to_pylist()
    assert [(r["frame_index"], r["hand"]) for r in rows] == [(i, "right") for i in range(621)]
    solved = [r for r in rows if r["joints_wrist_m"] is not None]
    errors_mm = np.linalg.norm([np.array(r["joints_wrist_m"]) - golden_m[r["frame_index"]] for r in solved], axis=-1) * 1e3
    print(f"FIGURE golden hands: {len(solved)} of 621 frames, mean {errors_mm.mean():.2f} mm (limit 2.0), max {errors_mm.max():.2f} mm")
    assert len(solved) == 621
    assert errors_mm.mean() <= 2.0


def test_golden_poses_project_onto_the_image(golden_poses: pa.Table) -> None:
    rows = golden_poses.to_pylist()
    shares = [r["reprojection_px"] / np.ptp(r["joints_px"], axis=0).max() for r in rows]
    print(
        f"FIGURE real hand, reprojection error over the hand's extent: median {np.median(shares):.1%}, p95 {np.percentile(shares, 95):.1%}"
    )
    assert np.median(shares) < 0.04
    assert {r["intrinsics_source"] for r in rows} == {"assumed_fov"}


def test_synthetic_hands_have_their_shape(synthetic_example: Path) -> None:
    truth = load_truth(synthetic_example.with_suffix(".truth"))
    bounds = [0, *truth.cuts, truth.camera.num_rows]
    detector = Detect(Detect.Settings(), 2)
    solved: dict[tuple[int, str], dict[str, Any]] = {}
    for start, end in pairwise(bounds):
        item = video_input(synthetic_example, start, end, truth.scene["width"], truth.scene["height"])
        for row in solve(replace(item, tables={"detections": detector.run(item)})).to_pylist():
            assert row["intrinsics_source"] == "file"
            solved[row["frame_index"], row["hand"]] = row
    aligned_mm, unaligned_mm, rooted_mm, nulls = [], [], [], 0
    for row in truth.hands.to_pylist():
        found = solved.get((row["frame_index"], row["hand"]))
        if found is None or found["joints_m"] is None:
            nulls += 1
            continue
        joints_m, true_m = np.array(found["joints_m"]), np.array(row["joints_m"])
        scale, R, t_m = align_similarity(joints_m, true_m)
        aligned_mm.append(np.linalg.norm(scale * joints_m @ R.T + t_m - true_m, axis=1) * 1e3)
        unaligned_mm.append(np.linalg.norm(joints_m - true_m, axis=1) * 1e3)
        rooted_mm.append(np.linalg.norm(joints_m - joints_m[0] - true_m + true_m[0], axis=1) * 1e3)
    p50, p95 = np.percentile(aligned_mm, [50, 95])
    print(f"FIGURE synthetic 3D joints after similarity alignment: median {p50:.1f} mm (limit 18.0), p95 {p95:.1f} mm, {nulls} null")
    for name, errors_mm in (("wrist-relative", rooted_mm), ("unaligned in the camera frame", unaligned_mm)):
        print(f"FIGURE synthetic 3D joints {name}: median {np.median(errors_mm):.1f} mm, p95 {np.percentile(errors_mm, 95):.1f} mm")
    assert p50 <= 18.0
    assert nulls <= 0.05 * truth.hands.num_rows


@pytest.mark.parametrize("side", HANDS)
def test_crop_and_back_is_exact(side: Hand) -> None:
    truth_m = hand_of(side) @ Rotation.from_rotvec([0.2, -0.5, 0.9]).as_matrix().T + [0.06, -0.04, 0.55]
    points_px = project(CAMERA, truth_m)
    low, high = points_px.min(0), points_px.max(0)
    crop = _crops.cut(np.zeros((480, 640, 3), np.uint8), np.concatenate([low, high - low]), side, CAMERA, 256, 2.0)
    in_crop_px = crop.to_crop_px(points_px)
    assert crop.to_image_px(in_crop_px) == pytest.approx(points_px, abs=1e-9)
    assert in_crop_px.mean(0) == pytest.approx([127.5, 127.5], abs=30)
    seen_m = crop.to_crop_m(truth_m)
    assert crop.projected(seen_m) == pytest.approx(in_crop_px, abs=1e-6)
    assert crop.to_camera_m(seen_m) == pytest.approx(truth_m)
    # The network sees a right hand, whichever hand it was.
    frame = wrist_rotation(seen_m, "right")
    assert frame is not None
    assert in_wrist_frame(seen_m, frame)[8, 0] > 0


WIDE = Camera(245.0, 245.0, 319.5, 239.5, 640, 480, "file", "kannala_brandt", (0.02, -0.008, 0.003, -0.0006))
WIDE_LENSES = (
    WIDE,
    Camera(300.0, 300.0, 320.0, 240.0, 640, 480, "file", "plumb_bob", (-0.25, 0.06, 0.001, -0.001, 0.0)),
    Camera(
        252.0, 252.0, 319.0, 240.0, 640, 480, "file", "fisheye624", (0.02, -0.01, 0.004, -0.002, 0.0, 0.0, 1e-3, -1e-3, 1e-3, 0, -1e-3, 0)
    ),
)


def hands_around(camera: Camera, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Landmarks of hands as a network gives them, up to the picture's edges, and their joints (21, 3) in the camera frame."""
    rng = np.random.default_rng(6)
    for u, v in rng.uniform([60, 60], [580, 420], (n, 2)):
        at_m = unproject(camera, np.array([u, v])) * rng.uniform(0.3, 0.8)
        landmarks_m = hand_of("right") @ Rotation.from_rotvec(rng.normal(0, 0.5, 3)).as_matrix().T
        turn = towards(at_m[None])[0] @ Rotation.from_rotvec(rng.normal(0, 0.03, 3)).as_matrix()
        yield landmarks_m, landmarks_m @ turn.T + at_m


@pytest.mark.parametrize("camera", WIDE_LENSES, ids=[c.model for c in WIDE_LENSES])
def test_hands_seen_through_a_wide_lens_come_back(camera: Camera) -> None:
    """Up to the picture's edges, without noise within a millimetre and with it as near as through a pinhole; a pinhole assumed instead is far off."""
    hands, rng = list(hands_around(camera, 60)), np.random.default_rng(7)
    exact = [detected(i, "right", landmarks_m, project(camera, truth_m)) for i, (landmarks_m, truth_m) in enumerate(hands)]
    poses = solve_rows(exact, camera, rotation_pull_share=0.0).to_pylist()
    assert max(np.abs(np.array(p["joints_m"]) - t).max() for p, (_, t) in zip(poses, hands, strict=True)) < 1e-3
    assert max(p["reprojection_px"] for p in poses) < 0.05
    assert {(p["lens_model"], tuple(p["distortion"])) for p in poses} == {(camera.model, camera.distortion)}
    straight = Camera(camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px, 640, 480, "file")
    shares = {}
    for name, seen_by in (("lens", camera), ("pinhole", straight)):
        of = hands if name == "lens" else [(m, t) for m, t in hands_around(straight, 60)]
        rows = [detected(i, "right", m, project(seen_by, t) + rng.normal(0, 1, (21, 2))) for i, (m, t) in enumerate(of)]
        found = solve_rows(rows, seen_by).to_pylist()
        shares[name] = np.median(
            [np.linalg.norm(np.array(p["joints_m"])[0] - t[0]) / np.linalg.norm(t[0]) for p, (_, t) in zip(found, of, strict=True)]
        )
    assert shares["lens"] < 1.3 * shares["pinhole"] < 0.1
    assumed = Camera(640 / 2 / np.tan(np.radians(35)), 640 / 2 / np.tan(np.radians(35)), 319.5, 239.5, 640, 480, "assumed_fov")
    depths = [
        p["z_m"] / t[0, 2] for p, (_, t) in zip(solve_rows(exact, assumed).to_pylist(), hands, strict=True) if p["z_m"] and t[0, 2] > 0.2
    ]
    assert np.median(depths) > 1.5


def test_reprojection_is_that_through_the_lens() -> None:
    landmarks_m, truth_m = next(hands_around(WIDE, 1))
    seen_px = project(WIDE, truth_m) + np.random.default_rng(8).normal(0, 2, (21, 2))
    row = solve_rows([detected(0, "right", landmarks_m, seen_px)], WIDE).to_pylist()[0]
    again_px = project(camera_of(row), np.array(row["joints_m"]))
    assert row["reprojection_px"] == pytest.approx(np.sqrt(((again_px - np.float32(seen_px)) ** 2).sum(1).mean()), abs=1e-3)


def test_a_joint_where_the_lens_shows_nothing_is_a_reason() -> None:
    """A KB lens that ends at 66 degrees: its pixels beyond show no ray."""
    narrow = replace(WIDE, distortion=(-0.25, 0.0, 0.0, 0.0))
    landmarks_m, truth_m = next(hands_around(narrow, 1))
    seen_px = project(narrow, truth_m)
    seen_px[8] = (639.0, 479.0)
    row = solve_rows([detected(0, "right", landmarks_m, seen_px)], narrow).to_pylist()[0]
    assert (row["joints_m"], row["reprojection_px"], row["reason_class"]) == (None, None, "off_lens")


@pytest.mark.parametrize("side", HANDS)
def test_a_crop_through_a_wide_lens_is_rectified_and_comes_back(side: Hand) -> None:
    truth_m = hand_of(side) + np.array([0.5, -0.2, 0.25])
    points_px = project(WIDE, truth_m)
    low, high = points_px.min(0), points_px.max(0)
    picture = np.zeros((480, 640, 3), np.uint8)
    for u, v in np.round(points_px).astype(int):
        picture[v, u] = 255
    crop = _crops.cut(picture, np.concatenate([low, high - low]), side, WIDE, 256, 2.0)
    in_crop_px = crop.to_crop_px(points_px)
    assert crop.to_image_px(in_crop_px) == pytest.approx(points_px, abs=1e-6)
    assert crop.projected(crop.to_crop_m(truth_m)) == pytest.approx(in_crop_px, abs=1e-6)
    assert crop.to_camera_m(crop.to_crop_m(truth_m)) == pytest.approx(truth_m)
    assert crop.camera.is_pinhole
    assert np.ptp(in_crop_px, axis=0).max() == pytest.approx(128, rel=0.2)
    shown = [crop.image[round(v) - 2 : round(v) + 3, round(u) - 2 : round(u) + 3].max() for u, v in in_crop_px]
    assert min(shown) > 60
    blank = crop.image.copy()
    for u, v in in_crop_px:
        blank[max(round(v) - 6, 0) : round(v) + 7, max(round(u) - 6, 0) : round(u) + 7] = 0
    assert not blank.any()


def test_a_crop_beside_the_lens_is_refused() -> None:
    with pytest.raises(ValueError, match="shows nothing"):
        _crops.cut(np.zeros((480, 640, 3), np.uint8), np.array([5000.0, 0.0, 10.0, 10.0]), "left", WIDE, 64, 2.0)


@pytest.mark.parametrize("side", HANDS)
def test_crop_shows_the_picture_where_its_mapping_says(side: Hand) -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[200:203, 300:303] = 255
    crop = _crops.cut(picture, np.array([280.0, 170.0, 60.0, 80.0]), side, CAMERA, 321, 1.5)
    ys, xs = np.nonzero(crop.image[..., 0] > 128)
    assert crop.to_crop_px(np.array([301.0, 201.0])) == pytest.approx([xs.mean(), ys.mean()], abs=1)


def test_crops_equal_those_that_the_network_was_trained_with(shared_data: Path) -> None:
    """Of HaMeR's own code, on random squares: one leaves the frame, one is blurred first, three are left hands. Every fourth pixel is known."""
    golden = np.load(shared_data / "goldens" / "crop.npz")
    picture = seeded.generator("frame").integers(0, 256, (30, 40, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    mean, std = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    worst, sums = 0.0, 0.0
    for i, (x0, y0, x1, y1) in enumerate(golden["boxes_xyxy"]):
        assert _crops.side_of(x1 - x0, y1 - y0, 2.0) == pytest.approx(golden["box_size"][i], abs=1e-3)
        side: Hand = "right" if golden["right"][i] else "left"
        crop = _crops.cut(picture, np.array([x0, y0, x1 - x0, y1 - y0]), side, CAMERA, 256, 2.0)
        seen = ((crop.image - mean) / std).transpose(2, 0, 1)
        worst = max(worst, float(np.abs(seen[:, ::4, ::4] - golden["crops_every_4th"][i]).max()))
        sums = max(sums, float(np.abs(seen.sum(2) - golden["crops_sum_rows"][i]).max()) / 256)
    print(f"FIGURE hamer crops: largest difference {worst:.1e} (float16 has 1e-3), of a row's mean {sums:.1e}; a grey level is 1.7e-2")
    assert worst < 2e-3
    assert sums < 4e-3


@pytest.mark.parametrize("side", HANDS)
def test_a_rectified_crop_and_a_plain_one_show_the_same_where_the_lens_does_not_distort(side: Hand) -> None:
    """A hand in the middle of the picture: a fisheye of no distortion to speak of and a pinhole see it in the same pixels."""
    rng = np.random.default_rng(2)
    picture = cv2.resize(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    box = np.array([305.0, 222.0, 29.0, 35.0])
    straight = Camera(2000.0, 2000.0, 319.5, 239.5, 640, 480, "file")
    bent = replace(straight, model="kannala_brandt", distortion=(0.0, 0.0, 0.0, 0.0))
    plain, rectified = (_crops.cut(picture, box, side, camera, 256, 2.0) for camera in (straight, bent))
    assert np.abs(plain.image - rectified.image)[8:-8, 8:-8].max() < 12
    assert np.abs(plain.image - rectified.image).mean() < 1


def test_axis_angles_of_a_mirrored_hand_are_mirrored_back() -> None:
    """Mirroring x turns the rotation R into S R S; on axis-angles that negates y and z."""
    box = np.array([100.0, 100.0, 50.0, 50.0])
    left, right = (_crops.cut(np.zeros((480, 640, 3), np.uint8), box, side, CAMERA, 64, 2.0) for side in HANDS)
    turn = np.array([0.3, -0.7, 0.4])
    S = np.diag([-1.0, 1.0, 1.0])
    mirrored = S @ Rotation.from_rotvec(turn).as_matrix() @ S
    assert rotation_angle_deg(Rotation.from_rotvec(left.to_own_side(turn)).as_matrix(), mirrored) == pytest.approx(0, abs=1e-5)
    assert right.to_own_side(turn) == pytest.approx(turn)


def test_crop_refuses_a_box_without_area() -> None:
    with pytest.raises(ValueError, match="box with an area"):
        _crops.cut(np.zeros((48, 64, 3), np.uint8), np.array([1.0, 1.0, 0.0, 5.0]), "left", CAMERA, 64, 2.0)
