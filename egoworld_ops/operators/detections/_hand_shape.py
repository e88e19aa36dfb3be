"""A hand's rough outline in a small picture, from its 21 points: flesh, forearm, and what is within reach."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

_PALM = np.array([0, 1, 5, 9, 13, 17])
_MCPS = np.array([5, 9, 13, 17])
_CHAINS = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]])
_FINGER_WIDTH = 0.24
_MARGIN_PX = 2
_FAR_PX = 4096
_RIM = 0.1


class HandShape:
    """One hand with points (21, 2) in a picture of `size` (width, height) pixels."""

    def __init__(self, points: np.ndarray, size: tuple[int, int]) -> None:
        self.points = np.clip(points, -_FAR_PX, _FAR_PX)
        self._size = size
        self.center = self.points[_PALM].mean(0)
        spans = np.linalg.norm(self.points[_MCPS] - self.points[0], axis=1)
        self.length = float(max(np.median(spans), 1.5 * np.linalg.norm(self.points[5] - self.points[17]), 1.0))

    @cached_property
    def core(self) -> np.ndarray:
        """(h, w) bool: surely flesh."""
        return self._drawn(0.6, 0)

    @cached_property
    def flesh(self) -> np.ndarray:
        """(h, w) bool: possibly flesh."""
        return self._drawn(1.0, _MARGIN_PX)

    @cached_property
    def rim(self) -> np.ndarray:
        """(h, w) bool: flesh and what is so near that the hand's own edge may be there."""
        return self._drawn(1.0 + 2 * _RIM / _FINGER_WIDTH, _MARGIN_PX)

    @property
    def area(self) -> int:
        """Pixels of flesh."""
        return max(1, int(self.flesh.sum()))

    @cached_property
    def forearm(self) -> np.ndarray:
        """(h, w) bool: all that lies behind the wrist."""
        x, y = np.arange(self._size[0]), np.arange(self._size[1])
        wrist, towards = self.points[0], self.points[0] - self.points[_MCPS].mean(0)
        along = (y[:, None] - wrist[1]) * towards[1] + (x - wrist[0]) * towards[0]
        return np.asarray(along > 0)

    def reach(self, hands: float) -> np.ndarray:
        """(h, w) bool: the box of the points, grown by so many palm lengths."""
        low = np.floor(self.points.min(0) - hands * self.length).astype(int)
        high = np.ceil(self.points.max(0) + hands * self.length).astype(int)
        mask = np.zeros(self._size[::-1], bool)
        mask[max(low[1], 0) : max(high[1], 0), max(low[0], 0) : max(high[0], 0)] = True
        return mask

    def _drawn(self, width: float, margin_px: int) -> np.ndarray:
        canvas = np.zeros(self._size[::-1], np.uint8)
        thickness = max(1, round(width * _FINGER_WIDTH * self.length) + margin_px)
        points = np.round(self.points).astype(np.int32)
        cv2.fillConvexPoly(canvas, cv2.convexHull(points[_PALM]), 1)
        for chain in (_PALM, *_CHAINS):
            cv2.polylines(canvas, [points[chain]], chain is _PALM, 1, thickness)
        return canvas > 0
