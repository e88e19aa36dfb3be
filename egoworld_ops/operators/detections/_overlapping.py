"""Boxes that are found anew in each frame, as hands: a box is the hand whose last box it overlaps most, all of them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from egoworld_ops.vision.boxes import iou

_SAME = 0.2
"""Least overlap of a hand's boxes in two frames: at 30 frames a second a fast hand moves by half its width."""


class Overlapping:
    """The hands of one clip. Call it once a frame, in order.

    Args:
        patience: frames in which a hand may be missed and keeps its number.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._last: dict[int, np.ndarray] = {}
        self._missed: dict[int, int] = {}
        self._next = 0

    def __call__(self, boxes_px: Sequence[np.ndarray]) -> list[int]:
        """The number of each box's hand; numbers begin with 0 and are given once.

        The assignment has the greatest sum of overlaps (Kuhn, "The Hungarian Method for the Assignment Problem", 1955).
        """
        from scipy.optimize import linear_sum_assignment

        known = list(self._last)
        numbers: dict[int, int] = {}
        if known and boxes_px:
            overlaps = iou(np.stack(boxes_px)[:, None], np.stack([self._last[number] for number in known])[None])
            pairs = zip(*linear_sum_assignment(-overlaps), strict=True)
            numbers = {int(i): known[j] for i, j in pairs if overlaps[i, j] >= _SAME}
        for i, box_px in enumerate(boxes_px):
            if i not in numbers:
                numbers[i], self._next = self._next, self._next + 1
            self._last[numbers[i]], self._missed[numbers[i]] = box_px, -1
        for number in list(self._last):
            self._missed[number] += 1
            if self._missed[number] > self._patience:
                del self._last[number], self._missed[number]
        return [numbers[i] for i in range(len(boxes_px))]
