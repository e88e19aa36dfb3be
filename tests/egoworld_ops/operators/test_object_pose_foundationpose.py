"""The backend `foundationpose` without its weights: a refiner that reads pixels, random numbers, and networks exported with random tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from egoworld_ops import models
from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import BadSettings, BadSidecar, OutOfMemory, SetupError, WeightsMissing
from egoworld_ops.operators import depth_maps, extras
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth import given
from egoworld_ops.operators.object_pose import _foundationpose, _foundationpose_networks, _renderer
from egoworld_ops.operators.object_pose.foundationpose import Backend, Settings
from egoworld_ops.types import Camera, Frame
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from egoworld_ops.vision.geometry import make_transform, rotation_angle_deg
from tests.boxes import FPS, mask_row, pose_of
from tests.egoworld_ops.operators.clips import clip_input
from tests.egoworld_ops.operators.foundationpose_networks import export, of_names
from tests.egoworld_ops.operators.painted import CAMERA, Reading, draw, painted, thing
from tests.rows import sample_row

TRACK = 10
FISHEYE = Camera(150.0, 150.0, 159.0, 120.5, 320, 240, "file", "kannala_brandt", (0.02, -0.008, 0.003, -0.0006))


def pose(turn: Sequence[float], place_m: Sequence[float]) -> np.ndarray:
    return make_transform(Rotation.from_rotvec(turn).as_matrix(), np.array(place_m, float))


MOVING = [pose((0.3 + 0.05 * i, 1.0, -0.5 + 0.04 * i), (0.05 - 0.004 * i, -0.03, 0.45 + 0.003 * i)) for i in range(3)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures without light, for who reads colours; any turn at once, and eight of the 252 first rotations."""
    monkeypatch.setattr(_renderer, "AMBIENT", 1.0)
    monkeypatch.setattr(_renderer, "DIFFUSE", 0.0)
    monkeypatch.setattr(_foundationpose, "MAX_TURN_RAD", 3.2)
    whole = _foundationpose.first_rotations
    monkeypatch.setattr(_foundationpose, "first_rotations", lambda symmetry: whole(symmetry)[::32])
    return


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backend]:
    """A backend whose networks read pixels."""
    monkeypatch.setattr(models, "path", Path)
    monkeypatch.setattr(_foundationpose_networks, "Published", lambda *_, **__: Reading(painted()))
    return lambda **options: Backend(Settings(**{"device": "cpu", "register_rounds": 2, **options}), threads=1)


def clip(
    folder: Path,
    poses: Sequence[np.ndarray | None],
    camera: Camera = CAMERA,
    depth_unit: float = 1.0,
    mesh: trimesh.Trimesh | None = None,
    label: str = "thing",
) -> ClipInput:
    """Frames of the thing at its poses, with true masks and depth; where there is no pose, it is not there and has no mask."""
    (mesh or thing()).export(folder / "thing.ply")
    sidecar = Sidecar(objects=(SidecarObject(label="thing", mesh="thing.ply"),))
    map_camera = depth_maps.map_camera(camera, 320)
    frames, masks, depths = [], [], []
    for i, T in enumerate(poses):
        scene = draw(T, camera)
        frames.append(Frame(i, i / FPS, scene.rgb))
        masks += [mask_row(i, TRACK, "object", scene.mask, label)] if T is not None else []
        z_m = (scene if camera.is_pinhole else draw(T, map_camera)).depth_m * depth_unit
        held = depth_maps.columns(np.where(z_m > 0, z_m, np.nan), map_camera, 1e-4 * depth_unit)
        depths.append(sample_row("depth", i, **held))
    item = clip_input(folder / "v.mp4", 0, len(poses), camera.width, camera.height, lambda: iter(frames))
    tables = {"masks": schema.from_rows("masks", masks) if masks else schema.empty("masks"), "hand_pose": schema.empty("hand_pose")}
    return replace(item, camera=camera, sidecar=sidecar, tables=tables | {"depth": schema.from_rows("depth", depths)})


def run(operator: Backend, item: ClipInput) -> list[dict[str, Any]]:
    table = operator.run(item)
    validation.validate("object_pose", table)
    return table.to_pylist()


def errors(rows: Sequence[dict[str, Any]], poses: Sequence[np.ndarray | None]) -> tuple[float, float]:
    """The largest angle, degrees, and distance, mm, of the rows that have poses."""
    pairs = [(found, poses[row["frame_index"]]) for row in rows if (found := pose_of(row)) is not None]
    assert pairs
    angles = [rotation_angle_deg(found[:3, :3], T[:3, :3]) for found, T in pairs if T is not None]
    return max(angles), max(1e3 * float(np.linalg.norm(found[:3, 3] - T[:3, 3])) for found, T in pairs if T is not None)


def test_a_thing_is_registered_followed_and_found_again_where_it_returns(make: Callable[..., Backend], tmp_path: Path) -> None:
    """It is away for two frames and comes back elsewhere, turned round."""
    poses = [*MOVING, None, None, pose((0.3, -1.5, 2.0), (-0.06, 0.04, 0.5))]
    rows = run(make(), clip(tmp_path, poses))
    off_deg, off_mm = errors(rows, poses)
    print(f"FIGURE foundationpose clip: {[row['method'] for row in rows]}, off by at most {off_deg:.2f} degrees and {off_mm:.2f} mm")
    assert [row["method"] for row in rows] == ["registered", "tracked", "tracked", "reregistered"]
    assert [row["frame_index"] for row in rows] == [0, 1, 2, 5]
    assert all(row["converged"] and row["reason"] is None and row["mask_iou"] > 0.9 and row["scale_source"] == "mesh" for row in rows)
    assert {row["symmetry"] for row in rows} == {"none"}
    assert off_deg < 0.5
    assert off_mm < 0.7


def test_through_a_lens_it_is_where_it_is(make: Callable[..., Backend], tmp_path: Path) -> None:
    poses = [pose((0.3, 1.0, -0.5), (0.24, -0.16, 0.3))]
    rows = run(make(), clip(tmp_path, poses, FISHEYE))
    off_deg, off_mm = errors(rows, poses)
    print(f"FIGURE foundationpose fisheye: off by {off_deg:.2f} degrees and {off_mm:.2f} mm at 45 degrees from the axis")
    assert rows[0]["converged"]
    assert rows[0]["lens_model"] == "kannala_brandt"
    assert off_deg < 1.0
    assert off_mm < 1.5


def test_what_mask_and_depth_contradict_is_lost_and_looked_for_again(make: Callable[..., Backend], tmp_path: Path) -> None:
    """In frame 1 the mask lies on the wall; the refiner stays on the thing, and would say nothing."""
    poses = [MOVING[0]] * 4
    item = clip(tmp_path, poses)
    astray = np.zeros((CAMERA.height, CAMERA.width), bool)
    astray[150:185, 30:65] = True
    rows = item.tables["masks"].to_pylist()
    rows[1] |= mask_row(1, TRACK, "object", astray, "thing")
    item = replace(item, tables={**item.tables, "masks": schema.from_rows("masks", rows)})
    found = run(make(retry_s=0.05), item)
    assert [row["method"] for row in found] == ["registered", None, None, "reregistered"]
    assert [row["reason_class"] for row in found] == [None, "lost", "lost", None]
    assert "rendered pose and mask overlap by" in found[1]["reason"]
    assert "it is looked for every 0.05 s only" in found[2]["reason"]
    assert not found[1]["converged"]
    assert pose_of(found[1]) is None


def test_without_depth_it_says_what_it_needs_and_looks_at_nothing(make: Callable[..., Backend], tmp_path: Path) -> None:
    item = clip(tmp_path, MOVING)

    def not_asked() -> Iterator[Frame]:
        raise AssertionError("frames are of no use without depth")

    bare = replace(item, tables={**item.tables, "depth": schema.empty("depth")}, open_frames=not_asked)
    operator = make()
    assert not operator.reads_frames(bare.tables)
    mesh = (tmp_path / "thing.ply").rename(tmp_path / "away")
    rows = run(operator, bare)
    assert [row["reason_class"] for row in rows] == ["no_depth"] * 3
    mesh.rename(tmp_path / "thing.ply")
    gap = replace(item, tables={**item.tables, "depth": item.tables["depth"].filter(pa.array([True, False, True]))})
    assert [row["reason_class"] for row in run(operator, gap)] == [None, "no_depth", None]


@pytest.mark.parametrize("wrong", [0.8, 0.9, 0.98, 1.02, 1.08, 1.3])
def test_a_pose_that_agrees_with_depth_of_another_scale_is_not_verified(wrong: float, make: Callable[..., Backend], tmp_path: Path) -> None:
    """The refiner reads poses from the depth: they agree with it, and are as far off. The outline does not."""
    item = clip(tmp_path, MOVING[:1])
    [held] = item.tables["depth"].to_pylist()
    depth = schema.from_rows("depth", [held | {"step_m": held["step_m"] * wrong}])
    [row] = run(make(min_mask_iou=0.5), replace(item, tables={**item.tables, "depth": depth}))
    assert row["z_m"] / MOVING[0][2, 3] == pytest.approx(wrong, abs=0.04)
    assert (row["converged"], row["reason_class"]) == ((True, None) if abs(wrong - 1) < 0.05 else (False, "wrong_scale"))
    assert row["converged"] or (row["score"] <= 0.5 and row["mask_iou"] > 0.5)


@pytest.mark.parametrize(("of_depth", "low"), [(0.02, 0.02), (0.1, 0.1), (None, None)])
def test_the_error_of_a_pose_is_that_of_the_depth_it_rests_on_and_is_not_made_up(
    of_depth: float | None, low: float | None, make: Callable[..., Backend], tmp_path: Path
) -> None:
    item = clip(tmp_path, MOVING[:1])
    [held] = item.tables["depth"].to_pylist()
    depth = schema.from_rows("depth", [held | {"depth_source": "network", "depth_error_share": of_depth}])
    [row] = run(make(), replace(item, tables={**item.tables, "depth": depth}))
    assert row["depth_error_share"] == (None if low is None else pytest.approx(low, abs=0.005))


def test_a_thing_half_out_of_the_picture_is_compared_with_what_is_seen_of_it(make: Callable[..., Backend], tmp_path: Path) -> None:
    poses = [pose((0.3, 1.0, -0.5), (x, -0.03, 0.45)) for x in (0.15, 0.19, 0.225)]
    rows = run(make(), clip(tmp_path, poses))
    print([(row["mask_iou"], row["method"], row["reason"]) for row in rows])
    assert all(row["converged"] and row["mask_iou"] > 0.85 for row in rows)


def test_a_thing_without_a_mesh_says_so(make: Callable[..., Backend], tmp_path: Path) -> None:
    rows = run(make(), clip(tmp_path, MOVING[:1], label="cup"))
    assert [(row["reason_class"], row["scale_source"]) for row in rows] == [("no_mesh", "none")]


@pytest.mark.parametrize(("depth_unit", "mesh_unit"), [(1000.0, 1.0), (1.0, 30.0)])
def test_units_that_contradict_each_other_are_named_before_it_starts(
    depth_unit: float, mesh_unit: float, make: Callable[..., Backend], tmp_path: Path
) -> None:
    """Depth in millimetres; a mesh of 2.6 m, which is no size that could not be held."""
    operator = make()
    rows = run(operator, clip(tmp_path, MOVING[:1], depth_unit=depth_unit, mesh=thing().copy().apply_scale(mesh_unit)))
    assert [row["reason_class"] for row in rows] == ["wrong_scale"]
    assert operator._networks.pairs == 0


def test_a_mesh_in_millimetres_is_named_with_its_cure(make: Callable[..., Backend], tmp_path: Path) -> None:
    with pytest.raises(BadSidecar, match=r"thing\.ply: the mesh is 84\.\d+ m long.*0\.08438.* if these are millimetres"):
        run(make(), clip(tmp_path, MOVING[:1], mesh=thing().copy().apply_scale(1000)))


def test_one_hypothesis_at_a_time_gives_what_many_give(make: Callable[..., Backend], tmp_path: Path) -> None:
    item = clip(tmp_path, MOVING[:2])
    alone, together = run(make(micro_batch=1), item), run(make(micro_batch=252), item)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(pose_of(one) - pose_of(other)).max() < 1e-9


def test_random_networks_never_verify_a_pose(tmp_path: Path) -> None:
    """Not even where every pose is let through."""
    item = clip(tmp_path, MOVING[:2])
    options: dict[str, Any] = {"device": "cpu", "random_weights_seed": 3, "register_rounds": 1}
    strict = run(Backend(Settings(**options), 1), item)
    lenient = run(Backend(Settings(**options, min_mask_iou=0, max_depth_off_share=1e9), 1), item)
    assert not any(row["converged"] for row in strict + lenient)
    assert {row["backend"] for row in strict + lenient} == {"foundationpose-random"}
    assert {row["reason_class"] for row in lenient} <= {"random_weights", "no_depth"}
    assert any(row["reason_class"] == "random_weights" and row["score"] <= 0.5 and row["qw"] is not None for row in lenient)
    assert {row["reason_class"] for row in strict} <= {"no_fit"}


def test_the_whole_way_runs_on_onnx_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Narrow networks of random tensors on a ball, which needs one hypothesis: the files are read, and the poses are refused by mask and depth."""
    for kind, name in (("refine", "foundationpose_refiner"), ("score", "foundationpose_score")):
        export(of_names(kind, 64), kind, "library", tmp_path / name)
    monkeypatch.setattr(models, "path", lambda name: tmp_path / name)
    item = clip(tmp_path, [pose((0, 0, 0), (0, 0, 0.4))], mesh=trimesh.creation.icosphere(3, 0.04))
    rows = run(Backend(Settings(device="cpu", min_mask_iou=0.95), 1), item)
    assert [row["backend"] for row in rows] == ["foundationpose"]
    assert [row["reason_class"] for row in rows] == ["no_fit"]


def test_weights_and_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match="egoworld models fetch foundationpose"):
        Backend(Settings(device="cpu"), 1)
    with pytest.raises(BadSettings, match=r"it is `cuda`, and onnxruntime .* here has no CUDA"):
        Backend(Settings(device="cuda", random_weights_seed=1), 1)
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "warp" else object())
    with pytest.raises(SetupError, match=r"object_pose\.foundationpose: it needs the package warp.*pip install egoworld\[foundationpose\]"):
        Backend(Settings(device="cpu", random_weights_seed=1), 1)


def test_memory_that_runs_out_is_an_error_worth_a_retry(
    make: Callable[..., Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the renderer that finds none."""

    def full(*_: Any) -> None:
        raise RuntimeError("Failed to allocate 77414400 bytes on device 'cuda:0'")

    monkeypatch.setattr(_renderer.Renderer, "__call__", full)
    with pytest.raises(OutOfMemory, match=r"clip c of .*Failed to allocate.*lower sizes in stages\.object_pose\.foundationpose"):
        run(make(), clip(tmp_path, MOVING[:1]))


class Round:
    """A refiner that knows that the thing is a ball, and finds its middle in the places that are seen: the ball has a radius of one unit."""

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shifts = [
            self._middle(b[..., 3:][(a[..., 3:] != 0).any(-1) & (b[..., 3:] != 0).any(-1)]) for a, b in zip(rendered, observed, strict=True)
        ]
        return np.array(shifts), np.zeros((len(shifts), 3))

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        return -np.abs(rendered - observed).mean((1, 2, 3))

    def _middle(self, points: np.ndarray) -> np.ndarray:
        middle = np.zeros(3)
        for near in (1.0, 0.5, 0.2, 0.1, 0.1):
            away = points - middle
            off = np.linalg.norm(away, axis=1) - 1
            on = np.abs(off) < near
            middle = middle + np.linalg.lstsq(away[on] / np.linalg.norm(away[on], axis=1)[:, None], off[on], rcond=None)[0]
        return middle


def test_a_real_ball_before_a_depth_camera_is_followed(
    make: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared_data: Path
) -> None:
    """A basketball, its masks and depth by a stereo camera that moves (nvidia-isaac/video_to_data): what is real passes the test of loss, and agrees.

    The ball's diameter is that of spheres fitted to its depth.
    """
    monkeypatch.setattr(_foundationpose_networks, "Published", lambda *_, **__: Round())
    data, radius_m, n = shared_data / "v2d_rgbd", 0.0965, 4
    (tmp_path / "depth").mkdir()
    for i in range(n):
        shutil.copy(data / f"depth_{3 * i:06d}.png", tmp_path / "depth")
    trimesh.creation.icosphere(4, radius_m).export(tmp_path / "ball.ply")
    camera = {"fx": 481.979, "fy": 481.170, "cx": 479.202, "cy": 292.254, "width": 960, "height": 600}
    objects, depth = [{"label": "ball", "mesh": "ball.ply"}], {"folder": "depth", "encoding": "inverse", "fps": 90.0, "error_share": 0.0}
    (tmp_path / "v.egoworld.json").write_text(json.dumps({"camera": camera, "objects": objects, "depth": depth}))
    pictures = [cv2.imread(str(data / f"left_{3 * i:06d}.png"))[..., ::-1] for i in range(n)]
    seen = [cv2.imread(str(data / f"masks_{3 * i:06d}.png"), cv2.IMREAD_GRAYSCALE) > 127 for i in range(n)]
    frames = [Frame(i, i / FPS, np.ascontiguousarray(rgb)) for i, rgb in enumerate(pictures)]
    item = clip_input(tmp_path / "v.mp4", 0, n, 960, 600, lambda: iter(frames))
    rows = [mask_row(i, TRACK, "object", mask, "ball") for i, mask in enumerate(seen)]
    tables = {"masks": schema.from_rows("masks", rows), "hand_pose": schema.empty("hand_pose")}
    item = replace(item, tables=tables)
    item = replace(item, tables=tables | {"depth": given.Backend(given.GivenSettings(), 1).run(item)})
    found = run(make(), item)
    off_mm = [1e3 * row["depth_error_share"] * row["z_m"] for row in found]
    print(
        f"FIGURE foundationpose real ball: {[row['method'] for row in found]}, overlap at least {min(row['mask_iou'] for row in found):.2f}, "
        f"depth off by at most {max(off_mm):.1f} mm"
    )
    assert {row["method"] for row in found[1:]} <= {"tracked", "reregistered"}  # between some pictures it moves by more than its radius
    assert all(row["converged"] and row["symmetry"] == "ball" for row in found)
    for row, mask in zip(found, seen, strict=True):
        held = depth_maps.DepthMaps(item.tables["depth"]).of(row["frame_index"])
        points = held.points_m()[cv2.resize(cv2.erode(mask.astype(np.uint8), np.ones((15, 15))), held.z_m.shape[::-1], interpolation=0) > 0]
        points = points[np.isfinite(points).all(1)]
        fit = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
        assert [row["x_m"], row["y_m"], row["z_m"]] == pytest.approx(fit[:3], abs=0.005)
