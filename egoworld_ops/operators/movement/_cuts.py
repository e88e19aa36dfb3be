"""Cuts within a clip, that scene detection missed or was not asked for: nothing of the picture before can be followed, and it is no other light."""

from __future__ import annotations

import cv2
import numpy as np

from egoworld_ops.operators.movement._flow import Flow
from egoworld_ops.video.likeness import Picture

_MIN_POINTS = 40
_FOLLOWED = 0.1
"""At 10 cuts planted in real and rendered video at most 0.03 of the points were followed, and at least 0.66 in any other frame."""
_CELLS = (16, 9)


class Cuts:
    """The positions at which another scene begins."""

    def __init__(self) -> None:
        self.found: list[int] = []
        self._before: np.ndarray | None = None

    def see(self, position: int, rgb: np.ndarray, background: Flow) -> None:
        """Look at a frame (H, W, 3) uint8 into which the background has been followed."""
        before, self._before = self._before, rgb
        searched, followed = background.followed
        if before is None or searched < _MIN_POINTS or len(background) < _MIN_POINTS or followed > _FOLLOWED * searched:
            return
        if not _picture(before).is_like(_picture(rgb)):
            self.found.append(position)

    def within(self, position: int, reach: tuple[int, int]) -> tuple[int, int]:
        """The part of a reach, its first and last position, that is of the scene of a position."""
        first = max((cut for cut in self.found if cut <= position), default=reach[0])
        last = min((cut - 1 for cut in self.found if cut > position), default=reach[1])
        return max(first, reach[0]), min(last, reach[1])


def _picture(rgb: np.ndarray) -> Picture:
    bgr = rgb[:, :, ::-1]
    return Picture(cv2.resize(np.ascontiguousarray(bgr), _CELLS, interpolation=cv2.INTER_AREA), np.ascontiguousarray(bgr))
