"""How parts of the picture move from one frame to the next: sparse features, an affine fit, and which motion explains a pixel better."""

from __future__ import annotations

import cv2
import numpy as np

from egoworld_ops.vision.flow import Search, follow_and_return

_SIDE_PX = 320
_MAX_FEATURES = 120
_MIN_INLIERS = 6
_MIN_INLIER_SHARE = 0.4
_TOLERANCE_PX = 1.0
_SEARCH = Search(window_px=15, levels=3)


class Motion:
    """Two neighbouring frames of one clip at small size. Call `advance` once per frame, in order."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._now: np.ndarray | None = None
        self._factor = np.ones(2)

    def advance(self, rgb: np.ndarray) -> None:
        """Take the next frame (H, W, 3)."""
        height, width = rgb.shape[:2]
        scale = min(1.0, _SIDE_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        self._factor = np.array([width / size[0], height / size[1]])
        gray = cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        self._before, self._now = (self._now if self._now is not None and self._now.shape == gray.shape else None), gray

    def affine(self, mask: np.ndarray, now_hidden: np.ndarray) -> np.ndarray | None:
        """(2, 3) map of full-size pixels of the frame before to this one, for the region that `mask` (H, W) bool covered then.

        Features that land in `now_hidden` (H, W) bool are left out. None where too few features agree on one motion.
        """
        if self._before is None or self._now is None or min(self._now.shape) < 2 * _SEARCH.window_px:
            return None
        corners = cv2.goodFeaturesToTrack(self._before, _MAX_FEATURES, 0.01, 4, mask=self._small(mask))
        if corners is None or len(corners) < _MIN_INLIERS:
            return None
        start, end = self._track(corners)
        seen = self._small(now_hidden)[tuple(np.clip(np.round(end).astype(int), 0, np.array(self._now.shape[::-1]) - 1).T[::-1])] == 0
        start, end = start[seen], end[seen]
        if len(start) < _MIN_INLIERS:
            return None
        fitted, inliers = cv2.estimateAffinePartial2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE_PX, maxIters=300)
        if fitted is None or inliers.sum() < max(_MIN_INLIERS, _MIN_INLIER_SHARE * len(start)):
            return None
        return self._full_size(fitted)

    def misfit(self, A: np.ndarray, mask: np.ndarray, now_hidden: np.ndarray) -> float:
        """Mean grey levels by which a motion (2, 3) fails to explain what is seen where it takes a mask (H, W) bool; infinite if nothing is."""
        assert self._now is not None
        moved = cv2.warpAffine(self._small(mask), self._small_size(A), self._now.shape[::-1], flags=cv2.INTER_NEAREST)
        seen = (moved > 0) & (self._small(now_hidden) == 0)
        return float(cv2.absdiff(self._now, self._warp(A))[seen].mean()) if seen.any() else np.inf

    def preference(self, A_thing: np.ndarray, A_rest: np.ndarray) -> np.ndarray:
        """(h, w) float32, small size: grey levels by which the thing's motion explains each pixel better than the rest's motion does."""
        assert self._before is not None
        assert self._now is not None
        errors = [cv2.absdiff(self._now, self._warp(A)).astype(np.float32) for A in (A_thing, A_rest)]
        return cv2.blur(errors[1] - errors[0], (5, 5))

    def _track(self, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self._before is not None
        assert self._now is not None
        start = corners.reshape(-1, 2)
        end, good = follow_and_return(self._before, self._now, start, _SEARCH, _TOLERANCE_PX)
        good &= ((end >= 0) & (end < self._now.shape[::-1])).all(1)
        return start[good], end[good]

    def _small(self, mask: np.ndarray) -> np.ndarray:
        assert self._now is not None
        return cv2.resize(mask.view(np.uint8), self._now.shape[::-1], interpolation=cv2.INTER_NEAREST)

    def _full_size(self, A_small: np.ndarray) -> np.ndarray:
        """The same map between full-size pixels; pixel centres are at whole numbers in both."""
        stretch = np.diag(self._factor)
        shift = (self._factor - 1) / 2
        linear = stretch @ A_small[:, :2] @ np.linalg.inv(stretch)
        return np.column_stack([linear, stretch @ A_small[:, 2] + shift - linear @ shift])

    def _small_size(self, A_full: np.ndarray) -> np.ndarray:
        """The inverse of `_full_size`."""
        squeeze = np.diag(1 / self._factor)
        shift = (1 / self._factor - 1) / 2
        linear = squeeze @ A_full[:, :2] @ np.diag(self._factor)
        return np.column_stack([linear, squeeze @ A_full[:, 2] + shift - linear @ shift])

    def _warp(self, A_full: np.ndarray) -> np.ndarray:
        assert self._before is not None
        A_small = self._small_size(A_full)
        return cv2.warpAffine(self._before, A_small, self._before.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
