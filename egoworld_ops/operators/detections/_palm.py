"""Palm detection: MediaPipe's single-shot network on the letterboxed image, decoded as its own graph does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from egoworld_ops.operators.detections._network import Network
from egoworld_ops.operators.detections._roi import Roi
from egoworld_ops.vision.boxes import iou

_STRIDES_PX = (8, 16, 16, 16)
_ANCHORS_PER_LAYER = 2
_SUPPRESSION_IOU = 0.3
_KEYPOINTS = 7
_WIDE = 1.2
"""Ratio of longer to shorter side from which an image is also searched in parts."""
_MARGIN_OUT, _MARGIN_BELOW = 0.1, 0.14
"""Parts of the shorter side that squares reach beyond the image."""
PALM_LANDMARKS = [0, 5, 9, 13, 17, 1, 2]
"""The hand landmarks that the palm's 7 keypoints correspond to: wrist, the four MCPs, thumb CMC and MCP."""


@dataclass(frozen=True, slots=True)
class Palm:
    """One palm.

    Args:
        box_px: (4,) centre x, centre y, width, height.
        keypoints_px: (7, 2), as `PALM_LANDMARKS`.
        score: 0 to 1.
    """

    box_px: np.ndarray
    keypoints_px: np.ndarray
    score: float


class PalmDetector:
    """Finds palms anywhere in an image."""

    def __init__(self, path: Path, threads: int, min_score: float) -> None:
        self._network = Network(path, threads)
        self._min_logit = float(np.log(min_score / (1 - min_score)))
        self._anchors = _anchors(self._network.size_px)

    def __call__(self, rgb: np.ndarray, view: Roi) -> list[Palm]:
        """Palms in an upright square of an (H, W, 3) uint8 image, best first."""
        regressors, logits = self._network(view.crop(rgb, self._network.size_px, cv2.BORDER_CONSTANT))
        found = _suppressed(*self._decoded(regressors, logits[:, 0]))
        return [Palm(np.concatenate([view.to_image(v[0]), v[1] * view.side_px]), view.to_image(v[2:]), s) for v, s in found]

    def _decoded(self, regressors: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 9, 2) centre, size and keypoints in the unit square, and (N,) scores, best first."""
        likely = np.flatnonzero(logits > self._min_logit)
        likely = likely[np.argsort(-logits[likely], kind="stable")]
        values = regressors[likely].astype(np.float64).reshape(-1, 2 + _KEYPOINTS, 2) / self._network.size_px
        values[:, 0] += self._anchors[likely]
        values[:, 2:] += self._anchors[likely, None]
        return values, 1 / (1 + np.exp(-logits[likely].astype(np.float64)))


def views(width_px: int, height_px: int) -> list[Roi]:
    """Where to search in turn: the whole image, letterboxed, as MediaPipe does; then squares on the shorter side that reach beyond the image.

    In a wide image the network sees the whole much reduced, and misses small and cut-off hands that it finds in the squares at its two ends. A hand
    that the edge of the image cuts off is found more often with a margin beyond that edge: the squares reach out at their ends, and in turn at the
    bottom, where the wearer's arms come from, and at the top.
    """
    size = np.array([width_px, height_px], np.float64)
    short, long = float(size.min()), float(size.max())
    whole = Roi(size / 2, long, 0.0)
    shifts = [np.array([0.0, part * short]) for part in (_MARGIN_BELOW, -_MARGIN_OUT)]
    if long < _WIDE * short:
        return [whole, *(Roi(size / 2 + shift, long, 0.0) for shift in shifts)]
    out = _MARGIN_OUT * short * (size > short)
    ends = np.full(2, short / 2) - out, size - short / 2 + out
    if height_px > width_px:
        return [whole, *(Roi(end, short, 0.0) for end in ends)]
    return [view for shift in shifts for view in (whole, *(Roi(end + shift, short, 0.0) for end in ends))]


def _anchors(size_px: int) -> np.ndarray:
    """(N, 2) anchor centres in the unit square: layers of equal stride share one grid (MediaPipe's SsdAnchorsCalculator)."""
    grids = []
    for stride in dict.fromkeys(_STRIDES_PX):
        n = size_px // stride
        centres = (np.arange(n) + 0.5) / n
        grid = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
        grids.append(np.repeat(grid, _ANCHORS_PER_LAYER * _STRIDES_PX.count(stride), axis=0))
    return np.concatenate(grids)


def _suppressed(values: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Weighted non-maximum suppression: each best palm becomes the score-weighted mean of all that overlap it."""
    found = []
    while len(scores):
        boxes = np.concatenate([values[:, 0] - values[:, 1] / 2, values[:, 1]], 1)
        same = iou(boxes[0], boxes) > _SUPPRESSION_IOU
        same[0] = True
        found.append((np.average(values[same], axis=0, weights=scores[same]), float(scores[0])))
        values, scores = values[~same], scores[~same]
    return found
