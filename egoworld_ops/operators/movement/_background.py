"""Where a thing at rest would be a moment later: what takes the camera's motion out of an object's.

Where the camera's poses in the world are known well enough, they say it, whatever is in the picture. Their scale, and the distance of the object,
have errors, and an error of a tenth lets what rests move at a tenth of the camera's speed. So a thing is said to move only as far as no scale
within the stated errors explains. Where there are no poses, the motion of the background in the picture says it, see `_flow`: that is right for
what lies near the plane that most of the background's points are on. What then seems to move may be nearer than that plane while the camera
walks, see `_walking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import cv2
import numpy as np
import pyarrow as pa

from egoworld_ops.operators.movement._flow import apply
from egoworld_ops.operators.rows import pose_of
from egoworld_ops.types import UNSTATED_ERROR_SHARE, Camera
from egoworld_ops.vision.geometry import invert, make_transform, project, transform

PROBES = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
"""Corners of a box of size 1."""
MIN_OBJECT_POINTS = 4
_PARTS = (0.0, -0.5, 0.5, -1.0, 1.0)
"""Of the standard error, by which a scale may be off."""
_COLUMNS = ("frame_index", "qw", "qx", "qy", "qz", "x_m", "y_m", "z_m", "scale_error_share")


@dataclass(frozen=True, slots=True)
class Thing:
    """An object before: `pose` is T_camera_object; `size_m` (3,) are the sides of its bounding cuboid."""

    pose: np.ndarray
    size_m: np.ndarray


class Background(Protocol):
    """The motion of all that rests, from one frame to another, as the camera sees it."""

    @property
    def source(self) -> str:
        """Column `background_source`."""
        ...

    def carried(self, thing: Thing) -> np.ndarray | None:
        """T_camera_object afterwards, if the object stayed in its place; None if that cannot be solved."""
        ...

    def carried_px(self, points_px: np.ndarray, thing: Thing | None, depth_m: float) -> np.ndarray:
        """Where points (N, 2) on an object would be afterwards, (N, 2) pixels; `depth_m` is about how far it is. NaN where that is not known."""
        ...


@dataclass(frozen=True, slots=True)
class InPicture:
    """By a homography (3, 3) of the picture."""

    source: ClassVar[str] = "picture"
    camera: Camera
    H: np.ndarray

    def carried(self, thing: Thing) -> np.ndarray | None:
        """As `Background.carried`: the pose whose corners are where the homography takes them."""
        probes = PROBES * thing.size_m
        moved = apply(self.H, project(self.camera, transform(thing.pose, probes)))
        if not np.isfinite(moved).all():
            return None
        rvec, tvec = cv2.Rodrigues(thing.pose[:3, :3])[0], thing.pose[:3, 3:].copy()
        rvec, tvec = cv2.solvePnPRefineLM(probes, moved, self.camera.K, None, rvec, tvec)
        return make_transform(cv2.Rodrigues(rvec)[0], tvec.ravel())

    def carried_px(self, points_px: np.ndarray, thing: Thing | None, depth_m: float) -> np.ndarray:
        """As `Background.carried_px`; depths do not matter."""
        return apply(self.H, points_px)


@dataclass(frozen=True, slots=True)
class InWorld:
    """By the motion of the camera: `T_after_before` (4, 4) maps its frame before to that afterwards."""

    camera: Camera
    T_after_before: np.ndarray
    source: str = "camera"

    def carried(self, thing: Thing) -> np.ndarray | None:
        """As `Background.carried`."""
        moved: np.ndarray = self.T_after_before @ thing.pose
        return moved

    def carried_px(self, points_px: np.ndarray, thing: Thing | None, depth_m: float) -> np.ndarray:
        """As `Background.carried_px`: points lie where their rays meet the object's cuboid, else at its depth."""
        depths_m = depths_on(self.camera, points_px, thing, depth_m)
        return project(self.camera, transform(self.T_after_before, sight(self.camera, points_px) * depths_m[:, None]))


def depths_on(camera: Camera, points_px: np.ndarray, thing: Thing | None, depth_m: float) -> np.ndarray:
    """Depths (N,) at which the rays through points (N, 2) on an object meet its cuboid; where there is none, or they miss it, about how far it is."""
    if thing is None:
        return np.full(len(points_px), depth_m)
    depths_m = _entries_m(sight(camera, points_px), thing)
    return np.where(np.isfinite(depths_m), depths_m, depth_m)


def sight(camera: Camera, points_px: np.ndarray) -> np.ndarray:
    """Rays (N, 3) of z = 1 through pixels (N, 2) of a pinhole camera."""
    x, y = (points_px - (camera.cx_px, camera.cy_px)).T / np.array([[camera.fx_px], [camera.fy_px]])
    return np.column_stack([x, y, np.ones(len(x))])


def _entries_m(rays: np.ndarray, thing: Thing) -> np.ndarray:
    """Depth (N,) at which rays (N, 3), of z = 1, enter the cuboid of a thing; NaN where they miss it. By slabs (Kay and Kajiya, 1986)."""
    T_object_camera = invert(thing.pose)
    origin, ways = T_object_camera[:3, 3], rays @ T_object_camera[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = (np.stack([-thing.size_m / 2, thing.size_m / 2])[:, None] - origin) / ways
    near, far = sides.min(0).max(1), sides.max(0).min(1)
    return np.where((near > 0) & (near <= far), near, np.nan)


@dataclass(frozen=True, slots=True)
class _Pose:
    T_world_camera: np.ndarray
    scale_error_share: float


class CameraPath:
    """The poses of table `camera` of a clip, by frame."""

    def __init__(self, camera: Camera, rows: pa.Table) -> None:
        self._camera = camera
        self._poses: Mapping[int, _Pose] = {
            row["frame_index"]: _Pose(T, UNSTATED_ERROR_SHARE if row["scale_error_share"] is None else row["scale_error_share"])
            for row in rows.select(list(_COLUMNS)).to_pylist()
            if row["x_m"] is not None and (T := pose_of(row)) is not None
        }

    def between(self, before: int, after: int, depth_error_share: float) -> Sequence[InWorld]:
        """The camera's motion between two frames as it is said, then at other scales within the errors of the path and of the distance of a thing.

        None where a pose is missing.
        """
        if before not in self._poses or after not in self._poses:
            return ()
        first, last = self._poses[before], self._poses[after]
        T = invert(last.T_world_camera) @ first.T_world_camera
        share = float(np.hypot(max(first.scale_error_share, last.scale_error_share), depth_error_share))
        return [InWorld(self._camera, make_transform(T[:3, :3], T[:3, 3] * (1 + share * part))) for part in _PARTS]


def shift_px(background: Background, was_px: np.ndarray, now_px: np.ndarray, thing: Thing | None, depth_m: float) -> float | None:
    """How far an object's points (N, 2) went from where they would be at rest (N, 2), median in pixels; None where there are too few."""
    if len(now_px) < MIN_OBJECT_POINTS:
        return None
    shift = float(np.median(np.linalg.norm(now_px - background.carried_px(was_px, thing, depth_m), axis=1)))
    return shift if np.isfinite(shift) else None
