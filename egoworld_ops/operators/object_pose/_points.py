"""Pose of an object from points whose places on it are known: from a guess, or from random samples without one."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._fitting import solve_step
from egoworld_ops.operators.object_pose._view import project_with_jacobian, step
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform

INLIER_PX = 3.0
NOISE_PX = 0.5
MIN_POINTS = 8
MIN_SHARE = 0.4
CLEAR_POINTS, CLEAR_SHARE = 25, 0.7
OPEN_DEG = 30.0
"""Points leave an orientation open if its standard deviation is more than this."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A pose, which of the given points agree with it (N,) bool, and their root mean square error in pixels."""

    T_camera_object: np.ndarray
    inlier: np.ndarray
    reprojection_px: float
    turn_sd_deg: float

    @property
    def good(self) -> bool:
        """Whether enough points agree, in number and in share."""
        return int(self.inlier.sum()) >= MIN_POINTS and float(self.inlier.mean()) >= MIN_SHARE

    @property
    def clear(self) -> bool:
        """Whether so many points agree that a coincidence is unlikely."""
        return int(self.inlier.sum()) >= CLEAR_POINTS and float(self.inlier.mean()) >= CLEAR_SHARE


def sample_points(camera: Camera, places_m: np.ndarray, pixels: np.ndarray) -> Agreement | None:
    """Pose of points (N, 3) seen at pixels (N, 2), from random samples (RANSAC) without a guess; None where they leave it open, as on a line."""
    if len(places_m) < 6:
        return None
    cv2.setRNGSeed(0)
    try:
        ok, rvec, tvec, inlier = cv2.solvePnPRansac(
            places_m, pixels, camera.K, None, iterationsCount=300, reprojectionError=INLIER_PX, confidence=0.999, flags=cv2.SOLVEPNP_AP3P
        )
    except cv2.error:  # some degenerate sets of points
        return None
    if not ok or inlier is None or len(inlier) < 6 or tvec[2, 0] <= 0:
        return None
    agreement = fit_points(camera, places_m, pixels, make_transform(cv2.Rodrigues(rvec)[0], tvec.ravel()))
    return agreement if agreement is not None and agreement.turn_sd_deg < OPEN_DEG else None


def fit_points(camera: Camera, places_m: np.ndarray, pixels: np.ndarray, T_guess: np.ndarray) -> Agreement | None:
    """Pose of points (N, 3) seen at pixels (N, 2), from a guess (Gauss-Newton, outliers weighted down as by Cauchy)."""
    if len(places_m) < 4:
        return None
    T = T_guess
    for width_px in (12.0, 8.0, 5.0, 3.0, 2.0, 1.5, 1.5, 1.5):
        seen, J = project_with_jacobian(camera, T, places_m)
        residual = seen - pixels
        if not np.isfinite(residual).all():
            return None
        w = 1 / (1 + (residual**2).sum(1) / width_px**2)
        rows = np.sqrt(w)[:, None, None] * J
        move = solve_step([((np.sqrt(w)[:, None] * residual).ravel(), rows.reshape(-1, 6), np.inf, 1.0)], 1e-6, float(T[2, 3]))
        T = step(T, move)
    seen, J = project_with_jacobian(camera, T, places_m)
    error = np.linalg.norm(seen - pixels, axis=1)
    inlier = error < INLIER_PX
    rms = float(np.sqrt((error[inlier] ** 2).mean())) if inlier.any() else np.inf
    return Agreement(T, inlier, rms, _turn_sd_deg(J[inlier].reshape(-1, 6), max(rms, NOISE_PX)))


def _turn_sd_deg(J: np.ndarray, noise_px: float) -> float:
    """Standard deviation of a pose's rotation about its least certain axis, degrees, from derivatives (N, 6) of pixels."""
    information = J.T @ J
    fixed = information[:3, :3] - information[:3, 3:] @ np.linalg.pinv(information[3:, 3:]) @ information[3:, :3]
    least = float(np.linalg.eigvalsh(fixed)[0])
    return float(np.degrees(noise_px / np.sqrt(least))) if least > 0 else np.inf


def near_points(camera: Camera, places_m: np.ndarray, pixels: np.ndarray, T_guess: np.ndarray) -> Agreement | None:
    """From a guess alone, as that of a neighbouring frame; None where there are too few to agree."""
    return fit_points(camera, places_m, pixels, T_guess) if len(places_m) >= MIN_POINTS else None


def solve_points(camera: Camera, places_m: np.ndarray, pixels: np.ndarray, T_guess: np.ndarray) -> Agreement | None:
    """From a guess if that leads to agreement, else from random samples; a flat set of points has two poses, and the guess selects one.

    None where there are too few to agree.
    """
    if len(places_m) < MIN_POINTS:
        return None
    guided = fit_points(camera, places_m, pixels, T_guess)
    if guided is not None and guided.good and guided.inlier.mean() > 0.6:
        return guided
    sampled = sample_points(camera, places_m, pixels)
    both = [a for a in (guided, sampled) if a is not None]
    return max(both, key=lambda a: int(a.inlier.sum()), default=None)
