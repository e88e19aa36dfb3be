"""Poses of hands seen through any lens: each is solved in a pinhole camera of its own that looks straight at the hand.

A wide lens has no picture plane that holds all its rays, but the rays of one hand always fit in front of a camera turned to it. Errors are
weighed and reported in pixels of the video.
"""

from __future__ import annotations

import numpy as np

from egoworld_ops.operators.hand_pose import _pnp
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import towards
from egoworld_ops.vision.lenses import pixels_per_radian, project, unproject

_LEAST_COSINE = 0.05
"""Of the angle between a point's ray and the hand's middle; a hand that reaches farther around the camera is no hand."""


def on_lens(camera: Camera, points_px: np.ndarray) -> np.ndarray:
    """(N,) bool: the lens shows a ray at each of a hand's image points (N, J, 2)."""
    seen: np.ndarray = np.isfinite(unproject(camera, points_px)).all((1, 2))
    return seen


def solve(points_m: np.ndarray, points_px: np.ndarray, camera: Camera, huber_px: np.ndarray, pull_px: np.ndarray) -> _pnp.Poses:
    """As `_pnp.solve`, through the camera's lens. Hands with a point that is not on the lens have not converged."""
    if camera.is_pinhole:
        return _pnp.solve(points_m, points_px, camera, huber_px, pull_px)
    rays = unproject(camera, points_px)
    middle = rays.mean(1)
    R_camera_view = np.where(np.isfinite(middle).all(1)[:, None, None], towards(np.nan_to_num(middle)), np.eye(3))
    in_view = rays @ R_camera_view
    solvable = (in_view[..., 2] > _LEAST_COSINE).all(1)
    poses = _none(len(points_px))
    if not solvable.any():
        return poses
    view = Camera(camera.fx_px, camera.fx_px, 0.0, 0.0, camera.width, camera.height, camera.source)
    finer = view.fx_px / pixels_per_radian(camera, middle[solvable])
    view_px = project(view, in_view[solvable])
    found = _pnp.solve(points_m[solvable], view_px, view, finer * huber_px[solvable], finer * pull_px[solvable])
    R = R_camera_view[solvable] @ found.R_camera_hand
    t_m = (R_camera_view[solvable] @ found.t_camera_hand_m[..., None])[..., 0]
    again_px = project(camera, points_m[solvable] @ R.transpose(0, 2, 1) + t_m[:, None])
    poses.R_camera_hand[solvable], poses.t_camera_hand_m[solvable] = R, t_m
    poses.reprojection_px[solvable] = np.sqrt(((again_px - points_px[solvable]) ** 2).sum(-1).mean(1))
    poses.converged[solvable] = found.converged & np.isfinite(again_px).all((1, 2))
    return poses


def _none(n: int) -> _pnp.Poses:
    return _pnp.Poses(np.full((n, 3, 3), np.nan), np.full((n, 3), np.nan), np.full(n, np.nan), np.zeros(n, bool))
