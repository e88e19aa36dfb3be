"""Crops for networks that estimate a hand mesh from a square image of one right hand (HaMeR, WiLoR, HaWoR): making them, and coming back from them.

Such a network sees a left hand mirrored, as if it were a right one. Its output is mirrored back here, in one place: x of points, y and z of
axis-angles. A backend for one of them is a file beside this one: boxes from the detections in, `HandCrop.image` through the network, then
`to_image_px`, `to_camera_m` and `to_own_side`.

A crop of a pinhole camera's picture is a square of that picture, cut as HaMeR's own code does (hamer/datasets/utils.py, commit 3a01849): the box,
grown, is widened to 3:4, as the network sees no more than that of the square; its middle comes to pixel (S / 2, S / 2), its edge to S; what is
shrunk to less than half is blurred before. A lens's crop is rectified: it is what a pinhole camera in the same place sees that looks straight at
the middle of the box, since such networks know no other. `to_camera_m` turns its points back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.types import Camera, Hand
from egoworld_ops.vision.geometry import project, towards
from egoworld_ops.vision.lenses import pixels_per_radian, rectified_map, unproject

_ASPECT = 4 / 3
"""Height over width of the part of the square that the network sees."""
_BLURRED_ABOVE = 1.1
"""The blur begins where the picture is shrunk to less than half by this factor."""
_KERNEL_SIGMAS = 4.0
"""Radius of the blur's kernel."""
_MIRROR_X = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class HandCrop:
    """One hand cut out as a square, mirrored for a left hand.

    Args:
        hand: left or right, as detected.
        image: (S, S, 3) float32 RGB, 0 to 255; black outside the video's frame.
        camera: pinhole intrinsics of the crop as it is, mirrored or not: it looks at the same scene (mirrored in x) from the same place.
        lens: the camera of the video.
        R_camera_crop: (3, 3) from the crop's unmirrored camera to that of the video; the identity for a pinhole camera.
        R_camera_view: (3, 3) from a camera that looks straight at the middle of the box to that of the video. A network that sees only the crop
            takes it for such a camera's picture, and its orientation of the hand is in that frame.
    """

    hand: Hand
    image: np.ndarray
    camera: Camera
    lens: Camera
    R_camera_crop: np.ndarray
    R_camera_view: np.ndarray

    def to_crop_px(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the video's frame to pixels of this crop; NaN where the crop's camera does not look that way."""
        return self.projected(self.to_crop_m(unproject(self.lens, points_px)))

    def to_image_px(self, crop_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of this crop to pixels of the video's frame; NaN where the lens shows nothing there."""
        return project(self.lens, self.to_camera_m(unproject(self.camera, crop_px)))

    def to_camera_m(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 3) points in the crop camera's frame to the video camera's frame."""
        return self.to_own_points(points_m) @ self.R_camera_crop.T

    def to_crop_m(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 3) points in the video camera's frame to the crop camera's frame."""
        return self.to_own_points(np.asarray(points_m, np.float64) @ self.R_camera_crop)

    def to_own_points(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 3) points of the right hand that the network saw to those of the actual hand; its own inverse."""
        return np.asarray(points_m, np.float64) * (_MIRROR_X if self.hand == "left" else 1.0)

    def to_own_side(self, axis_angles_rad: np.ndarray) -> np.ndarray:
        """(..., 3) axis-angles of joints of the right hand that the network saw to those of the actual hand; its own inverse."""
        return np.asarray(axis_angles_rad, np.float64) * (-_MIRROR_X if self.hand == "left" else 1.0)

    def projected(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of this crop of (..., 3) points in the crop camera's frame."""
        return project(self.camera, points_m)


def cut(rgb: np.ndarray, box_px: np.ndarray, hand: Hand, camera: Camera, size_px: int, padding: float, aspect: float = _ASPECT) -> HandCrop:
    """The square around a hand's box.

    Args:
        rgb: (H, W, 3) uint8 frame.
        box_px: (4,) x, y, width, height of the detection.
        hand: left hands are mirrored.
        camera: intrinsics of the frame.
        size_px: side of the crop.
        padding: by which the box is grown before it is widened (HaMeR's demo: 2).
        aspect: height over width to which it is widened.

    Raises:
        ValueError: the box has no area or its middle is off the lens, or the padding is not above 0.
    """
    x, y, w, h = (float(v) for v in box_px)
    if not (w > 0 and h > 0 and padding > 0 and size_px > 1):
        raise ValueError(f"cut: want a box with an area, padding > 0 and size_px > 1, got {box_px}, {padding}, {size_px}")
    centre_px, side_px = np.array([x + w / 2, y + h / 2]), side_of(w, h, padding, aspect)
    ray = unproject(camera, centre_px)
    if not np.isfinite(ray).all():
        raise ValueError(f"cut: the middle of the box, {centre_px}, lies where the {camera.model} lens shows nothing")
    scale, middle, R_camera_view = size_px / side_px, size_px / 2, towards(ray[None])[0]
    if camera.is_pinhole:
        image = _warped(rgb, centre_px, side_px, size_px, hand)
        focal_px, R_camera_crop = (camera.fx_px * scale, camera.fy_px * scale), np.eye(3)
        cx, cy = (np.array([camera.cx_px, camera.cy_px]) - centre_px) * scale + middle
    else:
        focal_px, R_camera_crop = (scale * float(pixels_per_radian(camera, ray)),) * 2, R_camera_view
        cx = cy = middle
        view = Camera(*focal_px, middle, middle, size_px, size_px, camera.source)
        image = _rectified(rgb, camera, view, R_camera_view, side_px, hand)
    cx = size_px - cx if hand == "left" else cx
    seen = Camera(*focal_px, float(cx), float(cy), size_px, size_px, camera.source, focal_error_share=camera.focal_error_share)
    return HandCrop(hand, image, seen, camera, R_camera_crop, R_camera_view)


def side_of(width_px: float, height_px: float, padding: float, aspect: float = _ASPECT) -> float:
    """Side of the square around a box, pixels of the frame."""
    return padding * max(height_px, aspect * width_px)


def _warped(rgb: np.ndarray, centre_px: np.ndarray, side_px: float, size_px: int, hand: Hand) -> np.ndarray:
    """The square of a picture as it is; of the picture's mirror image for a left hand."""
    part, (left, top) = _around(rgb, centre_px - side_px / 2, centre_px + side_px / 2, side_px, size_px)
    cx, cy = centre_px - (left, top)
    if hand == "left":
        part, cx = part[:, ::-1], part.shape[1] - 1 - cx
    step = side_px / size_px
    from_crop = np.array([[step, 0, cx - side_px / 2], [0, step, cy - side_px / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _float(cv2.warpAffine(np.ascontiguousarray(part), from_crop, (size_px, size_px), flags=flags))


def _rectified(rgb: np.ndarray, camera: Camera, view: Camera, R_camera_view: np.ndarray, side_px: float, hand: Hand) -> np.ndarray:
    """What a turned pinhole camera sees; mirrored about its middle for a left hand."""
    mirrored = hand == "left"
    if mirrored:  # pixel u shows what is at size - u: what is reversed begins a pixel farther
        view = Camera(view.fx_px, view.fy_px, view.cx_px - 1, view.cy_px, view.width, view.height, view.source)
    columns, rows = (np.ascontiguousarray(m[:, ::-1]) if mirrored else m for m in rectified_map(camera, view, R_camera_view))
    height, width = rgb.shape[:2]
    shown = (columns > -1) & (rows > -1) & (columns < width) & (rows < height)
    if not shown.any():
        return np.zeros((view.height, view.width, 3), np.float32)
    there = np.stack([columns[shown], rows[shown]], 1)
    part, (left, top) = _around(rgb, there.min(0), there.max(0), side_px, view.width)
    return _float(cv2.remap(part, columns - np.float32(left), rows - np.float32(top), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))


def _around(rgb: np.ndarray, low_px: np.ndarray, high_px: np.ndarray, side_px: float, size_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of a picture that a crop samples between two corners, blurred for its scale, and its left and top; a black pixel if there is none."""
    shrunk = side_px / size_px / 2
    sigma = (shrunk - 1) / 2 if shrunk > _BLURRED_ABOVE else 0.0
    radius = int(_KERNEL_SIGMAS * sigma + 0.5)
    height, width = rgb.shape[:2]
    left, top = (max(math.floor(v) - radius - 2, 0) for v in low_px)
    right, bottom = (min(math.ceil(v) + radius + 3, most) for v, most in zip(high_px, (width, height), strict=True))
    if left >= right or top >= bottom:
        return np.zeros((1, 1, 3), np.uint8), (-(1 << 20), -(1 << 20))
    part = rgb[top:bottom, left:right]
    if sigma:
        part = cv2.GaussianBlur(part.astype(np.float32), (2 * radius + 1,) * 2, sigma, borderType=cv2.BORDER_REPLICATE)
    return part, (left, top)


def _float(image: np.ndarray) -> np.ndarray:
    return np.asarray(image, np.float32)
