"""A keyframe: the cut-out of one frame around one object, with the data that registration and relocalisation need; and a glimpse, its mask alone.

Pixels are of the working picture, see `_working`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

MARGIN_PX = 28
FAR_PX = 24.0
"""Maximum distance to the mask's border; larger ones are set to it."""
HAND_MARGIN_PX = 5
FEATURES = 200
GLIMPSE_STEP = 2


@dataclass(frozen=True)
class Keyframe:
    """One object in one frame.

    Args:
        position: number of the frame among those processed.
        segment: number of the unbroken stretch of frames the object is seen in.
        rgb: (h, w, 3) uint8 cut-out.
        mask: (h, w) bool, the object.
        hands: (h, w) bool, hands and what lies just beside them: the object's outline is not known there.
        origin_px: (2,) image position of the cut-out's first pixel.
        image_size: (width, height) of the whole image.
    """

    position: int
    segment: int
    rgb: np.ndarray
    mask: np.ndarray
    hands: np.ndarray
    origin_px: np.ndarray
    image_size: tuple[int, int]

    @cached_property
    def distance(self) -> np.ndarray:
        """(h, w) float32 signed distance to the mask's border, positive outside, at most FAR_PX."""
        inside = self.mask.astype(np.uint8)
        out = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
        return np.clip(out - cv2.distanceTransform(inside, cv2.DIST_L2, 3), -FAR_PX, FAR_PX)

    @cached_property
    def distance_slope(self) -> np.ndarray:
        """(h, w, 2) float32 derivative of `distance` along x and y."""
        smooth = cv2.GaussianBlur(self.distance, (0, 0), 1.5)
        return np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)], -1)

    @cached_property
    def contrast(self) -> tuple[np.ndarray, np.ndarray]:
        """(h, w, 3) float32 derivatives of the colours along x and along y, in grey levels per pixel."""
        smooth = cv2.GaussianBlur(self.rgb, (0, 0), 1.0).astype(np.float32)
        return cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)

    @cached_property
    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """SIFT features on the object: (N, 2) image pixels and (N, 128) float32 descriptors."""
        grey = cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)
        where = (self.mask & ~self.hands).astype(np.uint8)
        found, descriptors = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=0.02).detectAndCompute(grey, where)
        if descriptors is None:
            return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
        return np.array([f.pt for f in found], np.float64) + self.origin_px, descriptors

    @property
    def clearness(self) -> float:
        """How much of the object is visible and free of hands: area of the mask, less where hands touch its border."""
        border = np.abs(self.distance) < 2
        touched = float((border & self.hands).sum()) / max(float(border.sum()), 1.0)
        return float(self.mask.sum()) * (1 - touched) ** 2

    def at(self, picture: np.ndarray, points_px: np.ndarray) -> np.ndarray:
        """Values of a picture of the cut-out at image pixels (N, 2), bilinear."""
        return cv2.remap(picture, *self._maps(points_px), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]

    def _maps(self, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows (1, N) float32 in the cut-out of image pixels (N, 2)."""
        column, row = np.ascontiguousarray((points_px - self.origin_px).T, np.float32)
        return column[None], row[None]

    def counts(self, points_px: np.ndarray) -> np.ndarray:
        """(N,) bool: image pixels within the image and away from hands."""
        hidden = cv2.remap(self.hands.view(np.uint8), *self._maps(points_px), cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)[0]
        x, y = points_px.T
        inside = (x >= 1) & (y >= 1) & (x < self.image_size[0] - 2) & (y < self.image_size[1] - 2)
        return inside & (hidden == 0)


@dataclass(frozen=True, slots=True)
class Glimpse:
    """The mask of an object in one frame, in small: pixel p of the working picture is at (p - origin_px) * scale in it.

    Args:
        mask: (h, w) bool.
        hidden: (h, w) bool, hands, other masks, and what lies just beside them.
        image_size: (width, height) of the whole working picture.
    """

    mask: np.ndarray
    hidden: np.ndarray
    origin_px: np.ndarray
    scale: float
    image_size: tuple[int, int]

    def as_keyframe(self) -> Keyframe:
        """For fitting outlines, in its own pixels, those of `_working.scaled(camera, scale)`; its picture is blank."""
        size = round(self.image_size[0] * self.scale), round(self.image_size[1] * self.scale)
        origin = (self.origin_px + 0.5) * self.scale - 0.5
        return Keyframe(0, 0, np.zeros((*self.mask.shape, 3), np.uint8), self.mask, self.hidden, origin, size)


def glimpse(mask: np.ndarray, hidden: np.ndarray, origin_px: np.ndarray, image_size: tuple[int, int]) -> Glimpse:
    """Of a cut-out's mask and what is hidden there, (h, w) bool, the place (2,) of its first pixel, and (width, height) of the whole image."""
    h, w = mask.shape
    size = (max(w // GLIMPSE_STEP, 1), max(h // GLIMPSE_STEP, 1))
    part = np.s_[: size[1] * GLIMPSE_STEP, : size[0] * GLIMPSE_STEP]
    small, far = (cv2.resize(m[part].astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) for m in (mask, hidden))
    return Glimpse(small > 127, far > 0, origin_px + (GLIMPSE_STEP - 1) / 2, 1 / GLIMPSE_STEP, image_size)


def near_to(hands: np.ndarray) -> np.ndarray:
    """(h, w) bool: a cut-out's hands and what lies just beside them."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * HAND_MARGIN_PX + 1,) * 2)
    return cv2.dilate(hands.astype(np.uint8), kernel).astype(bool)
