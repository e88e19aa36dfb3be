"""Poses of known hands in the camera frame: perspective-n-point for many hands at once, numpy only.

The rotation starts at the network's own (a crop shows the hand as if looked at directly, so it is turned from the optical axis onto the ray to the
hand), the translation at its linear solution. Damped Gauss-Newton steps (Levenberg, 1944; Marquardt, 1963) on the reprojection error, with Huber's
(1964) loss, refine both. A weak pull towards the starting rotation keeps flat hands, seen small, from tipping over on pixel noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import rotations

_MAX_STEPS = 30
_CONVERGED = 1e-4
"""A step below this, in radians and in shares of the depth, ends the refinement: far finer than pixels can resolve."""
_MIN_DEPTH_M = 0.02
_LEAST_CURVATURE = 1e-9
"""Keeps the equations solvable where points coincide; no effect on any real hand."""


@dataclass(frozen=True, slots=True)
class Poses:
    """Poses of N hands.

    Args:
        R_camera_hand: (N, 3, 3).
        t_camera_hand_m: (N, 3).
        reprojection_px: (N,) root mean square distance over the points.
        converged: (N,) bool: the steps ended, with all points in front of the camera.
    """

    R_camera_hand: np.ndarray
    t_camera_hand_m: np.ndarray
    reprojection_px: np.ndarray
    converged: np.ndarray


def solve(points_m: np.ndarray, points_px: np.ndarray, camera: Camera, huber_px: np.ndarray, pull_px: np.ndarray) -> Poses:
    """Poses that bring each hand's points onto their image points.

    Args:
        points_m: (N, J, 3) points in each hand's own frame, its axes nearly those of the camera.
        points_px: (N, J, 2) where they are seen.
        camera: intrinsics.
        huber_px: (N,) error beyond which a point's pull no longer grows.
        pull_px: (N,) cost of a turn by one radian away from the starting rotation, as an error of every point.
    """
    problem = _Problem(points_m, points_px, camera, huber_px, pull_px)
    R = problem.R_start
    t_m = _linear_translation(points_m @ R.transpose(0, 2, 1), problem.rays)
    cost = problem.cost(R, t_m)
    damping = np.full(len(R), 1e-3)
    converged = np.zeros(len(R), bool)
    for _ in range(_MAX_STEPS):
        turn, shift_m = problem.step(R, t_m, damping)
        R_new, t_new = rotations(turn) @ R, t_m + shift_m
        cost_new = problem.cost(R_new, t_new)
        better = cost_new <= cost
        R = np.where(better[:, None, None], R_new, R)
        t_m = np.where(better[:, None], t_new, t_m)
        cost = np.where(better, cost_new, cost)
        damping = np.clip(np.where(better, damping * 0.2, damping * 10), 1e-9, 1e9)
        converged |= np.maximum(np.abs(turn).max(1), np.abs(shift_m).max(1) / t_m[:, 2]) < _CONVERGED
        if converged.all():
            break
    squares = (problem.errors_px(R, t_m) ** 2).sum(-1)
    return Poses(R, t_m, np.sqrt(squares.mean(1)), converged & np.isfinite(cost))


class _Problem:
    """The fixed part of N hands' problems: the observed points, and how much each error costs."""

    def __init__(self, points_m: np.ndarray, points_px: np.ndarray, camera: Camera, huber_px: np.ndarray, pull_px: np.ndarray) -> None:
        self._points_m = points_m
        self._points_px = points_px
        self._focal_px = np.array([camera.fx_px, camera.fy_px])
        self._centre_px = np.array([camera.cx_px, camera.cy_px])
        self._huber_px = huber_px[:, None]
        self._pull = pull_px[:, None] ** 2 * points_m.shape[1]
        self.rays = (points_px - self._centre_px) / self._focal_px
        self.R_start = _towards(self.rays.mean(1))

    def errors_px(self, R: np.ndarray, t_m: np.ndarray) -> np.ndarray:
        """(N, J, 2) projected minus seen."""
        return self._project(self._in_camera(R, t_m)) - self._points_px

    def cost(self, R: np.ndarray, t_m: np.ndarray) -> np.ndarray:
        """(N,) Huber loss of the errors plus the pull; infinite where a point is not in front of the camera."""
        in_camera = self._in_camera(R, t_m)
        distance = np.linalg.norm(self._project(in_camera) - self._points_px, axis=-1)
        k = self._huber_px
        loss = np.where(distance <= k, distance**2, 2 * k * distance - k**2).sum(1) + (self._pull * self._turned(R) ** 2).sum(1)
        return np.where((in_camera[:, :, 2] >= _MIN_DEPTH_M).all(1), loss, np.inf)

    def step(self, R: np.ndarray, t_m: np.ndarray, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) turn, axis-angle applied from the left, and (N, 3) shift."""
        in_camera = self._in_camera(R, t_m)
        errors = self._project(in_camera) - self._points_px
        distance = np.linalg.norm(errors, axis=-1)
        weight = np.minimum(1, self._huber_px / np.maximum(distance, 1e-12))
        J = self._jacobian(in_camera, in_camera - t_m[:, None])
        weighted = (J * weight[:, :, None, None]).reshape(len(J), -1, 6).transpose(0, 2, 1)
        A = weighted @ J.reshape(len(J), -1, 6)
        b = (weighted @ errors.reshape(len(J), -1, 1))[..., 0]
        spin = np.arange(3)
        A[:, spin, spin] += self._pull
        b[:, :3] += self._pull * self._turned(R)
        diagonal = np.einsum("nii->ni", A)
        diagonal += damping[:, None] * diagonal + _LEAST_CURVATURE
        step = -np.linalg.solve(A, b[..., None])[..., 0]
        return step[:, :3], step[:, 3:]

    def _jacobian(self, in_camera: np.ndarray, arms: np.ndarray) -> np.ndarray:
        """(N, J, 2, 6) of pixels by a turn from the left (a point moves by turn cross arm) and a shift."""
        depth = np.maximum(in_camera[..., 2], _MIN_DEPTH_M)
        x, y = in_camera[..., 0] / depth, in_camera[..., 1] / depth
        ax, ay, az = np.moveaxis(arms, -1, 0)
        one, none = np.ones_like(x), np.zeros_like(x)
        u = np.stack([-x * ay, az + x * ax, -ay, one, none, -x], axis=-1)
        v = np.stack([-az - y * ay, y * ax, ax, none, one, -y], axis=-1)
        return np.stack([u, v], axis=2) * (self._focal_px / depth[..., None])[..., None]

    def _in_camera(self, R: np.ndarray, t_m: np.ndarray) -> np.ndarray:
        return self._points_m @ R.transpose(0, 2, 1) + t_m[:, None]

    def _project(self, in_camera: np.ndarray) -> np.ndarray:
        projected: np.ndarray = in_camera[..., :2] / np.maximum(in_camera[..., 2:], _MIN_DEPTH_M) * self._focal_px + self._centre_px
        return projected

    def _turned(self, R: np.ndarray) -> np.ndarray:
        """(N, 3) axis of the turn since the start, as long as its sine."""
        D = R @ self.R_start.transpose(0, 2, 1)
        return np.stack([D[:, 2, 1] - D[:, 1, 2], D[:, 0, 2] - D[:, 2, 0], D[:, 1, 0] - D[:, 0, 1]], axis=1) / 2


def _towards(rays: np.ndarray) -> np.ndarray:
    """(N, 3, 3) smallest rotations that bring the optical axis onto rays (N, 2), given at unit depth."""
    sine_over_cosine = np.linalg.norm(rays, axis=1, keepdims=True)
    angle = np.arctan(sine_over_cosine)
    axis = np.concatenate([-rays[:, 1:], rays[:, :1], np.zeros((len(rays), 1))], axis=1) / np.maximum(sine_over_cosine, 1e-12)
    return rotations(axis * angle)


def _linear_translation(turned_m: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(N, 3) least-squares translations of x + tx = u (z + tz), y + ty = v (z + tz), moved in front of the camera where they are not."""
    n, j = rays.shape[:2]
    A = np.zeros((n, j, 2, 3))
    A[:, :, 0, 0] = A[:, :, 1, 1] = 1
    A[..., 2] = -rays
    b = rays * turned_m[:, :, 2:] - turned_m[:, :, :2]
    stacked = A.reshape(n, 2 * j, 3)
    turned_over = stacked.transpose(0, 2, 1)
    normal = turned_over @ stacked + _LEAST_CURVATURE * np.eye(3)
    t_m: np.ndarray = np.linalg.solve(normal, turned_over @ b.reshape(n, 2 * j, 1))[:, :, 0]
    t_m[:, 2] = np.maximum(t_m[:, 2], 2 * _MIN_DEPTH_M - turned_m[:, :, 2].min(1))
    return t_m
