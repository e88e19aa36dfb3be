"""Corners followed through the frames of a clip, and descriptors where the picture has changed: what a reconstruction of the scene is made from.

The pictures are searched at one size (`WIDTH_PX` across), so that the result does not depend on the resolution of the video.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.vision.flow import Search, follow_and_return

WIDTH_PX = 640
"""Longer side of the pictures in which corners are searched; smaller pictures stay as they are."""
_CELLS = 14
"""Cells of the grid along the longer side."""
_PER_CELL = 5
_APART_PX = 6
_BLOCK_PX = 5
_LEAST_STRENGTH = 5e-4
"""Of `cv2.cornerMinEigenVal`; noise of 2 grey levels makes 5e-5."""
_SEARCH = Search(window_px=17, levels=3)
_RETURN_PX = 0.5
_MARGIN = 0.018
"""Corners so near to what is left out, as share of the longer side, are not used: its outline moves with it."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Corners seen in one frame.

    Args:
        frame_index: of the video.
        timestamp_s: of the frame.
        ids: (N,) int64, ascending: the same corner has the same number in each frame.
        px: (N, 2) float64, pixels of the video's picture.
    """

    frame_index: int
    timestamp_s: float
    ids: np.ndarray
    px: np.ndarray


def shrunk(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """The grey picture in which corners are searched, and the pixels of the given picture that one of its pixels spans."""
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = max(height, width) / WIDTH_PX
    if scale <= 1:
        return grey, 1.0
    return cv2.resize(grey, (round(width / scale), round(height / scale)), interpolation=cv2.INTER_AREA), scale


def to_full(px: np.ndarray, scale: float) -> np.ndarray:
    """Points (N, 2) of the shrunk picture as float64 pixels of the full one: pixel centres have whole coordinates in both."""
    return (np.asarray(px, np.float64) + 0.5) * scale - 0.5


def allowed(left_out: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Where corners may be, (h, w) uint8 0 or 255: away from what is left out, a mask (H, W) bool of any size, and from the picture's edge."""
    height, width = shape[:2]
    margin = max(2, round(_MARGIN * max(height, width)))
    free = np.zeros((height, width), np.uint8)
    free[margin : height - margin, margin : width - margin] = 255
    if left_out is not None and left_out.any():
        small = cv2.resize(left_out.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA if left_out.shape[0] > height else 0)
        grown = cv2.dilate(small, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
        free[grown > 0] = 0
    return free


class Follower:
    """Follows corners from frame to frame, and finds new ones where too few are left."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._ids = np.zeros(0, np.int64)
        self._px = np.zeros((0, 2), np.float32)
        self._next = 0

    def see(self, grey: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (N,) and positions (N, 2) of the corners in the next picture (h, w) uint8, in its pixels; `free` as from `allowed`."""
        if self._before is not None and self._before.shape == grey.shape and len(self._ids):
            px, found = follow_and_return(self._before, grey, self._px, _SEARCH, _RETURN_PX)
            self._keep(px, found & _inside(px, free))
        elif self._before is not None:
            self._keep(self._px, np.zeros(len(self._ids), bool))
        self._refill(grey, free)
        self._before = grey
        return self._ids, self._px

    def _keep(self, px: np.ndarray, kept: np.ndarray) -> None:
        self._ids, self._px = self._ids[kept], px[kept]

    def _refill(self, grey: np.ndarray, free: np.ndarray) -> None:
        new = _corners(grey, free, self._px)
        self._ids = np.concatenate([self._ids, self._next + np.arange(len(new))])
        self._px = np.concatenate([self._px, new])
        self._next += len(new)


def _corners(grey: np.ndarray, free: np.ndarray, known: np.ndarray) -> np.ndarray:
    """New corners (N, 2) float32, spread over the picture: of each cell of a grid the strongest, as many as it lacks, none near a known one.

    The strength is the lesser eigenvalue of the gradients (Shi and Tomasi, 1994), which must be far above that of the sensor's noise.
    """
    strength = cv2.cornerMinEigenVal(grey, _BLOCK_PX)
    peak = (strength == cv2.dilate(strength, np.ones((2 * _APART_PX + 1,) * 2, np.uint8))) & (strength > _LEAST_STRENGTH) & (free > 0)
    for x, y in np.rint(known).astype(int):
        peak[max(0, y - _APART_PX) : y + _APART_PX + 1, max(0, x - _APART_PX) : x + _APART_PX + 1] = False
    side = max(grey.shape) / _CELLS
    columns = int(np.ceil(grey.shape[1] / side))
    rows_px, columns_px = np.nonzero(peak)
    cell = (rows_px // side).astype(int) * columns + (columns_px // side).astype(int)
    taken = np.bincount((known[:, 1] // side).astype(int) * columns + (known[:, 0] // side).astype(int), minlength=columns * _CELLS)
    order = np.lexsort((-strength[rows_px, columns_px], cell))
    first = np.searchsorted(cell[order], cell[order])
    chosen = order[np.arange(len(order)) - first < _PER_CELL - taken[cell[order]]]
    if not len(chosen):
        return np.zeros((0, 2), np.float32)
    found = np.stack([columns_px[chosen], rows_px[chosen]], 1).ravel().astype(np.float32).reshape(-1, 1, 2)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)
    return np.asarray(cv2.cornerSubPix(grey, found, (3, 3), (-1, -1), stop)[:, 0], np.float32)


def _inside(px: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Which points (N, 2) lie where corners may be, (N,) bool."""
    x, y = np.rint(px).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < free.shape[1]) & (y < free.shape[0])
    inside[inside] = free[y[inside], x[inside]] > 0
    return inside
