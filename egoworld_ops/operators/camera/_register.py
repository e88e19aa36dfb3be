"""The pose of one frame from points of the world that it sees, and how uncertain it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, rotations, skew

MIN_INLIERS = 12
_STEPS = 8


@dataclass(frozen=True, slots=True)
class Registered:
    """`T_camera_world` (4, 4), the points that agree and their error, and standard deviations of position (units) and rotation (radians)."""

    T_camera_world: np.ndarray
    inliers: int
    error_px: float
    sigma_position: float
    sigma_rotation_rad: float


def register(camera: Camera, T_camera_world: np.ndarray, points: np.ndarray, px: np.ndarray, error_px: float) -> Registered | None:
    """The pose nearest to pixels (N, 2) of points (N, 3), from that of a near frame; None where too few agree within `error_px`.

    Gauss and Newton with Huber's weights; the covariance is that of the last step, scaled by the error that is left.
    """
    if len(points) < MIN_INLIERS:
        return None
    T = T_camera_world
    for _ in range(_STEPS):
        left, J, ahead = _linearised(camera, T, points, px)
        size = np.linalg.norm(left, axis=1)
        weight = np.where(ahead, np.minimum(1, 0.5 * error_px / np.maximum(size, 1e-9)), 0.0)
        A = np.einsum("n,nki,nkj->ij", weight, J, J)
        try:
            step = np.linalg.solve(A, np.einsum("n,nki,nk->i", weight, J, left))
        except np.linalg.LinAlgError:
            return None
        turn = rotations(step[None, :3])[0]
        T = make_transform(turn @ T[:3, :3], turn @ T[:3, 3] + step[3:])
        if np.abs(step).max() < 1e-9:
            break
    left, J, ahead = _linearised(camera, T, points, px)
    good = ahead & (np.linalg.norm(left, axis=1) < error_px)
    if good.sum() < MIN_INLIERS or good.mean() < 0.5:
        return None
    rms = float(np.sqrt((left[good] ** 2).sum(1).mean()))
    covariance = np.linalg.pinv(np.einsum("nki,nkj->ij", J[good], J[good])) * rms**2 / 2
    return Registered(T, int(good.sum()), rms, float(np.sqrt(np.trace(covariance[3:, 3:]))), float(np.sqrt(np.trace(covariance[:3, :3]))))


def _linearised(camera: Camera, T: np.ndarray, points: np.ndarray, px: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors (N, 2) px, their derivatives (N, 2, 6) by a small turn and shift of the camera frame, and (N,) whether a point lies ahead."""
    local = points @ T[:3, :3].T + T[:3, 3]
    ahead = local[:, 2] > 1e-6
    z = np.where(ahead, local[:, 2], 1.0)
    x, y = local[:, 0] / z, local[:, 1] / z
    left = px - np.stack([camera.fx_px * x + camera.cx_px, camera.fy_px * y + camera.cy_px], 1)
    o = np.zeros_like(z)
    by_point = np.stack(
        [np.stack([camera.fx_px / z, o, -camera.fx_px * x / z], 1), np.stack([o, camera.fy_px / z, -camera.fy_px * y / z], 1)], 1
    )
    return left, np.concatenate([by_point @ -skew(local), by_point], 2), ahead
