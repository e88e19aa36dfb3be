"""How a part of one small grey picture moves to the next: features found again, and the similarity that most of them follow."""

from __future__ import annotations

import cv2
import numpy as np

from egoworld_ops.vision.flow import Search, follow

_MAX_FEATURES = 80
_MIN_FEATURES = 6
_TOLERANCE_PX = 1.2
_SEARCH = Search(window_px=11, levels=2)


def track(before: np.ndarray, now: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of a picture (h, w) uint8 within a mask (h, w) bool, found again in the next: two arrays (N, 2) float32, pixels."""
    corners = cv2.goodFeaturesToTrack(before, _MAX_FEATURES, 0.01, 3, mask=mask.view(np.uint8))
    if corners is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    start = corners.reshape(-1, 2)
    end, found = follow(before, now, start, _SEARCH)
    good = found & ((end >= 0) & (end <= np.array(now.shape[::-1]) - 1)).all(1)
    return start[good], end[good]


def fit(start: np.ndarray, end: np.ndarray) -> np.ndarray | None:
    """(2, 3) similarity that most of the features (N, 2) follow."""
    if len(start) < _MIN_FEATURES:
        return None
    start, end = np.ascontiguousarray(start), np.ascontiguousarray(end)
    fitted, inliers = cv2.estimateAffinePartial2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE_PX, maxIters=100)
    return fitted if fitted is not None and inliers.sum() >= max(_MIN_FEATURES, 0.4 * len(start)) else None


def sample(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many of the pairs (N, 2) as `fit` needs, evenly."""
    step = 1 + len(start) // _MAX_FEATURES
    return start[::step], end[::step]
