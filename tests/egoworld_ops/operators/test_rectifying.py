"""Objects seen through a wide lens, far from its axis: drawn boxes with known poses, as exact as those that a pinhole camera sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import ContractError
from egoworld_ops.operators import rectifying
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.object_pose._shapes import cuboid
from egoworld_ops.operators.rows import camera_of, intrinsics, pose_columns
from egoworld_ops.types import Camera, Frame
from egoworld_ops.video.sidecar import SidecarObject
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import invert, make_transform, project, quaternion_from_matrix, transform
from egoworld_ops.vision.lenses import unproject
from tests.boxes import FPS, SIZE_M, clip_of, faces, mask_row, pose, pose_of, texture_of
from tests.real_chain import pose_errors
from tests.rows import PER_FRAME, sample_row

LENS = Camera(260.0, 260.0, 299.5, 199.5, 600, 400, "file", "kannala_brandt", (0.02, -0.008, 0.003, -0.0006))
RAYS = unproject(LENS, np.stack(np.meshgrid(np.arange(600.0), np.arange(400.0)), -1))
BOX = SidecarObject(label="box", dimensions_m=SIZE_M)
ASIDE = make_transform(cv2.Rodrigues(np.radians([12.0, 36.0, 0.0]))[0], np.zeros(3))
"""Turns what lies ahead to 38 degrees beside the axis."""
WALL = ASIDE @ pose(0, 0, 0, (0, 0, 0.9))


def plane(texture: np.ndarray, corners_m: np.ndarray, T_camera_plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each ray of the lens meets of a textured rectangle: colours (H, W, 3) and (H, W) bool where it does.

    A ray is origin + x across + y down, up to its length: near times (origin, x across, y down).
    """
    origin, a, b = (transform(T_camera_plane, corner) for corner in (corners_m[0], corners_m[1], corners_m[3]))
    across, down = a - origin, b - origin
    a, b, near = np.moveaxis(RAYS @ np.linalg.inv(np.stack([across, down, origin], 1)).T, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = a / near, b / near
    met = (near > 0) & (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    height, width = texture.shape[:2]
    at = [np.where(met, w, -1).astype(np.float32) for w in (x * (width - 1), y * (height - 1))]
    return cv2.remap(texture, *at, cv2.INTER_LINEAR), met


def draw(T_camera_object: np.ndarray, T_camera_wall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture and the box's mask; the wall and the box's textures are those of `tests.boxes`."""
    wall = np.array([[-1.2, -1.0, 0], [1.2, -1.0, 0], [1.2, 1.0, 0], [-1.2, 1.0, 0]]) * 2
    rgb, _ = plane(texture_of(99, 2400, 2000, 60, 200, 9), wall, T_camera_wall)
    mask = np.zeros(rgb.shape[:2], bool)
    for texture, corners in faces(T_camera_object):
        face, met = plane(texture, corners, T_camera_object)
        rgb[met] = face[met]
        mask |= met
    return rgb, mask


def seen(boxes: Sequence[np.ndarray], walls: Sequence[np.ndarray], posed: bool = False) -> ClipInput:
    """A clip of the lens in which the box has these poses; with its true poses in `object_pose` if wanted."""
    drawn = [draw(T, wall) for T, wall in zip(boxes, walls, strict=True)]
    frames = [Frame(i, i / FPS, rgb) for i, (rgb, _) in enumerate(drawn)]
    item = clip_of([None], [pose(0, 0, 0, (0, 0, 0.9))], [BOX])
    n = len(boxes)
    clip = replace(item.clip, frame_end=n, own_end=n, end_s=n / FPS, width=LENS.width, height=LENS.height)
    masks = schema.from_rows("masks", [mask_row(i, 10, "object", mask) for i, (_, mask) in enumerate(drawn)])
    tables = {"masks": masks, "hand_pose": schema.empty("hand_pose"), "camera": schema.empty("camera")}
    if posed:
        tables["object_pose"] = schema.from_rows("object_pose", [pose_row(i, T) for i, T in enumerate(boxes)])
    return replace(item, clip=clip, camera=LENS, tables=tables, open_frames=lambda: iter(frames))


def pose_row(frame_index: int, T: np.ndarray) -> dict[str, Any]:
    about = {"frame_index": frame_index, "timestamp_s": frame_index / FPS, "track_id": 10, "label": "box", "dimensions_m": SIZE_M}
    about |= {"scale_source": "dimensions", "converged": True, "observed": True}
    place = dict(zip(("qw", "qx", "qy", "qz", "x_m", "y_m", "z_m"), (*quaternion_from_matrix(T[:3, :3]), *T[:3, 3]), strict=True))
    return PER_FRAME | intrinsics(LENS) | about | place


def run(stage: str, item: ClipInput) -> list[dict[str, Any]]:
    backend = operators.load(stage, "classical")
    table = backend(backend.Settings(), 1).run(item)
    validation.validate(stage, table)
    return table.to_pylist()


def test_a_box_far_from_the_axis_has_its_pose_in_the_frame_of_the_lens() -> None:
    """As `test_object_pose.test_a_turning_box_is_followed`, which a pinhole camera sees straight ahead: the same errors."""
    truth = [ASIDE @ pose(25 + 1.6 * i, -40 + 0.5 * i, 20 + 0.4 * i, (-0.03 + 0.002 * i, 0.01, 0.45 + 0.001 * i)) for i in range(8)]
    rows = run("object_pose", seen(truth, [WALL] * 8))
    angles, shifts = pose_errors(rows, dict(enumerate(truth)), cuboid(SIZE_M).symmetry.turns)
    assert len(angles) == 8
    assert np.median(angles) < 2
    assert np.median(shifts) < 2
    assert {camera_of(r) for r in rows} == {replace(LENS, width=1, height=1)}
    assert all(r["converged"] and r["reprojection_px"] < 1 for r in rows)


def test_a_velocity_is_that_in_the_frame_of_the_lens() -> None:
    still, velocity = ASIDE @ pose(25, -40, 20, (0.0, 0.02, 0.6)), np.array([0.12, -0.05, 0.08])
    boxes = [make_transform(still[:3, :3], still[:3, 3] + velocity * i / FPS) for i in range(8)]
    for row in run("movement", seen(boxes, [WALL] * 8, posed=True)):
        assert [row["vx_m_s"], row["vy_m_s"], row["vz_m_s"]] == pytest.approx(velocity, abs=1e-6)
        assert row["speed_background_m_s"] == pytest.approx(np.linalg.norm(velocity), rel=0.1)
        assert row["state"] == "moving"


def test_a_turning_lens_does_not_move_a_still_box() -> None:
    """The camera slides and turns, the box rests: a homography describes that only in a rectified view."""
    box, boxes, walls = ASIDE @ pose(25, -40, 20, (0.0, 0.02, 0.6)), [], []
    for i in range(8):
        T_camera_start = make_transform(
            cv2.Rodrigues(np.radians(3.0) * i / FPS * np.array([0.2, 1.0, 0.1]))[0], np.array([0.06 * i / FPS, 0, 0])
        )
        boxes.append(T_camera_start @ box)
        walls.append(T_camera_start @ WALL)
    rows = run("movement", seen(boxes, walls, posed=True))
    assert {r["state"] for r in rows} == {"still"}
    assert max(r["speed_background_m_s"] for r in rows) < 0.04


def test_an_object_that_no_view_holds_has_a_row_that_says_why() -> None:
    wide = replace(LENS, fx_px=160.0, fy_px=160.0, distortion=(0.0, 0.0, 0.0, 0.0))
    item, masks = seen([ASIDE @ pose(25, -40, 20, (0.0, 0.02, 0.6))] * 3, [WALL] * 3), []
    for i, angle in enumerate((-85, 0, 85)):
        u, v = project(wide, np.array([np.sin(np.radians(angle)), 0.0, np.cos(np.radians(angle))])).round().astype(int)
        mask = np.zeros((LENS.height, LENS.width), bool)
        mask[v - 8 : v + 9, u - 8 : u + 9] = True
        masks.append(mask_row(i, 10, "object", mask))
    rows = run("object_pose", replace(item, camera=wide, tables=dict(item.tables) | {"masks": schema.from_rows("masks", masks)}))
    assert [r["frame_index"] for r in rows] == [0, 1, 2]
    assert [r["reason_class"] for r in (rows[0], rows[2])] == ["off_lens"] * 2
    assert [r["x_m"] for r in (rows[0], rows[2])] == [None] * 2


def test_the_poses_of_the_camera_are_those_of_the_view_that_is_turned_against_it() -> None:
    """The lens walks and turns before a wall far behind the box: only the camera's path tells that the box rests."""
    box, wall = ASIDE @ pose(25, -40, 20, (0.0, 0.02, 0.6)), ASIDE @ pose(0, 0, 0, (0, 0, 1.5))
    path = [pose(-2.0 * i, 3.0 * i, 0, (0.012 * i, 0.004 * i, 0)) for i in range(8)]
    item = seen([invert(T) @ box for T in path], [invert(T) @ wall for T in path], posed=True)
    cameras = [sample_row("camera", i) | {"scale_error_share": None} | pose_columns(T[:3, :3], T[:3, 3]) for i, T in enumerate(path)]
    objects = [row | {"depth_error_share": 0.02} for row in item.tables["object_pose"].to_pylist()]
    tables = {"camera": schema.from_rows("camera", cameras), "object_pose": schema.from_rows("object_pose", objects)}
    rows = run("movement", replace(item, tables={**item.tables, **tables}))
    assert {(r["state"], r["background_source"]) for r in rows} == {("still", "camera")}
    assert max(r["speed_background_m_s"] for r in rows) < 1e-6


def outline(directions_deg: Sequence[tuple[int, float]]) -> ClipInput:
    """A clip of one frame with small objects (track, degrees beside the axis), masks alone."""
    rows = []
    for track_id, angle in directions_deg:
        u, v = project(LENS, np.array([np.sin(np.radians(angle)), 0.0, np.cos(np.radians(angle))])).round().astype(int)
        mask = np.zeros((LENS.height, LENS.width), bool)
        mask[v - 8 : v + 9, max(u - 8, 0) : u + 9] = True
        rows.append(mask_row(0, track_id, "object", mask))
    item = seen([ASIDE @ pose(25, -40, 20, (0.0, 0.02, 0.6))], [WALL])
    return replace(item, tables=dict(item.tables) | {"masks": schema.from_rows("masks", rows)})


def test_near_objects_share_a_view_and_far_ones_do_not() -> None:
    views = []

    def look(item: ClipInput) -> pa.Table:
        views.append(item)
        return schema.empty("movement")

    rectifying.run_rectified("movement", outline([(10, -20), (11, 25)]), look)
    assert len(views) == 1
    rectifying.run_rectified("movement", outline([(10, -60), (11, 60), (12, 45)]), look)
    near, *apart = views
    assert len(apart) == 2
    for view in views:
        [frame] = list(view.frames())
        assert view.camera.is_pinhole
        assert view.unseen is not None
        assert frame.rgb.shape[:2] == view.unseen.shape == (view.clip.height, view.clip.width)
        assert not frame.rgb[view.unseen].astype(int).sum() > 60 * view.unseen.sum()
    areas = {row["track_id"]: row["area_px"] for row in near.tables["masks"].to_pylist()}
    assert min(areas.values()) > 200
    assert apart[0].unseen.any(), "the lens ends beside an object at 60 degrees"


def test_a_mask_is_where_the_view_projects_its_object() -> None:
    box = ASIDE @ pose(25, -40, 20, (0.0, 0.02, 0.6))
    found: list[ClipInput] = []

    def look(item: ClipInput) -> pa.Table:
        found.append(item)
        return schema.empty("movement")

    rectifying.run_rectified("movement", seen([box], [WALL], posed=True), look)
    [view] = found
    [row], [posed] = view.tables["masks"].to_pylist(), view.tables["object_pose"].to_pylist()
    T_view_object = pose_of(posed)
    assert T_view_object is not None
    hull = cv2.convexHull(project(view.camera, transform(T_view_object, cuboid(SIZE_M).vertices_m)).astype(np.float32))
    want = np.zeros((view.clip.height, view.clip.width), np.uint8)
    cv2.fillConvexPoly(want, hull.round().astype(np.int32), 1)
    mask = rle.decode(row["rle"])
    assert (mask & want.astype(bool)).sum() / (mask | want.astype(bool)).sum() > 0.97
    assert row["area_px"] == mask.sum()


def test_a_pinhole_camera_s_clip_is_handed_over_as_it_is() -> None:
    item = clip_of([None], [pose(0, 0, 0, (0, 0, 0.9))], [BOX])
    got: list[ClipInput] = []

    def look(given: ClipInput) -> pa.Table:
        got.append(given)
        return schema.empty("movement")

    rectifying.run_rectified("movement", item, look)
    assert got[0] is item


def test_depth_maps_are_turned_only_for_those_who_ask() -> None:
    mask = np.zeros((LENS.height, LENS.width), bool)
    mask[150:250, 420:520] = True
    item = clip_of([None], [pose(0, 0, 0, (0, 0, 0.9))], [BOX])
    broken = schema.from_rows("depth", [sample_row("depth", 0, counts=b"no map")])
    tables = {"masks": schema.from_rows("masks", [mask_row(0, 10, "object", mask)]), "depth": broken}
    clip = replace(item.clip, frame_end=1, own_end=1, width=LENS.width, height=LENS.height)
    asked = []

    def run(view: ClipInput) -> pa.Table:
        assert view.tables["masks"] is view.tables["masks"]
        assert set(view.tables) == {"masks", "depth"}
        with pytest.raises(ContractError, match="no zstd"):
            asked.append(view.tables["depth"])
        return schema.empty("object_pose")

    assert rectifying.run_rectified("object_pose", replace(item, clip=clip, camera=LENS, tables=tables), run).num_rows == 0
    assert asked == []
