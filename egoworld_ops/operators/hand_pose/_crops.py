"""Crops for networks that estimate a hand mesh from a square image of one right hand (HaMeR, WiLoR): making them, and coming back from them.

Such a network sees a left hand mirrored, as if it were a right one. Its output is mirrored back here, in one place: x of points, y and z of
axis-angles. A backend for one of them is a file beside this one: boxes from the detections in, `HandCrop.image` through the network, then
`to_image_px`, `to_camera_m` and `to_own_side`.

A crop of a pinhole camera's picture is a square of that picture. A lens's is rectified: it is what a pinhole camera in the same place sees that
looks straight at the middle of the box, since such networks know no other. `to_camera_m` turns its points back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.types import Camera, Hand
from egoworld_ops.vision.geometry import project, towards
from egoworld_ops.vision.lenses import pixels_per_radian, rectified_map, unproject

_MOST_SAMPLES = 6
"""A rectified crop takes up to as many samples a pixel, along each side, as the video has pixels there."""
_MIRROR_X = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class HandCrop:
    """One hand cut out as a square, mirrored for a left hand.

    Args:
        hand: left or right, as detected.
        image: (S, S, 3) uint8 RGB; black outside the video's frame.
        camera: pinhole intrinsics of the crop as it is, mirrored or not: it looks at the same scene (mirrored in x) from the same place.
        lens: the camera of the video.
        R_camera_crop: (3, 3) from the crop's unmirrored camera to that of the video; the identity for a pinhole camera.
    """

    hand: Hand
    image: np.ndarray
    camera: Camera
    lens: Camera
    R_camera_crop: np.ndarray

    def to_crop_px(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the video's frame to pixels of this crop; NaN where the crop's camera does not look that way."""
        return self.projected(self.to_crop_m(unproject(self.lens, points_px)))

    def to_image_px(self, crop_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of this crop to pixels of the video's frame; NaN where the lens shows nothing there."""
        return project(self.lens, self.to_camera_m(unproject(self.camera, crop_px)))

    def to_camera_m(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 3) points in the crop camera's frame to the video camera's frame."""
        return (np.asarray(points_m, np.float64) * self._side) @ self.R_camera_crop.T

    def to_crop_m(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 3) points in the video camera's frame to the crop camera's frame."""
        return (np.asarray(points_m, np.float64) @ self.R_camera_crop) * self._side

    def to_own_side(self, axis_angles_rad: np.ndarray) -> np.ndarray:
        """(..., 3) axis-angles of joints of the right hand that the network saw to those of the actual hand; its own inverse."""
        return np.asarray(axis_angles_rad, np.float64) * (-_MIRROR_X if self.hand == "left" else 1.0)

    def projected(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of this crop of (..., 3) points in the crop camera's frame."""
        return project(self.camera, points_m)

    @property
    def _side(self) -> np.ndarray:
        return _MIRROR_X if self.hand == "left" else np.ones(3)


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
        ValueError: the box has no area or its middle is off the lens, or the padding is not above 0.
    """
    x, y, w, h = (float(v) for v in box_px)
    if not (w > 0 and h > 0 and padding > 0 and size_px > 1):
        raise ValueError(f"cut: want a box with an area, padding > 0 and size_px > 1, got {box_px}, {padding}, {size_px}")
    scale = (size_px - 1) / (max(w, h) * padding)
    centre = np.array([x + w / 2, y + h / 2])
    if not camera.is_pinhole:
        return _rectified(rgb, centre, scale, hand, camera, size_px)
    origin = centre - (size_px - 1) / 2 / scale
    to_crop = np.array([[scale, 0, -origin[0] * scale], [0, scale, -origin[1] * scale]])
    image = cv2.warpAffine(rgb, to_crop, (size_px, size_px), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cx, cy = (np.array([camera.cx_px, camera.cy_px]) - origin) * scale
    if hand == "left":
        image, cx = np.ascontiguousarray(image[:, ::-1]), size_px - 1 - cx
    focal_px = (camera.fx_px * scale, camera.fy_px * scale)
    crop_camera = Camera(*focal_px, float(cx), float(cy), size_px, size_px, camera.source, focal_error_share=camera.focal_error_share)
    return HandCrop(hand, image, crop_camera, camera, np.eye(3))


def _rectified(rgb: np.ndarray, centre_px: np.ndarray, scale: float, hand: Hand, camera: Camera, size_px: int) -> HandCrop:
    """What a pinhole camera sees that looks at a pixel, `scale` times as large as the lens shows it there."""
    ray = unproject(camera, centre_px)
    if not np.isfinite(ray).all():
        raise ValueError(f"cut: the middle of the box, {centre_px}, lies where the {camera.model} lens shows nothing")
    focal_px, middle = scale * float(pixels_per_radian(camera, ray)), (size_px - 1) / 2
    view = Camera(focal_px, focal_px, middle, middle, size_px, size_px, camera.source, focal_error_share=camera.focal_error_share)
    R_camera_crop = towards(ray[None])[0]
    finer = min(max(math.ceil(1 / scale), 1), _MOST_SAMPLES)
    finer_px, finer_middle, finer_size = focal_px * finer, (middle + 0.5) * finer - 0.5, size_px * finer
    large = Camera(finer_px, finer_px, finer_middle, finer_middle, finer_size, finer_size, camera.source)
    columns, rows = rectified_map(camera, large, R_camera_crop)
    image = cv2.remap(rgb, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    image = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return HandCrop(hand, np.ascontiguousarray(image[:, ::-1]) if hand == "left" else image, view, camera, R_camera_crop)
