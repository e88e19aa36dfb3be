"""How parts of the picture move: points followed within a region (the background, a hand, an object) over the last few frames.

Near an object at rest, the background's motion in the picture represents the camera's. A homography describes it exactly for a plane such as a
table, and for a turning camera; what stands above the plane by a share of its distance is off by that share of the camera's translation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np

from egoworld_ops.types import Camera
from egoworld_ops.vision.flow import Search, follow_and_return

AREA_PX = 400 * 300
"""Pictures and masks are scaled to about this many pixels, whatever their size and shape: lengths in them, as those below, are shares of the
picture."""
MIN_POINTS = 12
_ROUND_TRIP_PX = 0.5
AGREE_SHARE = 1.5 / 800
"""Points agree on one motion within this share of the picture's diagonal."""
_PLANE_SHARE, _TRIALS, _SURE = 3 / 800, 2000, 0.999
"""Points of the background agree on one plane within this share of the diagonal: what stands on a table is a little off it."""
_LITTLE_PX = 3.0
"""A region that moves by less is followed from where it was."""
_SEARCH = Search(window_px=13, levels=2, steps=15, least_step_px=0.03)


@dataclass(frozen=True, slots=True)
class Scale:
    """From a picture of `full_px` (width, height) to the size at which all is measured, `small_px`. Pixel centres are at whole numbers in both."""

    full_px: tuple[int, int]
    small_px: tuple[int, int]

    @classmethod
    def of(cls, width: int, height: int) -> Scale:
        """To about AREA_PX."""
        scale = (AREA_PX / (width * height)) ** 0.5
        return cls((width, height), (max(round(width * scale), 1), max(round(height * scale), 1)))

    @property
    def factor(self) -> np.ndarray:
        """(2,) small pixels of a full one, x and y."""
        return np.divide(self.small_px, self.full_px)

    def grey(self, rgb: np.ndarray) -> np.ndarray:
        """A frame (H, W, 3) uint8 as a small picture (h, w) uint8."""
        return self._resized(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))

    def mask(self, full: np.ndarray) -> np.ndarray:
        """(h, w) bool: the small pixels of which a mask (H, W) bool covers more than half."""
        return np.asarray(self._resized(full.astype(np.uint8) * np.uint8(255)) > 127)

    def points(self, full_px: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of the picture as small pixels."""
        return np.asarray((full_px + 0.5) * self.factor - 0.5)

    def camera(self, full: Camera) -> Camera:
        """A pinhole camera that takes the small picture."""
        fx, fy = self.factor
        cx_px, cy_px = (float(c) for c in self.points(np.array([full.cx_px, full.cy_px])))
        return replace(
            full,
            fx_px=full.fx_px * float(fx),
            fy_px=full.fy_px * float(fy),
            cx_px=cx_px,
            cy_px=cy_px,
            width=self.small_px[0],
            height=self.small_px[1],
        )

    def _resized(self, full: np.ndarray) -> np.ndarray:
        return cv2.resize(full, self.small_px, interpolation=cv2.INTER_AREA if self.factor[0] < 1 else cv2.INTER_LINEAR)


def shrunk(mask: np.ndarray, margin_px: int) -> np.ndarray:
    """(h, w) uint8, 1 on a mask (h, w) bool without a margin."""
    return cv2.erode(mask.astype(np.uint8), np.ones((2 * margin_px + 1,) * 2, np.uint8))


class Flow:
    """Follows points within one region; remembers where they were in each frame until it is told to forget.

    The region of a thing, `of_thing`, moves with it: where the search for points does not reach as far as it moves, they are also searched for there.
    """

    def __init__(self, max_points: int, apart_px: int, of_thing: bool = False) -> None:
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
        self._last = -1
        self._grey: np.ndarray | None = None
        self._ids = np.zeros(0, np.int64)
        self._points = np.zeros((0, 2), np.float32)
        self._next_id = 0
        self._max_points = max_points
        self._apart_px = apart_px
        self._of_thing = of_thing
        self._middle_px: np.ndarray | None = None
        self.followed = (0, 0)
        """How many points were searched for in the last frame, and found."""

    def __len__(self) -> int:
        """Points known in the last frame."""
        return len(self._ids)

    def see(self, position: int, grey: np.ndarray, free: np.ndarray) -> None:
        """Follow into a frame: its position, its small picture (h, w) uint8, and (h, w) uint8, 1 on the region."""
        if self._last != position - 1:
            self._ids, self._points, self._middle_px = self._ids[:0], self._points[:0], None
        shift_px, searched = self._shift_px(free) if self._of_thing else None, len(self._ids)
        if self._grey is not None and len(self._ids):
            self._follow(grey, free, shift_px)
        self.followed = (searched, len(self._ids))
        if len(self._ids) < 0.7 * self._max_points:
            self._add(grey, free.copy())
        self._grey = grey
        self._past.append((position, self._ids.copy(), self._points.copy()))
        self._last = position

    def forget_before(self, position: int) -> None:
        """Forget the frames before that one: they are not needed any more."""
        while self._past and self._past[0][0] < position:
            self._past.popleft()

    def _shift_px(self, free: np.ndarray) -> np.ndarray | None:
        """How far the region's middle moved (2,) since the frame before; None where that is little or not known."""
        seen = cv2.moments(free, binaryImage=True)
        middle_px = np.array([seen["m10"], seen["m01"]]) / seen["m00"] if seen["m00"] else None
        before_px, self._middle_px = self._middle_px, middle_px
        if before_px is None or middle_px is None or np.hypot(*(middle_px - before_px)) < _LITTLE_PX:
            return None
        return np.asarray(middle_px - before_px)

    def _follow(self, grey: np.ndarray, free: np.ndarray, shift_px: np.ndarray | None) -> None:
        assert self._grey is not None
        there, good = follow_and_return(self._grey, grey, self._points, _SEARCH, _ROUND_TRIP_PX, shift_px)
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
        """Where the points seen in both frames were (N, 2) and are (N, 2), small pixels; none where a frame is not remembered."""
        known = {position: (ids, points) for position, ids, points in self._past}
        if start not in known or end not in known:
            return np.zeros((0, 2)), np.zeros((0, 2))
        _, a, b = np.intersect1d(known[start][0], known[end][0], return_indices=True)
        return known[start][1][a].astype(np.float64), known[end][1][b].astype(np.float64)


def homography(was_px: np.ndarray, now_px: np.ndarray, diagonal_px: float) -> np.ndarray | None:
    """(3, 3) that maps pixels of one frame to those of the other; None where too few points agree on one. `diagonal_px` is the picture's."""
    if len(was_px) < MIN_POINTS:
        return None
    # Points slide along the grain of wood: half of them may be off. MAGSAC (Barath et al., 2020) weighs them by how far.
    H, agree = cv2.findHomography(was_px, now_px, cv2.USAC_MAGSAC, _PLANE_SHARE * diagonal_px, maxIters=_TRIALS, confidence=_SURE)
    if H is None or agree.sum() < max(MIN_POINTS, 0.4 * len(was_px)):
        return None
    mapped: np.ndarray = H
    return mapped


def apply(H: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) mapped by a homography; NaN where it maps them to infinity."""
    moved = np.column_stack([points_px, np.ones(len(points_px))]) @ H.T
    return moved[:, :2] / np.where(moved[:, 2:] > 0, moved[:, 2:], np.nan)
