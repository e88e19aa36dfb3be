"""Object poses against known motion: drawn boxes, and the rendered scene through the real chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import trimesh
from scipy.spatial import ConvexHull

from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import BadSidecar
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth_maps import columns
from egoworld_ops.operators.object_pose import classical
from egoworld_ops.operators.object_pose._points import fit_points, sample_points
from egoworld_ops.operators.object_pose._shapes import cuboid, read_mesh
from egoworld_ops.operators.object_pose._solve import Estimate
from egoworld_ops.operators.object_pose._structure import Measured
from egoworld_ops.operators.object_pose._tracking import MAX_POINTS, Follower, Track
from egoworld_ops.operators.object_pose._view import lift
from egoworld_ops.operators.object_pose.classical import Backend, described
from egoworld_ops.types import Frame
from egoworld_ops.video.sidecar import Prompt, Sidecar, SidecarObject
from egoworld_ops.vision.geometry import project, rotation_angle_deg, transform
from tests.boxes import CAMERA, SIZE_M, clip_of, mask_row, pose, pose_of
from tests.kitchen import SHOTS, shot_input
from tests.real_chain import Kitchen, pose_errors, true_objects
from tests.rows import hand_pose_row, sample_row
from tests.shapes import Shot, thing
from tests.shapes import clip_of as things_clip

BOX = SidecarObject(label="box", dimensions_m=SIZE_M)
BARE = SidecarObject(label="box")
WALL = pose(0, 0, 0, (0, 0, 0.9))


def run(item: ClipInput) -> pa.Table:
    table = Backend(Backend.Settings(), 1).run(item)
    validation.validate("object_pose", table)
    return table


def turning(n: int) -> list[np.ndarray]:
    return [pose(25 + 1.6 * i, -40 + 0.5 * i, 20 + 0.4 * i, (-0.03 + 0.002 * i, 0.01, 0.45 + 0.001 * i)) for i in range(n)]


# --- parts ---------------------------------------------------------------------------------------------------------------------------------


def test_pose_of_noisy_points_is_found() -> None:
    rng = np.random.default_rng(0)
    T = pose(30, -35, 10, (0.02, -0.01, 0.5))
    _, places = lift(CAMERA, cuboid(SIZE_M), T, rng.uniform((110, 80), (220, 160), (200, 2)))
    face, _ = lift(CAMERA, cuboid(SIZE_M), T, project(CAMERA, transform(T, places)))
    places = places[face >= 0]
    pixels = project(CAMERA, transform(T, places)) + rng.normal(0, 0.5, (len(places), 2))
    pixels[::5] += rng.uniform(-40, 40, pixels[::5].shape)
    found = sample_points(CAMERA, places, pixels)
    assert found is not None
    assert rotation_angle_deg(found.T_camera_object[:3, :3], T[:3, :3]) < 1.5
    assert np.linalg.norm(found.T_camera_object[:3, 3] - T[:3, 3]) < 0.005
    near = fit_points(CAMERA, places, pixels, pose(38, -30, 4, (0.0, 0.0, 0.53)))
    assert near is not None
    assert rotation_angle_deg(near.T_camera_object[:3, :3], found.T_camera_object[:3, :3]) < 0.1


@pytest.mark.parametrize(("size", "count"), [((0.16, 0.11, 0.06), 4), ((0.1, 0.1, 0.06), 8), ((0.1, 0.1, 0.1), 24)])
def test_symmetries_of_a_box_map_it_onto_itself(size: tuple[float, float, float], count: int) -> None:
    shape = cuboid(size)
    assert len(shape.symmetry.turns) == count
    assert np.allclose(shape.symmetry.turns[0], np.eye(3))
    corners = {tuple(c) for c in shape.vertices_m.round(6)}
    for turn in shape.symmetry.turns:
        assert np.linalg.det(turn) == pytest.approx(1)
        assert {tuple(c + 0.0) for c in (shape.vertices_m @ turn.T).round(6)} == corners


def test_lifted_points_lie_on_the_surface_and_project_back() -> None:
    T, shape = pose(25, -40, 20, (0, 0, 0.4)), cuboid(SIZE_M)
    pixels = np.random.default_rng(1).uniform((0, 0), (320, 240), (400, 2))
    face, places = lift(CAMERA, shape, T, pixels)
    assert 20 < (face >= 0).sum() < 400
    assert np.allclose(project(CAMERA, transform(T, places[face >= 0])), pixels[face >= 0], atol=1e-6)
    assert np.allclose(np.abs(places[face >= 0] / np.array(SIZE_M) * 2).max(1), 1)


def test_a_mesh_of_a_box_is_that_box(tmp_path: Path) -> None:
    trimesh.creation.box(SIZE_M).export(tmp_path / "box.ply")
    shape = read_mesh(tmp_path / "box.ply")
    assert shape.dimensions_m == pytest.approx(SIZE_M)
    assert shape.convex
    assert len(shape.flat_faces) == 6


def test_a_fine_mesh_is_made_coarser_but_keeps_its_size(tmp_path: Path) -> None:
    trimesh.creation.icosphere(5, 0.05).export(tmp_path / "ball.ply")
    shape = read_mesh(tmp_path / "ball.ply")
    assert len(shape.triangles) <= 600
    assert shape.dimensions_m == pytest.approx([0.1] * 3, rel=1e-6)


@pytest.mark.parametrize(
    "fine",
    [
        trimesh.creation.icosphere(4, 0.0965),
        trimesh.creation.capsule(0.2, 0.03, (48, 48)),
        trimesh.creation.annulus(0.03, 0.05, 0.09, 400),
        trimesh.creation.torus(0.05, 0.015, 64, 64),
    ],
    ids=["ball", "capsule", "ring", "torus"],
)
def test_a_coarser_mesh_has_as_large_an_outline(tmp_path: Path, fine: trimesh.Trimesh) -> None:
    """Else every pose that fits the outline is nearer than the thing: 1.4 % of a ball's distance."""
    fine.apply_translation([0.1, -0.2, 0.3])
    fine.export(tmp_path / "thing.ply")
    shape = read_mesh(tmp_path / "thing.ply")
    assert len(fine.faces) > 600 >= len(shape.triangles)
    views = np.linalg.qr(np.random.default_rng(3).normal(size=(40, 3, 3)))[0]
    seen, true = (np.mean([ConvexHull((points @ R)[:, :2]).volume for R in views]) for points in (shape.vertices_m, fine.vertices))
    assert np.sqrt(seen / true) == pytest.approx(1, abs=0.003)
    assert shape.centre_m == pytest.approx(fine.bounds.mean(0), abs=0.001)


def test_a_mesh_without_a_surface_is_refused(tmp_path: Path) -> None:
    (tmp_path / "box.ply").write_text("no mesh")
    with pytest.raises(BadSidecar, match=r"box\.ply"):
        read_mesh(tmp_path / "box.ply")


@pytest.mark.parametrize("scale", [1000, 100, 0.001])
def test_a_mesh_in_another_unit_than_metres_is_refused(tmp_path: Path, scale: float) -> None:
    trimesh.creation.box([side * scale for side in SIZE_M]).export(tmp_path / "box.stl")
    with pytest.raises(BadSidecar, match=r"box\.stl: the mesh is .* m long.*metres"):
        read_mesh(tmp_path / "box.stl")


# --- drawn boxes ---------------------------------------------------------------------------------------------------------------------------


def test_a_turning_box_is_followed() -> None:
    truth = turning(24)
    rows = run(clip_of(truth, [WALL] * 24, [BOX])).to_pylist()
    angles, shifts = pose_errors(rows, dict(enumerate(truth)), cuboid(SIZE_M).symmetry.turns)
    assert len(angles) == 24
    assert np.median(angles) < 2
    assert np.median(shifts) < 2
    assert {r["scale_source"] for r in rows} == {"dimensions"}
    assert sum(r["method"] == "registered" for r in rows) == 1
    assert all(r["converged"] and r["intrinsics_source"] == "file" for r in rows)
    assert all(0.02 <= r["depth_error_share"] < 0.04 for r in rows), (
        "a size from a ruler is not exact, and so no depth is that follows from it"
    )


def test_a_mesh_gives_its_own_frame(tmp_path: Path) -> None:
    trimesh.creation.box(SIZE_M).export(tmp_path / "box.ply")
    truth = turning(10)
    rows = run(clip_of(truth, [WALL] * 10, [SidecarObject(label="box", mesh="box.ply")], tmp_path)).to_pylist()
    angles, shifts = pose_errors(rows, dict(enumerate(truth)), cuboid(SIZE_M).symmetry.turns)
    assert {r["scale_source"] for r in rows} == {"mesh"}
    assert np.median(angles) < 3
    assert np.median(shifts) < 3


def test_a_lost_box_is_found_again_elsewhere_in_the_same_frame_of_its_own() -> None:
    first = turning(12)
    again = [pose(35 + i, -35, 50, (0.06, -0.04, 0.5)) for i in range(8)]
    truth = [*first, *[None] * 5, *again]
    rows = run(clip_of(truth, [WALL] * len(truth), [BOX])).to_pylist()
    assert [r["frame_index"] for r in rows] == [*range(12), *range(17, 25)]
    known = {i: T for i, T in enumerate(truth) if T is not None}
    angles, shifts = pose_errors(rows, known, cuboid(SIZE_M).symmetry.turns)
    assert len(angles) == len(rows)
    assert np.median(angles[12:]) < 3
    assert np.median(shifts[12:]) < 3
    assert {r["method"] for r in rows[12:]} >= {"reregistered"} or {r["method"] for r in rows[:12]} >= {"reregistered"}


PROMPTED = BOX.model_copy(update={"prompts": (Prompt(frame_index=500, box_px=(1, 1, 9, 9)),)})
OTHER = SidecarObject(label="other", dimensions_m=SIZE_M)


@pytest.mark.parametrize(
    ("objects", "labels", "matched"),
    [
        ([BOX], {10: "box"}, {10: BOX}),
        ([BOX, OTHER], {10: "box", 11: "other", 12: "unknown"}, {10: BOX, 11: OTHER}),
        ([PROMPTED], {10: "box"}, {10: PROMPTED}),
        ([BOX], {11: None}, {11: BOX}),
        ([BOX], {11: None, 12: None}, {}),
        ([BOX], {10: "box", 11: None}, {10: BOX}),
        ([PROMPTED], {11: None}, {}),
        ([BOX, OTHER], {12: None}, {}),
        ([], {10: None}, {}),
    ],
)
def test_an_unlabelled_track_is_the_sidecars_object_only_where_nothing_else_is_possible(
    objects: list[SidecarObject], labels: dict[int, str | None], matched: dict[int, SidecarObject]
) -> None:
    assert described(objects, labels) == matched


def test_a_second_unlabelled_track_is_given_no_size() -> None:
    item = clip_of(turning(8), [WALL] * 8, [BOX])
    rows = [row | {"label": None} for row in item.tables["masks"].to_pylist()]
    alone = run(replace(item, tables=dict(item.tables) | {"masks": schema.from_rows("masks", rows)}))
    assert set(alone["scale_source"].to_pylist()) == {"dimensions"}
    blob = np.zeros((CAMERA.height, CAMERA.width), bool)
    blob[:40, :40] = True
    rows += [mask_row(i, 11, "object", blob) | {"label": None} for i in range(8)]
    both = run(replace(item, tables=dict(item.tables) | {"masks": schema.from_rows("masks", rows)}))
    assert set(both["track_id"].to_pylist()) == {10, 11}
    assert set(both["scale_source"].to_pylist()) == {"none"}


def test_without_size_and_hand_there_is_no_pose_but_a_reason() -> None:
    rows = run(clip_of(turning(16), [WALL] * 16, [BARE])).to_pylist()
    assert {r["qw"] for r in rows} == {None}
    assert {r["scale_source"] for r in rows} == {"none"}
    assert not any(r["converged"] for r in rows)
    assert all("no size is given" in r["reason"] and r["reason_class"] == "no_size" for r in rows)


def test_without_size_the_holding_hand_gives_it() -> None:
    truth = turning(24)
    tips = np.array([[0, -0.055, -0.02], [0.03, 0.055, 0.01], [0, 0.055, 0.01], [-0.03, 0.055, 0.01], [-0.05, 0.055, 0.01]])
    rows = []
    for i, T in enumerate(truth):
        joints = np.tile(transform(T, np.array([0, -0.15, -0.05])), (21, 1))
        joints[[4, 8, 12, 16, 20]] = transform(T, tips)
        rows.append(hand_pose_row(i, joints_m=joints, joints_px=project(CAMERA, joints)))
    found = run(clip_of(truth, [WALL] * 24, [BARE], hand_pose=schema.from_rows("hand_pose", rows))).to_pylist()
    posed = [(T, truth[r["frame_index"]]) for r in found if (T := pose_of(r)) is not None]
    assert len(posed) >= 20
    assert {r["scale_source"] for r in found} == {"hand"}
    assert np.median([np.linalg.norm(T[:3, 3] - true[:3, 3]) / true[2, 3] for T, true in posed]) < 0.15
    turn = posed[0][0][:3, :3].T @ posed[0][1][:3, :3]
    assert np.median([rotation_angle_deg(T[:3, :3] @ turn, true[:3, :3]) for T, true in posed]) < 6


def test_without_size_depth_of_known_error_gives_it() -> None:
    truth = turning(14)
    item = clip_of(truth, [WALL] * 14, [BARE])

    def tables(error_share: float | None) -> dict[str, pa.Table]:
        every = {"depth_source": "network", "step_m": 0.0005, "depth_error_share": error_share}
        rows = [sample_row("depth", i) | columns(depth_of(T), CAMERA, 0.0005) | every for i, T in enumerate(truth)]
        return {**item.tables, "depth": schema.from_rows("depth", rows)}

    found = run(replace(item, tables=tables(0.02))).to_pylist()
    assert {r["scale_source"] for r in found} == {"depth"}
    posed = [(r, T, truth[r["frame_index"]]) for r in found if (T := pose_of(r)) is not None]
    assert len(posed) >= 12
    factor, *_ = np.linalg.lstsq(
        np.concatenate([np.c_[true[:3, 3], true[:3, :3]] for _, _, true in posed]), np.concatenate([T[:3, 3] for _, T, _ in posed])
    )[0]  # of the distance; the rest is where the middle of what was seen lies in the box
    assert factor == pytest.approx(1, abs=0.02)
    assert all(0.02 <= r["depth_error_share"] < 0.05 and not r["converged"] and "some 2 %" in r["reason"] for r, _, _ in posed)
    assert Measured.of(replace(item, tables=tables(None)), 0.2).depths is None


def depth_of(T_camera_object: np.ndarray) -> np.ndarray:
    """(H, W) float32 depth of the box; NaN beside it. A ray is within the box from where it has entered all of its slabs."""
    v, u = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack([(u - CAMERA.cx_px) / CAMERA.fx_px, (v - CAMERA.cy_px) / CAMERA.fy_px, np.ones(u.shape)], -1)
    at, along = -T_camera_object[:3, :3].T @ T_camera_object[:3, 3], rays @ T_camera_object[:3, :3]
    ends = np.stack([(side * np.array(SIZE_M) / 2 - at) / along for side in (-1, 1)])
    enter, leave = ends.min(0).max(-1), ends.max(0).min(-1)
    return np.where(enter < leave, enter, np.nan).astype(np.float32)


def test_the_grain_of_a_plain_surface_is_hardly_followed() -> None:
    rng, mask = np.random.default_rng(0), np.zeros((240, 320), bool)
    mask[60:200, 90:230] = True
    follower = Follower(Track(10, None, 1.0))
    for i in range(3):
        rgb = (120 + rng.normal(0, 2, (240, 320, 3))).astype(np.uint8)
        follower.see(Frame(i, i / 30, rgb), mask, np.zeros_like(mask), True)
    assert max(len(sighting.ids) for sighting in follower.track.sightings) < MAX_POINTS / 7


@pytest.mark.parametrize(("kind", "seed", "field_deg", "textured"), [("bowl", 61011, 75, True), ("can", 61060, 50, False)])
def test_things_that_turn_quickly_are_followed_frame_by_frame(
    kind: str, seed: int, field_deg: float, textured: bool, tmp_path: Path
) -> None:
    shot = Shot(kind, seed, 480, field_deg, textured, noisy=kind != "can", frames=12)
    item, truth = things_clip(shot, tmp_path)
    poses = {row["frame_index"]: pose_of(row) for row in run(item).to_pylist()}
    right = [
        T is not None and thing(kind).angle_deg(T[:3, :3], truth[i][:3, :3], box_too=False) < 10 and abs(T[2, 3] / truth[i][2, 3] - 1) < 0.1
        for i, T in poses.items()
    ]
    assert sum(right) >= 10


def test_no_masks_give_an_empty_typed_table() -> None:
    table = run(clip_of([None] * 3, [WALL] * 3, [BOX]))
    assert table.num_rows == 0
    assert table.schema.equals(schema.empty("object_pose").schema)


def test_the_same_input_gives_the_same_table() -> None:
    item = clip_of(turning(8), [WALL] * 8, [BOX])
    assert run(item).equals(run(item))


# --- the rendered scene through the real chain ---------------------------------------------------------------------------------------------


def test_kitchen_poses_keep_the_limits(kitchen_chain: Kitchen) -> None:
    truth = {i: r["T_camera_object"] for i, r in true_objects(kitchen_chain.mp4).items()}
    angles, shifts, masked = [], [], 0
    for tables in kitchen_chain.shots:
        rows = tables["object_pose"].to_pylist()
        turned, shifted = pose_errors(rows, truth, cuboid((0.16, 0.11, 0.06)).symmetry.turns)
        angles.append(turned)
        shifts.append(shifted)
        masked += len(rows)
    angle, shift = np.concatenate(angles), np.concatenate(shifts)
    tail = f"p95 {np.percentile(angle, 95):.2f} (limit 5.0), {len(angle)} of {masked} frames"
    print(f"FIGURE object rotation: median {np.median(angle):.2f} deg (limit 1.5), {tail}")
    print(f"FIGURE object translation: median {np.median(shift):.2f} % of depth, p95 {np.percentile(shift, 95):.2f} (limit 2.0)")
    assert len(angle) >= 0.95 * masked
    assert np.median(angle) <= 1.5
    assert np.percentile(angle, 95) <= 5
    assert np.percentile(shift, 95) <= 2


def test_kitchen_without_dimensions_takes_its_scale_from_the_hand(kitchen_chain: Kitchen) -> None:
    truth = {i: r["T_camera_object"] for i, r in true_objects(kitchen_chain.mp4).items()}
    bare = Sidecar(objects=(BARE,))
    errors, posed, masked = [], 0, 0
    for shot, made in zip(SHOTS, kitchen_chain.shots, strict=True):
        tables = {name: made[name] for name in ("masks", "hand_pose", "depth")}
        rows = run(replace(shot_input(kitchen_chain.mp4, shot, tables, bare))).to_pylist()
        found = [(T, truth[r["frame_index"]]) for r in rows if (T := pose_of(r)) is not None]
        posed, masked = posed + len(found), masked + len(rows)
        errors += [100 * np.linalg.norm(T[:3, 3] - true[:3, 3]) / true[2, 3] for T, true in found]
        assert all(r["scale_source"] in ("hand", "none") for r in rows)
        assert all(r["reason"] is not None and (r["qw"] is None or r["reason_class"] == "scale_uncertain") for r in rows)
        assert not any(r["converged"] for r in rows)
    share = f"{posed} of {masked} frames"
    middle = f"median {np.median(errors):.1f} % of depth, p95 {np.percentile(errors, 95):.1f}" if errors else "none"
    print(f"FIGURE object translation without dimensions, scale from the hand: {middle}, {share}")
    assert posed
    assert np.median(errors) <= 40


@pytest.mark.parametrize(("error_px", "refused"), [(2.0, None), (2.1, "no_fit"), (None, None)])
def test_a_large_error_of_points_speaks_against_a_pose(error_px: float | None, refused: str | None) -> None:
    reason = classical._misfit(Estimate(np.eye(4), "tracked", None if error_px is None else 40, error_px))
    assert (reason and reason.kind) == refused
