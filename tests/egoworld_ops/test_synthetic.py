"""The synthetic scene: its ground truth is consistent with itself, with geometry and with its pixels."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.compute as pc
import pytest

from egoworld_ops.errors import InputError
from egoworld_ops.synthetic import FrameTruth, SceneConfig, SceneTruth, load_truth, render_frame, render_scene
from egoworld_ops.synthetic.__main__ import main
from egoworld_ops.synthetic.config import WIDE
from egoworld_ops.synthetic.hand import BONES, HandPose, skeleton
from egoworld_ops.synthetic.script import state_at
from egoworld_ops.types import HANDS, Camera
from egoworld_ops.video.sidecar import read_sidecar
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import (
    invert,
    make_transform,
    matrix_from_quaternion,
    project,
    quaternion_from_matrix,
    rotation_angle_deg,
    transform,
)
from egoworld_ops.vision.lenses import rectified_map, unproject

SMALL = SceneConfig(seed=3, width=160, height=120, frames_per_shot=4)
LENGTH = SceneConfig(width=320, height=240)
CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


@pytest.fixture(scope="module")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_scene(SMALL, tmp_path_factory.mktemp("synthetic"), "small")


@pytest.fixture(scope="module")
def example_truth(synthetic_example: Path) -> SceneTruth:
    return load_truth(synthetic_example.with_name(f"{synthetic_example.stem}.truth"))


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, FrameTruth]]:
    """Before, while and after the object is carried."""
    return [render_frame(LENGTH, index) for index in (0, 50, 90, 160)]


def camera_of(truth: SceneTruth) -> Camera:
    row = truth.camera.slice(0, 1).to_pylist()[0]
    size = truth.scene["width"], truth.scene["height"]
    return Camera(row["fx"], row["fy"], row["cx"], row["cy"], *size, "file")


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def poses(truth: SceneTruth) -> np.ndarray:
    """`T_world_object` of each frame (n, 4, 4), from the camera's and the object's truth."""
    cameras = np.array(truth.camera["T_world_camera"].to_pylist()).reshape(-1, 4, 4)
    rows = truth.objects.to_pylist()
    rotations = [matrix_from_quaternion(np.array([r["qw"], r["qx"], r["qy"], r["qz"]])) for r in rows]
    return cameras @ [make_transform(R, np.array([r["x_m"], r["y_m"], r["z_m"]])) for R, r in zip(rotations, rows, strict=True)]


def test_the_same_seed_gives_the_same_pixels_and_another_seed_does_not() -> None:
    rgb, truth = render_frame(SMALL, 5)
    again, truth_again = render_frame(dataclasses.replace(SMALL), 5)
    assert (rgb == again).all()
    assert all((a.joints_m == b.joints_m).all() for a, b in zip(truth.hands, truth_again.hands, strict=True))
    assert (rgb != render_frame(dataclasses.replace(SMALL, seed=4), 5)[0]).mean() > 0.5


def test_the_same_scene_gives_the_same_bytes(small_scene: Path, tmp_path: Path) -> None:
    assert render_scene(SMALL, tmp_path, "small").read_bytes() == small_scene.read_bytes()


def test_joints_in_metres_project_to_joints_in_pixels(example_truth: SceneTruth) -> None:
    joints_m, joints_px = (np.array(example_truth.hands[name].to_pylist()) for name in ("joints_m", "joints_px"))
    assert np.abs(project(camera_of(example_truth), joints_m) - joints_px).max() < 1e-2


def test_bones_keep_their_length(example_truth: SceneTruth) -> None:
    joints_m = np.array(example_truth.hands["joints_m"].to_pylist())
    lengths = np.stack([np.linalg.norm(joints_m[:, a] - joints_m[:, b], axis=1) for a, b in BONES if a], 1)
    assert np.ptp(lengths, axis=0).max() < 1e-6
    assert 0.015 < lengths.min() < lengths.max() < 0.06


@pytest.mark.parametrize(("hand", "thumb_side"), [("right", -1), ("left", 1)])
def test_thumb_is_on_the_side_of_the_persons_own_hand(hand: str, thumb_side: int) -> None:
    """Back of the hand towards the viewer, fingers up: a right thumb points left, a left one right."""
    pose = HandPose(hand, np.eye(4), np.radians(np.full((5, 3), 10.0)), np.zeros(5), np.array([0.0, -1.0, 0.0]))
    joints_m = skeleton(pose).joints_m
    assert np.sign(joints_m[4, 0] - joints_m[20, 0]) == thumb_side
    assert joints_m[12, 2] < joints_m[9, 2], "fingers bend away from the back of the hand"


def test_left_hand_is_the_mirror_image_of_the_right() -> None:
    bend = np.radians(np.arange(15, dtype=float).reshape(5, 3) * 4)
    left, right = (skeleton(HandPose(h, np.eye(4), bend, np.zeros(5), np.array([0.0, -1.0, 0.0]))).joints_m for h in HANDS)
    assert np.allclose(left * [-1, 1, 1], right)


def test_each_thumb_points_inwards_in_the_first_frame(frames: list[tuple[np.ndarray, FrameTruth]]) -> None:
    for hand in frames[0][1].hands:
        inwards = hand.joints_px[4, 0] - hand.joints_px[20, 0]
        assert (inwards > 0) == (hand.hand == "left")


def test_object_mask_is_where_its_rays_meet_the_cuboid(frames: list[tuple[np.ndarray, FrameTruth]]) -> None:
    """Each object pixel lies within the hull of the projected corners, and the rest of the hull is hidden by hands."""
    import cv2

    for _, truth in frames:
        corners_px = project(truth.camera, transform(truth.T_camera_object, CORNERS * LENGTH.dimensions_m))
        hull = cv2.convexHull(corners_px.astype(np.float32))
        silhouette = np.zeros((LENGTH.height, LENGTH.width), np.uint8)
        cv2.fillConvexPoly(silhouette, np.rint(hull).astype(np.int32), 1)
        grown = cv2.dilate(silhouette, np.ones((3, 3), np.uint8)) > 0
        inner = cv2.erode(silhouette, np.ones((3, 3), np.uint8)) > 0
        assert not (truth.masks["object"] & ~grown).any()
        by_hands = truth.masks["hand_left"] | truth.masks["hand_right"]
        assert (inner & ~truth.masks["object"] & ~by_hands).sum() <= 0.05 * inner.sum(), "only hands and sleeves occlude"


def test_the_ray_of_each_object_pixel_passes_through_the_cuboid(frames: list[tuple[np.ndarray, FrameTruth]]) -> None:
    """An independent check of the pixel convention: points along each ray, rather than the slab method."""
    truth = frames[1][1]
    rows, columns = np.nonzero(truth.masks["object"])
    camera = truth.camera
    rays = np.stack([(columns - camera.cx_px) / camera.fx_px, (rows - camera.cy_px) / camera.fy_px, np.ones(len(rows))], -1)
    middle_m = truth.T_camera_object[2, 3]
    inside = np.zeros(len(rows), bool)
    for depth in np.arange(middle_m - 0.1, middle_m + 0.1, 5e-4):
        points = transform(invert(truth.T_camera_object), rays * depth)
        inside |= (np.abs(points) <= np.array(LENGTH.dimensions_m) / 2 + 5e-4).all(1)
    assert inside.all()


WIDE_SCENE = replace(SMALL, width=320, height=240, **WIDE)


@pytest.fixture(scope="module")
def wide_frame() -> tuple[np.ndarray, FrameTruth]:
    return render_frame(WIDE_SCENE, WIDE_SCENE.n_frames // 6)


def test_a_wide_lens_shows_what_the_pinhole_shows(wide_frame: tuple[np.ndarray, FrameTruth]) -> None:
    """The same scene, rectified into the pinhole's picture."""
    import cv2

    rgb, truth = wide_frame
    straight = replace(WIDE_SCENE, lens="pinhole", distortion=(), focal_per_width=0.5)
    want_rgb, want = render_frame(straight, truth.frame_index)
    columns, rows = rectified_map(truth.camera, want.camera, np.eye(3))
    for role, mask in want.masks.items():
        seen = cv2.remap(truth.masks[role].astype(np.float32), columns, rows, cv2.INTER_LINEAR) > 0.5
        assert (seen & mask).sum() / (seen | mask).sum() > 0.88, role
    assert np.median(np.abs(cv2.remap(rgb, columns, rows, cv2.INTER_LINEAR).astype(float) - want_rgb)) < 6
    assert np.allclose(truth.T_camera_object, want.T_camera_object)


def test_through_a_wide_lens_pixels_are_where_rays_meet_things(wide_frame: tuple[np.ndarray, FrameTruth]) -> None:
    rgb, truth = wide_frame
    rows, columns = np.nonzero(truth.masks["object"])
    rays = unproject(truth.camera, np.stack([columns, rows], -1))
    half = np.array(WIDE_SCENE.dimensions_m) / 2 + 1e-3
    inside = np.zeros(len(rows), bool)
    middle_m = np.linalg.norm(truth.T_camera_object[:3, 3])
    for far in np.arange(middle_m - 0.12, middle_m + 0.12, 1e-3):
        inside |= (np.abs(transform(invert(truth.T_camera_object), rays * far)) <= half).all(1)
    assert inside.all()
    for hand in truth.hands:
        seen = np.rint(hand.joints_px[hand.visible]).astype(int)
        assert len(seen) > 5
        assert truth.masks[f"hand_{hand.hand}"][seen[:, 1], seen[:, 0]].all()
    v, u = np.mgrid[0:240, 0:320]
    beyond = unproject(truth.camera, np.stack([u, v], -1).astype(float))[..., 2] < 0.03
    assert beyond.any()
    assert rgb[beyond].mean() < 12


def test_a_scene_through_a_lens_is_written_with_it(tmp_path: Path) -> None:
    config = replace(SMALL, frames_per_shot=3, width=64, height=48, **WIDE)
    video = render_scene(config, tmp_path, "wide")
    given = read_sidecar(video).camera
    assert given is not None
    assert (given.model, given.distortion) == ("kannala_brandt", config.distortion)
    assert load_truth(video.with_suffix(".truth")).scene["model"] == "kannala_brandt"


def test_a_scene_through_an_impossible_lens_is_refused() -> None:
    with pytest.raises(ValueError, match="two rays in one pixel"):
        replace(SMALL, lens="plumb_bob", distortion=(-3.0, 0.0, 0.0, 0.0))


def test_masks_do_not_overlap_and_a_visible_joint_is_in_its_mask(frames: list[tuple[np.ndarray, FrameTruth]]) -> None:
    for _, truth in frames:
        assert np.sum([mask.astype(int) for mask in truth.masks.values()], axis=0).max() == 1
        for hand in truth.hands:
            seen = np.rint(hand.joints_px[hand.visible]).astype(int)
            assert len(seen) > 5
            assert truth.masks[f"hand_{hand.hand}"][seen[:, 1], seen[:, 0]].all()


def test_hand_mask_ends_at_the_wrist(frames: list[tuple[np.ndarray, FrameTruth]]) -> None:
    for _, truth in frames:
        for hand in truth.hands:
            along = hand.joints_px[9] - hand.joints_px[0]
            length_px = np.linalg.norm(along)
            rows, columns = np.nonzero(truth.masks[f"hand_{hand.hand}"])
            from_wrist = (np.stack([columns, rows], -1) - hand.joints_px[0]) @ (along / length_px)
            assert from_wrist.min() > -1.0 * length_px


def test_held_object_does_not_move_in_the_hand() -> None:
    for first, last in ((36, 55), (75, 100), (134, 155)):
        states = [state_at(LENGTH, index) for index in (first, last)]
        assert states[0].held_by == states[1].held_by != "none"
        side = HANDS.index(states[0].held_by)
        a, b = (invert(state.hands[side].T_world_wrist) @ state.T_world_object for state in states)
        assert np.allclose(a, b, atol=1e-9)


def test_object_is_lifted_turned_and_put_down(example_truth: SceneTruth) -> None:
    T_world_object = poses(example_truth)
    heights_m = T_world_object[:, 2, 3]
    rest_m = example_truth.scene["dimensions_m"][2] / 2
    for start in (56, 112):
        shot = slice(start, start + 56)
        assert heights_m[shot].max() > rest_m + 0.06
        assert np.allclose(heights_m[[start, start + 55]], rest_m, atol=1e-6)
        turns = [rotation_angle_deg(T_world_object[start, :3, :3], T[:3, :3]) for T in T_world_object[shot]]
        assert max(turns) > 20
    assert set(example_truth.objects["held_by"].to_pylist()) == {"none", "left", "right"}


def test_speed_agrees_with_object_and_camera_poses(example_truth: SceneTruth) -> None:
    positions_m, fps = poses(example_truth)[:, :3, 3], example_truth.scene["fps"]
    speeds = example_truth.objects["speed_m_s"].to_numpy()
    moving = example_truth.objects["moving"].to_numpy(zero_copy_only=False)
    held = np.array([who != "none" for who in example_truth.objects["held_by"].to_pylist()])
    assert not (moving & ~held).any(), "it moves in a hand only"
    assert speeds[~moving].max() <= example_truth.scene["moving_speed_m_s"]
    for start, end in ((0, 56), (56, 112), (112, 168)):
        measured = np.linalg.norm(positions_m[start + 2 : end] - positions_m[start : end - 2], axis=1) * fps / 2
        assert np.abs(measured - speeds[start + 1 : end - 1]).max() < 0.03


def test_quaternions_are_unit_with_positive_w(example_truth: SceneTruth) -> None:
    quaternions = np.stack([example_truth.objects[name].to_numpy() for name in ("qw", "qx", "qy", "qz")], -1)
    assert np.allclose(np.linalg.norm(quaternions, axis=1), 1)
    assert (quaternions[:, 0] >= 0).all()


def test_example_is_what_the_generator_makes(synthetic_example: Path, example_truth: SceneTruth) -> None:
    config = SceneConfig(seed=example_truth.scene["seed"])
    pictures = decode(synthetic_example)
    for index in (40, 140):
        rgb, truth = render_frame(config, index)
        joints = example_truth.hands.filter(pc.equal(example_truth.hands["frame_index"], index))
        assert np.allclose(np.array(joints["joints_m"].to_pylist()), [hand.joints_m for hand in truth.hands], atol=1e-6)
        row = example_truth.objects.slice(index, 1).to_pylist()[0]
        expected = quaternion_from_matrix(truth.T_camera_object[:3, :3])
        assert np.allclose([row[q] for q in ("qw", "qx", "qy", "qz")], expected, atol=1e-9)
        error = np.abs(rgb.astype(int) - pictures[index]).mean()
        print(f"FIGURE synthetic example: coded picture {index} differs by {error:.2f} of 255 from the rendered one")
        assert error < 6


def test_cuts_are_where_the_truth_says(synthetic_example: Path, example_truth: SceneTruth) -> None:
    pictures = np.array([picture[::8, ::8] for picture in decode(synthetic_example)], float)
    assert len(pictures) == example_truth.scene["n_frames"]
    change = np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3))
    cuts = np.flatnonzero(change > 4 * np.median(change)) + 1
    print(f"FIGURE synthetic cuts: found {cuts.tolist()} in pixel differences, truth {list(example_truth.cuts)}")
    assert cuts.tolist() == list(example_truth.cuts)


def test_masks_table_decodes_to_its_areas(example_truth: SceneTruth) -> None:
    rows = example_truth.masks.to_pylist()
    assert {row["role"] for row in rows} == {"hand_left", "hand_right", "object"}
    for row in rows[::25]:
        mask = rle.decode({"size": [row["height"], row["width"]], "counts": row["rle_counts"]})
        assert mask.shape == (480, 640)
        assert mask.sum() == row["area_px"]


def test_video_is_constant_rate_and_the_sidecar_fits(small_scene: Path) -> None:
    with av.open(str(small_scene)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
        assert stream.average_rate == 30
    assert times == [Fraction(index, 30) for index in range(SMALL.n_frames)]
    sidecar = read_sidecar(small_scene)
    assert sidecar.camera is not None
    assert sidecar.camera.fx == SMALL.camera.fx_px
    assert sidecar.objects[0].dimensions_m == SMALL.dimensions_m
    assert [prompt.frame_index for prompt in sidecar.objects[0].prompts] == [0, 4, 8]
    assert not list(small_scene.parent.glob(".*"))


def test_command_renders_a_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--name", "s", "--frames-per-shot", "3", "--size", "64x48", "--count", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(tmp_path / "s-000.mp4"), str(tmp_path / "s-001.mp4")]
    assert "frame 9 of 9" in printed.err
    seeds = [json.loads((tmp_path / f"s-00{n}.truth" / "scene.json").read_text())["seed"] for n in (0, 1)]
    assert seeds == [7, 8]


@pytest.mark.parametrize("wrong", [{"width": 161}, {"fps": 0}, {"frames_per_shot": 1}, {"seed": -1}, {"dimensions_m": (0.1, 0, 1)}])
def test_configuration_that_cannot_be_rendered_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "width" not in wrong else "size"):
        SceneConfig(**wrong)  # type: ignore[arg-type]


def test_missing_truth_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.truth"):
        load_truth(tmp_path / "nothing.truth")


def test_frame_outside_of_the_video_is_refused() -> None:
    with pytest.raises(IndexError, match="frame_index"):
        render_frame(SMALL, SMALL.n_frames)


def test_clutter_is_background_that_hides_nothing_of_what_is_before_it() -> None:
    bare, strewn = (render_frame(dataclasses.replace(SMALL, clutter=clutter), 2) for clutter in (0, 6))
    changed = (bare[0] != strewn[0]).any(2)
    assert changed.mean() > 0.03
    held = bare[1].masks["hand_right"]
    assert (strewn[1].masks["hand_right"] & ~held).sum() == 0
    assert strewn[1].masks["hand_right"].sum() >= 0.9 * held.sum()
    with pytest.raises(ValueError, match="clutter"):
        dataclasses.replace(SMALL, clutter=7)
