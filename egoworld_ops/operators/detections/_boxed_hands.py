"""The 21 points of hands whose boxes are known: MediaPipe's landmark network on each, whichever way the hand is turned.

A hand that was seen in the frame before is looked for where its points were; another one in its box, turned in eight ways, of which the best counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.detections._arms import HandEvidence
from egoworld_ops.operators.detections._landmarks import Landmarks
from egoworld_ops.operators.detections._roi import Roi, roi_from_landmarks

_TURNS = 8
_GROWTH = 1.5
"""Side of the first square, in longer sides of the box. Squares of the network's training hold a hand with a margin like this."""
_PATIENCE_FRAMES = 4
"""Frames from one search for points that were not found to the next."""
_INSIDE = 0.5
"""Share of the points that lie in the box, which is grown by a tenth for them: others are another hand's."""
_MARGIN = 0.1
_BLUNT = 0.3
"""How much the direction of a mask says of the forearm's, where it does not reach the picture's edge."""


@dataclass(slots=True)
class _Followed:
    roi: Roi | None = None
    searched: int = -_PATIENCE_FRAMES


class BoxedHands:
    """The hands of one clip. Call it once a frame, in order.

    Args:
        network: the landmark network.
        min_presence: probability of a hand below which there are no points.
    """

    def __init__(self, network: Callable[[np.ndarray, Roi], Landmarks], min_presence: float) -> None:
        self._network, self._min_presence = network, min_presence
        self._hands: dict[int, _Followed] = {}
        self._count = 0

    def __call__(self, rgb: np.ndarray, boxes_px: Mapping[int, np.ndarray]) -> dict[int, Landmarks]:
        """The landmarks of each hand that shows some.

        Args:
            rgb: (H, W, 3) uint8.
            boxes_px: (4,) x, y, width, height of each hand, by its number in the clip.
        """
        found = {number: seen for number, box_px in boxes_px.items() if (seen := self._look(rgb, number, box_px)) is not None}
        self._hands = {number: hand for number, hand in self._hands.items() if number in boxes_px}
        self._count += 1
        return found

    def _look(self, rgb: np.ndarray, number: int, box_px: np.ndarray) -> Landmarks | None:
        hand = self._hands.setdefault(number, _Followed(searched=self._count - _PATIENCE_FRAMES))
        seen = self._network(rgb, hand.roi) if hand.roi is not None else None
        if seen is None or not self._is_in(seen, box_px):
            hand.roi = None
            if self._count - hand.searched < _PATIENCE_FRAMES:
                return None
            hand.searched = self._count
            seen = self._search(rgb, box_px)
            if not self._is_in(seen, box_px):
                return None
        hand.roi = roi_from_landmarks(seen.points_px)
        return seen

    def _search(self, rgb: np.ndarray, box_px: np.ndarray) -> Landmarks:
        centre, side = box_px[:2] + box_px[2:] / 2, _GROWTH * float(box_px[2:].max())
        turned = [self._network(rgb, Roi(centre, side, 2 * math.pi * turn / _TURNS - math.pi)) for turn in range(_TURNS)]
        best = max(turned, key=lambda seen: seen.presence)
        again = self._network(rgb, roi_from_landmarks(best.points_px))
        return again if again.presence >= min(best.presence, self._min_presence) else best

    def _is_in(self, seen: Landmarks, box_px: np.ndarray) -> bool:
        margin = _MARGIN * box_px[2:].max()
        inside = ((seen.points_px >= box_px[:2] - margin) & (seen.points_px <= box_px[:2] + box_px[2:] + margin)).all(1)
        return seen.presence >= self._min_presence and bool(inside.mean() >= _INSIDE)


def evidence_of_mask(mask: np.ndarray, scale_px: np.ndarray) -> HandEvidence:
    """What the mask of a hand without points says of its side: its arm is where it leaves the picture, or else along it, towards the bottom edge.

    Args:
        mask: (h, w) bool with at least a pixel.
        scale_px: (2,) pixels of the picture to one of the mask, along x and y.
    """
    ys, xs = np.nonzero(mask)
    points_px = (np.stack([xs, ys], 1) + 0.5) * scale_px - 0.5
    centre_px, axis, length_px = _axis(points_px)
    at_edge = (xs == 0) | (xs == mask.shape[1] - 1) | (ys == 0) | (ys == mask.shape[0] - 1)
    if at_edge.any():
        towards = points_px[at_edge].mean(0) - centre_px
        forearm = towards / max(float(np.linalg.norm(towards)), 1.0)
    else:
        forearm = _BLUNT * axis * (1.0 if axis[1] >= 0 else -1.0)
    return HandEvidence(centre_px, centre_px + 1.5 * length_px * forearm, forearm, length_px, 0.5)


def _axis(points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Middle of points (N, 2), the unit direction in which they spread most, and half their extent in it, at least 1."""
    mean, vectors, variances = cv2.PCACompute2(points_px.astype(np.float64), np.empty(0))
    extent = 2 * math.sqrt(max(float(variances[0, 0]), 0.0))
    return mean[0], vectors[0], max(extent, 1.0)
