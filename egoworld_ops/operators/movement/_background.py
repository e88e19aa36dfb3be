"""How the background moves in the picture: points followed outside of hands and objects, and the homography between two near frames.

Near a still object the background's own motion in the picture stands for the camera's. A homography describes it exactly for a plane such as a
table, and for a turning camera; what stands above the plane by a share of its distance is off by that share of the camera's own shift.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

WIDTH_PX = 400
"""Pictures are made smaller, to about this width, before points are followed."""
MAX_POINTS = 160
MIN_POINTS = 12
_APART_PX = 9
_MARGIN_PX = 7
_ROUND_TRIP_PX = 0.5
_AGREE_PX = 1.0
_FLOW = {"winSize": (13, 13), "maxLevel": 2, "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 0.03)}


class Background:
    """Follows background points; remembers where they were in the last `memory` frames."""

    def __init__(self, memory: int) -> None:
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=memory)
        self._grey: np.ndarray | None = None
        self._ids = np.zeros(0, np.int64)
        self._points = np.zeros((0, 2), np.float32)
        self._next_id = 0
        self._scale = 1.0

    def see(self, position: int, rgb: np.ndarray, things: np.ndarray) -> None:
        """Follow into a frame: its number, picture (H, W, 3) uint8, and (H, W) bool true on hands and objects."""
        self._scale = min(WIDTH_PX / rgb.shape[1], 1.0)
        size = (round(rgb.shape[1] * self._scale), round(rgb.shape[0] * self._scale))
        grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        covered = cv2.resize(things.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        free = 1 - cv2.dilate(covered, np.ones((2 * _MARGIN_PX + 1,) * 2, np.uint8))
        if self._grey is not None and len(self._ids):
            self._follow(grey, free)
        if len(self._ids) < 0.7 * MAX_POINTS:
            self._add(grey, free)
        self._grey = grey
        self._past.append((position, self._ids.copy(), self._points.copy()))

    def _follow(self, grey: np.ndarray, free: np.ndarray) -> None:
        assert self._grey is not None
        start = self._points.reshape(-1, 1, 2)
        there, found, _ = cv2.calcOpticalFlowPyrLK(self._grey, grey, start, None, **_FLOW)
        back, returned, _ = cv2.calcOpticalFlowPyrLK(grey, self._grey, there, None, **_FLOW)
        there = there.reshape(-1, 2)
        good = (found & returned).ravel().astype(bool) & (np.abs(back - start).max(-1).ravel() < _ROUND_TRIP_PX)
        column, row = np.round(there).astype(int).T
        good &= (column >= 0) & (row >= 0) & (column < free.shape[1]) & (row < free.shape[0])
        good[good] = free[row[good], column[good]] > 0
        self._ids, self._points = self._ids[good], there[good]

    def _add(self, grey: np.ndarray, free: np.ndarray) -> None:
        for x, y in np.round(self._points).astype(int):
            cv2.circle(free, (int(x), int(y)), _APART_PX, 0, -1)
        found = cv2.goodFeaturesToTrack(grey, MAX_POINTS - len(self._ids), 0.01, _APART_PX, mask=free)
        if found is not None:
            self._ids = np.concatenate([self._ids, np.arange(self._next_id, self._next_id + len(found))])
            self._points = np.concatenate([self._points, found.reshape(-1, 2)])
            self._next_id += len(found)

    def homography(self, start: int, end: int) -> np.ndarray | None:
        """(3, 3) that maps full-size pixels of frame `start` to those of frame `end`; None where too few points agree on one."""
        if start == end:
            return np.eye(3)
        known = {position: (ids, points) for position, ids, points in self._past}
        if start not in known or end not in known:
            return None
        _, a, b = np.intersect1d(known[start][0], known[end][0], return_indices=True)
        if len(a) < MIN_POINTS:
            return None
        cv2.setRNGSeed(0)
        H, agree = cv2.findHomography(known[start][1][a], known[end][1][b], cv2.RANSAC, _AGREE_PX)
        if H is None or agree.sum() < max(MIN_POINTS, 0.4 * len(a)):
            return None
        # Pixel centres are whole numbers: full = (small + 1/2) / scale - 1/2.
        shift = 0.5 / self._scale - 0.5
        to_full = np.array([[1 / self._scale, 0, shift], [0, 1 / self._scale, shift], [0, 0, 1]])
        mapped: np.ndarray = to_full @ H @ np.linalg.inv(to_full)
        return mapped / mapped[2, 2]
