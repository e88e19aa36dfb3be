"""Points from corners seen by a camera whose poses are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert
from egoworld_ops.vision.tracks import Sight


@dataclass(frozen=True, slots=True)
class Triangulated:
    """A point (3,) of the world, in how many frames it was used, its largest error in them (px), and the widest angle between two rays to it."""

    position: np.ndarray
    seen: int
    error_px: float
    angle_deg: float


def triangulate_all(
    camera: Camera, sights: Sequence[Sight], T_world_camera: Mapping[int, np.ndarray], least_seen: int
) -> dict[int, Triangulated]:
    """Each corner that at least so many of the posed frames see, by its number; those that would lie behind a camera are left out.

    Args:
        T_world_camera: (4, 4), by frame; sights of other frames are passed over.
    """
    seen: dict[int, list[tuple[int, np.ndarray]]] = {}
    for sight in sights:
        if sight.frame_index in T_world_camera:
            for number, px in zip(sight.ids.tolist(), sight.px, strict=True):
                seen.setdefault(number, []).append((sight.frame_index, px))
    to_camera = {frame: invert(T) for frame, T in T_world_camera.items()}
    found = {}
    for number, where in seen.items():
        if len(where) >= least_seen:
            made = triangulate(camera, np.stack([to_camera[frame] for frame, _ in where]), np.stack([px for _, px in where]))
            if made is not None:
                found[number] = made
    return found


def triangulate(camera: Camera, T_camera_world: np.ndarray, px: np.ndarray) -> Triangulated | None:
    """The point nearest to its pixels (N, 2) in N >= 2 views (N, 4, 4); None where it would lie behind one of them.

    Linear (Hartley and Zisserman, "Multiple View Geometry", 12.2), then two steps of Gauss and Newton on the error in the picture.
    """
    plane = np.stack([(px[:, 0] - camera.cx_px) / camera.fx_px, (px[:, 1] - camera.cy_px) / camera.fy_px], 1)
    rows = plane[:, :, None] * T_camera_world[:, 2:3] - T_camera_world[:, :2]
    point = np.linalg.svd(rows.reshape(-1, 4), full_matrices=False)[2][-1]
    if abs(point[3]) < _FAR * np.linalg.norm(point[:3]):
        return None
    position = point[:3] / point[3]
    R, t = T_camera_world[:, :3, :3], T_camera_world[:, :3, 3]
    for _ in range(2):
        local = R @ position + t
        if (local[:, 2] <= 0).any():
            return None
        z = local[:, 2:]
        left = (plane - local[:, :2] / z).ravel()
        J = ((R[:, :2] - (local[:, :2] / z)[:, :, None] * R[:, 2:]) / z[:, :, None]).reshape(-1, 3)
        position = position + np.linalg.lstsq(J, left, rcond=None)[0]
    local = R @ position + t
    if (local[:, 2] <= 0).any():
        return None
    error = np.linalg.norm((plane - local[:, :2] / local[:, 2:]) * [camera.fx_px, camera.fy_px], axis=1)
    rays = position + np.einsum("nji,nj->ni", R, t)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    angle = float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))
    return Triangulated(position, len(px), float(error.max()), angle)


_FAR = 1e-4
"""A point farther than 10,000 units is as good as at infinity."""
