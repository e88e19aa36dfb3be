"""Crops for networks that estimate a hand mesh from a square image of one right hand (HaMeR, WiLoR): making them, and coming back from them.

Such a network sees a left hand mirrored, as if it were a right one. Its output is mirrored back here, in one place: x of points, y and z of
axis-angles. A backend for one of them is a file beside this one: boxes from the detections in, `HandCrop.image` through the network, then
`to_image_px`, `to_camera_m` and `to_own_side`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.types import Camera, Hand
from egoworld_ops.vision.geometry import project

_MIRROR_X = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class HandCrop:
    """One hand cut out as a square, mirrored for a left hand.

    Args:
        hand: left or right, as detected.
        image: (S, S, 3) uint8 RGB; black outside the video's frame.
        origin_px: (2,) point of the video's frame that the crop's pixel (0, 0), of the unmirrored crop, lies on.
        scale: crop pixels per pixel of the video.
        camera: intrinsics of the crop as it is, mirrored or not: it looks at the same scene (mirrored in x) from the same place.
    """

    hand: Hand
    image: np.ndarray
    origin_px: np.ndarray
    scale: float
    camera: Camera

    def to_crop_px(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the video's frame to pixels of this crop."""
        points = (np.asarray(points_px, np.float64) - self.origin_px) * self.scale
        return self._flipped_px(points)

    def to_image_px(self, crop_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of this crop to pixels of the video's frame."""
        return self._flipped_px(np.asarray(crop_px, np.float64)) / self.scale + self.origin_px

    def to_camera_m(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 3) points in the crop camera's frame to the video camera's frame; its own inverse."""
        return np.asarray(points_m, np.float64) * (_MIRROR_X if self.hand == "left" else 1.0)

    def to_own_side(self, axis_angles_rad: np.ndarray) -> np.ndarray:
        """(..., 3) axis-angles of the right hand that the network saw to those of the actual hand; its own inverse."""
        return np.asarray(axis_angles_rad, np.float64) * (-_MIRROR_X if self.hand == "left" else 1.0)

    def projected(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of this crop of (..., 3) points in the crop camera's frame."""
        return project(self.camera, points_m)

    def _flipped_px(self, points: np.ndarray) -> np.ndarray:
        if self.hand == "right":
            return points
        return np.stack([self.camera.width - 1 - points[..., 0], points[..., 1]], axis=-1)


def cut(rgb: np.ndarray, box_px: np.ndarray, hand: Hand, camera: Camera, size_px: int, padding: float) -> HandCrop:
    """The square around a hand's box.

    Args:
        rgb: (H, W, 3) uint8 frame.
        box_px: (4,) x, y, width, height of the detection.
        hand: left hands are mirrored.
        camera: intrinsics of the frame.
        size_px: side of the crop.
        padding: side of the square over the longer side of the box (HaMeR was trained with 2).

    Raises:
        ValueError: the box has no area, or the padding is not above 0.
    """
    x, y, w, h = (float(v) for v in box_px)
    if not (w > 0 and h > 0 and padding > 0 and size_px > 1):
        raise ValueError(f"cut: want a box with an area, padding > 0 and size_px > 1, got {box_px}, {padding}, {size_px}")
    scale = (size_px - 1) / (max(w, h) * padding)
    centre = np.array([x + w / 2, y + h / 2])
    origin = centre - (size_px - 1) / 2 / scale
    to_crop = np.array([[scale, 0, -origin[0] * scale], [0, scale, -origin[1] * scale]])
    image = cv2.warpAffine(rgb, to_crop, (size_px, size_px), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cx, cy = (np.array([camera.cx_px, camera.cy_px]) - origin) * scale
    if hand == "left":
        image, cx = np.ascontiguousarray(image[:, ::-1]), size_px - 1 - cx
    crop_camera = Camera(camera.fx_px * scale, camera.fy_px * scale, float(cx), float(cy), size_px, size_px, camera.source)
    return HandCrop(hand, image, origin, scale, crop_camera)
