"""How parts of the picture move: points followed within a region (the background, a hand, an object) over the last few frames.

Near an object at rest, the background's motion in the picture represents the camera's. A homography describes it exactly for a plane such as a
table, and for a turning camera; what stands above the plane by a share of its distance is off by that share of the camera's translation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.vision.flow import Search, follow_and_return

AREA_PX = 400 * 300
"""Pictures are scaled to about this many pixels before points are followed, whatever their size and shape: lengths in them, as those below, are
shares of the picture."""
MIN_POINTS = 12
_ROUND_TRIP_PX = 0.5
AGREE_SHARE = 1.5 / 800
"""Points agree on one motion within this share of the picture's diagonal."""
_SEARCH = Search(window_px=13, levels=2, steps=15, least_step_px=0.03)


@dataclass(frozen=True, slots=True)
class SmallPicture:
    """A frame scaled for following points: grey (h, w) uint8, and its width over that of the frame."""

    grey: np.ndarray
    scale: float

    def region(self, mask: np.ndarray, margin_px: int) -> np.ndarray:
        """(h, w) uint8, 1 on a mask (H, W) bool of the full size, shrunk by a margin."""
        small = cv2.resize(mask.astype(np.uint8), self.grey.shape[::-1], interpolation=cv2.INTER_NEAREST)
        return cv2.erode(small, np.ones((2 * margin_px + 1,) * 2, np.uint8))


def scaled(rgb: np.ndarray) -> SmallPicture:
    """A frame (H, W, 3) uint8, scaled to about AREA_PX."""
    scale = (AREA_PX / (rgb.shape[0] * rgb.shape[1])) ** 0.5
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return SmallPicture(cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), size, interpolation=way), size[0] / rgb.shape[1])


class Flow:
    """Follows points within one region; remembers where they were in each frame until it is told to forget."""

    def __init__(self, max_points: int, apart_px: int) -> None:
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
        self._last = -1
        self._grey: np.ndarray | None = None
        self._ids = np.zeros(0, np.int64)
        self._points = np.zeros((0, 2), np.float32)
        self._next_id = 0
        self._scale = 1.0
        self._max_points = max_points
        self._apart_px = apart_px

    def see(self, position: int, picture: SmallPicture, free: np.ndarray) -> None:
        """Follow into a frame: its position, its picture, and (h, w) uint8, 1 on the region."""
        self._scale = picture.scale
        if self._last != position - 1:
            self._ids, self._points = self._ids[:0], self._points[:0]
        if self._grey is not None and len(self._ids):
            self._follow(picture.grey, free)
        if len(self._ids) < 0.7 * self._max_points:
            self._add(picture.grey, free.copy())
        self._grey = picture.grey
        self._past.append((position, self._ids.copy(), self._points.copy()))
        self._last = position

    def forget_before(self, position: int) -> None:
        """Forget the frames before that one: they are not needed any more."""
        while self._past and self._past[0][0] < position:
            self._past.popleft()

    def _follow(self, grey: np.ndarray, free: np.ndarray) -> None:
        assert self._grey is not None
        there, good = follow_and_return(self._grey, grey, self._points, _SEARCH, _ROUND_TRIP_PX)
        column, row = np.round(there).astype(int).T
        good &= (column >= 0) & (row >= 0) & (column < free.shape[1]) & (row < free.shape[0])
        good[good] = free[row[good], column[good]] > 0
        self._ids, self._points = self._ids[good], there[good]

    def _add(self, grey: np.ndarray, free: np.ndarray) -> None:
        for x, y in np.round(self._points).astype(int):
            cv2.circle(free, (int(x), int(y)), self._apart_px, 0, -1)
        found = cv2.goodFeaturesToTrack(grey, self._max_points - len(self._ids), 0.01, self._apart_px, mask=free)
        if found is not None:
            self._ids = np.concatenate([self._ids, np.arange(self._next_id, self._next_id + len(found))])
            self._points = np.concatenate([self._points, found.reshape(-1, 2)])
            self._next_id += len(found)

    def pairs(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the points seen in both frames were (N, 2) and are (N, 2), full-size pixels; none where a frame is not remembered."""
        known = {position: (ids, points) for position, ids, points in self._past}
        if start not in known or end not in known:
            return np.zeros((0, 2)), np.zeros((0, 2))
        _, a, b = np.intersect1d(known[start][0], known[end][0], return_indices=True)
        # Pixel centres are whole numbers: full = (small + 1/2) / scale - 1/2.
        was, now = ((known[f][1][rows].astype(np.float64) + 0.5) / self._scale - 0.5 for f, rows in ((start, a), (end, b)))
        return was, now


def homography(was_px: np.ndarray, now_px: np.ndarray, diagonal_px: float) -> np.ndarray | None:
    """(3, 3) that maps pixels of one frame to those of the other; None where too few points agree on one. `diagonal_px` is the picture's."""
    if len(was_px) < MIN_POINTS:
        return None
    cv2.setRNGSeed(0)
    H, agree = cv2.findHomography(was_px, now_px, cv2.RANSAC, AGREE_SHARE * diagonal_px)
    if H is None or agree.sum() < max(MIN_POINTS, 0.4 * len(was_px)):
        return None
    mapped: np.ndarray = H
    return mapped


def apply(H: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) mapped by a homography; NaN where it maps them to infinity."""
    moved = np.column_stack([points_px, np.ones(len(points_px))]) @ H.T
    return moved[:, :2] / np.where(moved[:, 2:] > 0, moved[:, 2:], np.nan)
