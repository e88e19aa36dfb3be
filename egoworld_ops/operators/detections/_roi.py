"""Regions of interest: the rotated squares that the hand networks see, cut as MediaPipe cuts them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

_RECT_LANDMARKS = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]
"""Landmarks that give the next frame's square: the fingertips, which move most, are left out."""


@dataclass(frozen=True, slots=True)
class Roi:
    """A square in the image, turned clockwise by `angle_rad`.

    Args:
        centre_px: (2,) float64.
        side_px: length of a side.
        angle_rad: the direction (sin, -cos) points up in the crop.
    """

    centre_px: np.ndarray
    side_px: float
    angle_rad: float

    @property
    def rotation(self) -> np.ndarray:
        """(2, 2) float64: turns directions of the crop into directions of the image."""
        c, s = math.cos(self.angle_rad), math.sin(self.angle_rad)
        return np.array([[c, -s], [s, c]])

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 2) points of the unit square of the crop to image pixels."""
        return self.centre_px + self.side_px * (points - 0.5) @ self.rotation.T

    def crop(self, rgb: np.ndarray, size_px: int, border: int) -> np.ndarray:
        """The square, upright, as (size_px, size_px, 3) uint8: bilinear, corner to corner, `border` is OpenCV's.

        The corners of the square map to 0 and `size_px` (not to pixel edges at -0.5), as MediaPipe's OpenCV converter does.
        """
        linear = self.rotation * (self.side_px / size_px)
        offset = self.centre_px - self.rotation @ np.full(2, self.side_px / 2)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(rgb, np.column_stack([linear, offset]), (size_px, size_px), flags=flags, borderMode=border)


def upright_angle_rad(start_px: np.ndarray, end_px: np.ndarray) -> float:
    """The angle of a square in which the direction from start to end points up; within [-pi, pi)."""
    dx, dy = end_px - start_px
    angle = math.pi / 2 - math.atan2(-dy, dx)
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def roi_from_palm(box_px: np.ndarray, keypoints_px: np.ndarray) -> Roi:
    """The square around a whole hand from its palm (MediaPipe's palm_detection_detection_to_roi: scale 2.6, shifted up by half).

    Args:
        box_px: (4,) centre x, centre y, width, height of the palm.
        keypoints_px: (7, 2), of which 0 is the wrist and 2 the middle finger's MCP.
    """
    angle = upright_angle_rad(keypoints_px[0], keypoints_px[2])
    return _grown(box_px[:2], box_px[2], box_px[3], angle, scale=2.6, shift=-0.5)


def roi_from_landmarks(points_px: np.ndarray) -> Roi:
    """The square for the next frame from (21, 2) landmarks (MediaPipe's hand_landmark_landmarks_to_roi: scale 2, shifted up by 0.1)."""
    knuckles = 0.5 * (0.5 * (points_px[5] + points_px[13]) + points_px[9])
    angle = upright_angle_rad(points_px[0], knuckles)
    points = points_px[_RECT_LANDMARKS]
    c, s = math.cos(angle), math.sin(angle)
    rotation = np.array([[c, -s], [s, c]])
    middle = (points.max(0) + points.min(0)) / 2
    turned = (points - middle) @ rotation
    low, high = turned.min(0), turned.max(0)
    width, height = high - low
    return _grown(middle + rotation @ ((low + high) / 2), width, height, angle, scale=2.0, shift=-0.1)


def _grown(centre_px: np.ndarray, width: float, height: float, angle_rad: float, scale: float, shift: float) -> Roi:
    """A square on the longer side, grown by `scale`, moved by `shift` of the height along its own downward axis."""
    down = np.array([-math.sin(angle_rad), math.cos(angle_rad)])
    return Roi(centre_px + shift * height * down, scale * float(max(width, height)), angle_rad)
