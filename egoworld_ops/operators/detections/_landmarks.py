"""Hand landmarks: MediaPipe's network on the crop of one hand."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from egoworld_ops.operators.detections._network import Network
from egoworld_ops.operators.detections._roi import Roi


@dataclass(frozen=True, slots=True)
class Landmarks:
    """What the network sees in one crop.

    Args:
        points_px: (21, 2) in the image.
        landmarks_m: (21, 3) about the hand's own centre, axes of the image: x right, y down, z away; None where only points are known.
        presence: probability that there is a hand.
        right: probability that it is a right hand (of the person; the image is not mirrored).
    """

    points_px: np.ndarray
    landmarks_m: np.ndarray | None
    presence: float
    right: float


class LandmarkNetwork:
    """Finds the 21 landmarks of the hand in a region of interest."""

    def __init__(self, path: Path, threads: int) -> None:
        self._network = Network(path, threads)

    def __call__(self, rgb: np.ndarray, roi: Roi) -> Landmarks:
        """The landmarks of the hand in `roi` of an (H, W, 3) uint8 image, whether or not there is one: see `presence`."""
        size_px = self._network.size_px
        points, presence, right, world = self._network(roi.crop(rgb, size_px, cv2.BORDER_REPLICATE))
        landmarks_m = world.reshape(21, 3).astype(np.float64)
        landmarks_m[:, :2] = landmarks_m[:, :2] @ roi.rotation.T
        points_px = roi.to_image(points.reshape(21, 3)[:, :2].astype(np.float64) / size_px)
        return Landmarks(points_px, landmarks_m, float(presence[0]), float(right[0]))


class LandmarkNetworks:
    """One landmark network per hand of the wearer: one hand gets all threads, several hands share them and run in parallel.

    Args:
        path: the network's file.
        threads: threads for all together.
        hands: number of networks that run at once.
    """

    def __init__(self, path: Path, threads: int, hands: int) -> None:
        self.hands = hands
        self._alone = LandmarkNetwork(path, threads)
        self._together = [LandmarkNetwork(path, threads // hands) for _ in range(hands)] if 1 < hands <= threads else []

    def __call__(self, rgb: np.ndarray, rois: Sequence[Roi], workers: Executor) -> list[Landmarks]:
        """The landmarks in each region; several regions run on `workers`, `hands` at a time."""
        if len(rois) == 1 or not self._together:
            return [self._alone(rgb, roi) for roi in rois]
        found: list[Landmarks] = []
        for first in range(0, len(rois), self.hands):
            looks = [workers.submit(network, rgb, roi) for network, roi in zip(self._together, rois[first:], strict=False)]
            found += [look.result() for look in looks]
        return found
