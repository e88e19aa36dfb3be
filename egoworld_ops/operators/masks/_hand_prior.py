"""Where a hand's flesh is expected from its 21 image points: tapered capsules about the bones, the palm, and an end at the wrist."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Proportions of an adult hand 0.19 m long, metres; only their ratio to the bones' lengths matters.
_PALM_M = np.array([0.092, 0.094, 0.090, 0.084])
_PALM_WIDTH_M = 0.060
_CHAINS_M = np.array([0.087, 0.095, 0.088, 0.070])
_MCPS = np.array([5, 9, 13, 17])
_RADII_M = np.array(
    [
        [0.0150, 0.0125, 0.0105, 0.0088],
        [0.0108, 0.0094, 0.0084, 0.0074],
        [0.0110, 0.0096, 0.0086, 0.0076],
        [0.0106, 0.0092, 0.0082, 0.0072],
        [0.0094, 0.0080, 0.0072, 0.0064],
    ]
)
_WRIST_RADIUS_M = 0.026
_HEEL_RADIUS_M = 0.017
_WEB_RADIUS_M = 0.010
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 16, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 16, endpoint=False))], 1)
_SUBPIXEL_BITS = 4
_FAR_PX = 1 << 14


@dataclass(frozen=True, slots=True)
class HandPrior:
    """One hand's expected place, in the pixels of its points.

    Args:
        start_px, end_px: (n, 2) ends of the capsules; the first starts at the wrist joint.
        radius_px: (n, 2) radii at both ends.
        wrist_px, forearm: (2,) a point where the hand ends, and the unit direction from it along the forearm.
        px_per_m: pixels per metre at the hand, across the line of sight.
    """

    start_px: np.ndarray
    end_px: np.ndarray
    radius_px: np.ndarray
    wrist_px: np.ndarray
    forearm: np.ndarray
    px_per_m: float

    def draw(self, width: int, height: int, widen: float = 1.0) -> np.ndarray:
        """(height, width) bool: the flesh, all radii times `widen`, up to the wrist."""
        canvas = np.zeros((height, width), np.uint8)
        for start, end, radius in zip(self.start_px, self.end_px, self.radius_px, strict=True):
            outline = np.concatenate([start + widen * radius[0] * _CIRCLE, end + widen * radius[1] * _CIRCLE])
            fixed = np.round(np.clip(outline, -_FAR_PX, _FAR_PX) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
            cv2.fillConvexPoly(canvas, cv2.convexHull(fixed), 1, shift=_SUBPIXEL_BITS)
        return np.asarray((canvas > 0) & ~self.beyond_wrist(width, height))

    def beyond_wrist(self, width: int, height: int) -> np.ndarray:
        """(height, width) bool: pixels on the forearm's side of the hand's end."""
        return self._beyond(self.wrist_px, width, height)

    def past_joint(self, width: int, height: int) -> np.ndarray:
        """(height, width) bool: pixels on the forearm's side of the wrist joint, where a sleeve may begin."""
        return self._beyond(self.start_px[0], width, height)

    def _beyond(self, point_px: np.ndarray, width: int, height: int) -> np.ndarray:
        along_x = (np.arange(width) - point_px[0]) * self.forearm[0]
        along_y = (np.arange(height) - point_px[1]) * self.forearm[1]
        return np.asarray(along_y[:, None] + along_x > 0)


def hand_prior(points_px: np.ndarray, wrist_margin_m: float) -> HandPrior:
    """The prior of a hand with these points (21, 2); it ends `wrist_margin_m` past the wrist joint towards the elbow."""
    px_per_m = pixels_per_metre(points_px)
    wrist, fingers = points_px[0], points_px[1:].reshape(5, 4, 2)
    forearm = wrist - points_px[_MCPS].mean(0)
    forearm = forearm / max(float(np.linalg.norm(forearm)), 1e-6)
    end = wrist + forearm * wrist_margin_m * px_per_m
    side = np.array([-forearm[1], forearm[0]]) * 0.008 * px_per_m
    rows = [(wrist, end, _WRIST_RADIUS_M, _WRIST_RADIUS_M)]
    rows += [(wrist + s * side, fingers[f, 0], _HEEL_RADIUS_M, _RADII_M[f, 0] * 1.15) for f, s in ((1, 1), (2, 0), (3, 0), (4, -1))]
    rows += [(wrist - s * side, fingers[f, 0], _HEEL_RADIUS_M, _RADII_M[f, 0] * 1.15) for f, s in ((1, 1), (4, -1))]
    rows += [(wrist, fingers[0, 0], _HEEL_RADIUS_M, _RADII_M[0, 0]), (fingers[0, 0], fingers[1, 0], _WEB_RADIUS_M, _WEB_RADIUS_M)]
    rows += [(fingers[f, 0], fingers[f + 1, 0], _RADII_M[f, 0], _RADII_M[f + 1, 0]) for f in (1, 2, 3)]
    rows += [(fingers[f, j], fingers[f, j + 1], _RADII_M[f, j], _RADII_M[f, j + 1]) for f in range(5) for j in range(3)]
    start, finish, radius_start, radius_end = zip(*rows, strict=True)
    radii = np.stack([radius_start, radius_end], 1) * px_per_m
    return HandPrior(np.array(start), np.array(finish), radii, end, forearm, px_per_m)


def pixels_per_metre(points_px: np.ndarray) -> float:
    """Scale of a hand with points (21, 2): from the parts that lie most across the line of sight, since all others look shortened."""
    palm = np.linalg.norm(points_px[_MCPS] - points_px[0], axis=1) / _PALM_M
    width = np.linalg.norm(points_px[5] - points_px[17]) / _PALM_WIDTH_M
    bones = np.linalg.norm(np.diff(points_px[1:].reshape(5, 4, 2), axis=1), axis=2)
    chains = np.sort(bones[1:].sum(1) / _CHAINS_M)
    return float(max(np.median(palm), width, chains[2], 1.0))
