"""What corners tell of the camera's motion before anything is reconstructed: whether it moves, and whether more than a rotation is seen."""

from __future__ import annotations

import numpy as np

from egoworld_ops.types import Camera
from egoworld_ops.vision.tracks import Sight

_ROUNDS = 12


def rays(camera: Camera, px: np.ndarray) -> np.ndarray:
    """Unit rays (N, 3) in the camera frame through pixels (N, 2)."""
    ahead = np.stack([(px[:, 0] - camera.cx_px) / camera.fx_px, (px[:, 1] - camera.cy_px) / camera.fy_px, np.ones(len(px))], 1)
    return np.asarray(ahead / np.linalg.norm(ahead, axis=1, keepdims=True))


def moved_px(one: Sight, other: Sight) -> tuple[float, int]:
    """Median distance between where two frames see the same corners, px, and the number of those corners; NaN where there are none."""
    _, first, second = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    return (float(np.median(np.linalg.norm(one.px[first] - other.px[second], axis=1))), len(first)) if len(first) else (float("nan"), 0)


def turned(camera: Camera, one: Sight, other: Sight) -> tuple[np.ndarray, np.ndarray]:
    """The rotation (3, 3) that maps rays of one frame to those of the other best, and what it leaves of each corner that both see, (M,) px.

    Least absolute deviations by reweighting (Kabsch, 1976, in each round), so that what moves by itself has little weight.
    """
    _, first, second = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    a, b = rays(camera, one.px[first]), rays(camera, other.px[second])
    R, left_px, weight = np.eye(3), np.zeros(len(a)), np.ones(len(a))
    for _ in range(_ROUNDS if len(a) >= 3 else 0):
        U, _, Vt = np.linalg.svd((b * weight[:, None]).T @ a)
        R = U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt
        left_px = camera.fx_px * np.linalg.norm(a @ R.T - b, axis=1)
        weight = 1 / np.maximum(left_px, 0.2)
    return R, left_px
