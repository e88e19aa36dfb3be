"""OpenMMLab's hand networks: RTMDet-nano finds boxes (Lyu et al., 2022), RTMPose-m the 21 points in one (Jiang et al., 2023). ONNX, as published.

What goes in and how the answers are read is as the files' own pipelines have it (mmpose, `projects/rtmpose/rtmdet/hand` and
`configs/hand_2d_keypoint/rtmpose/hand5`; mmdeploy): a letterbox of 320 px with the picture at its top left, blue first; a square of 256 px about the
box grown by 1.25, red first; and for each point one row of answers along x and one along y, two to a pixel (SimCC; Li et al., 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.onnx_network import OnnxNetwork, Shape
from egoworld_ops.vision.boxes import iou

DETECTOR_PX, POINTS_PX = 320, 256
_MEAN, _STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
"""Of red, green and blue."""
_GREY = 114
_PADDING = 1.25
_BINS = 2
"""Answers to a pixel."""
DETECTOR_INPUT: dict[str, Shape] = {"input": (1, 3, DETECTOR_PX, DETECTOR_PX)}
DETECTOR_OUTPUTS: dict[str, Shape | None] = {"dets": (1, "boxes", 5), "labels": (1, "boxes")}
POINTS_INPUT: dict[str, Shape] = {"input": (1, 3, POINTS_PX, POINTS_PX)}
POINTS_OUTPUTS: dict[str, Shape | None] = dict.fromkeys(("simcc_x", "simcc_y"), (1, 21, _BINS * POINTS_PX))


@dataclass(frozen=True, slots=True)
class Box:
    """A hand's box (4,) x, y, width, height, float64, within the picture; and how sure it is."""

    box_px: np.ndarray
    score: float


@dataclass(frozen=True, slots=True)
class Square:
    """The part of a picture that the network of points sees: a square around a box.

    Args:
        centre_px: (2,) float64.
        side_px: its side in the picture.
    """

    centre_px: np.ndarray
    side_px: float

    @classmethod
    def around(cls, box_px: np.ndarray) -> Square:
        """Of a box (4,) x, y, width, height."""
        return cls(box_px[:2] + box_px[2:] / 2, _PADDING * float(box_px[2:].max()))

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Pixels of the picture of points (..., 2) in pixels of the crop: its middle, (128, 128), is the square's."""
        return np.asarray(self.centre_px + (points - POINTS_PX / 2) * (self.side_px / POINTS_PX))

    def crop(self, rgb: np.ndarray) -> np.ndarray:
        """(256, 256, 3) uint8 of a picture (H, W, 3); black beside it."""
        scale = self.side_px / POINTS_PX
        corner = self.to_picture(np.zeros(2))
        inverse = np.array([[scale, 0.0, corner[0]], [0.0, scale, corner[1]]])
        return np.asarray(cv2.warpAffine(rgb, inverse, (POINTS_PX, POINTS_PX), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))


def find_boxes(network: OnnxNetwork, rgb: np.ndarray, min_score: float, max_iou: float) -> list[Box]:
    """The hands of a picture (H, W, 3) uint8, surest first; of those that overlap by more than `max_iou` the surest."""
    picture, scale = letterbox(rgb)
    dets, labels = network(input=picture)
    sure = dets[0][(labels[0] == 0) & (dets[0][:, 4] >= min_score) & np.isfinite(dets[0]).all(1)].astype(np.float64)
    found: list[Box] = []
    for det in sorted(sure, key=lambda det: -det[4]):
        low, high = np.clip(det[:2] / scale, 0, rgb.shape[1::-1]), np.clip(det[2:4] / scale, 0, rgb.shape[1::-1])
        box_px = np.concatenate([low, high - low])
        if (box_px[2:] > 1).all() and all(iou(box_px, other.box_px) <= max_iou for other in found):
            found.append(Box(box_px, float(min(det[4], 1.0))))
    return found


def letterbox(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1, 3, 320, 320) float32 what the detector sees of a picture (H, W, 3), and (2,) its pixels to one of the picture, along x and y."""
    height, width = rgb.shape[:2]
    ratio = DETECTOR_PX / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    canvas = np.full((DETECTOR_PX, DETECTOR_PX, 3), _GREY, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    return _normalised(canvas)[:, ::-1].copy(), np.array([size[0] / width, size[1] / height])


def find_points(network: OnnxNetwork, rgb: np.ndarray, box_px: np.ndarray) -> tuple[np.ndarray, float]:
    """The 21 points (21, 2) float64 of the hand in a box, in pixels of the picture, in the contract's order; and how sure the network is of them."""
    square = Square.around(box_px)
    x, y = network(input=_normalised(square.crop(rgb)))
    return square.to_picture(simcc_points(x[0], y[0])), _sureness([x[0], y[0]])


def simcc_points(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(21, 2) float64 pixels of the crop where the answers along x and y (21, 512) are greatest."""
    return np.stack([x.argmax(1), y.argmax(1)], 1) / _BINS


def _sureness(answers: Sequence[np.ndarray]) -> float:
    """Mean over the points of the smaller of its two greatest answers, from 0 to 1, as the published code scores a point."""
    least = np.minimum(*(answer.max(1) for answer in answers))
    return float(np.clip(np.nan_to_num(least, nan=0.0), 0, 1).mean())


def _normalised(picture: np.ndarray) -> np.ndarray:
    """(1, 3, h, w) float32, red first."""
    return np.ascontiguousarray(((picture.astype(np.float32) - _MEAN) / _STD).transpose(2, 0, 1)[None])
