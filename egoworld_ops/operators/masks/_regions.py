"""Parts of a picture that are worked on at a small size: cutting them out, scaling, and putting evidence back at full size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_EDGE_RADIUS_PX = 3
_SURE = 1e-3


@dataclass(frozen=True, slots=True)
class Crop:
    """The pixels [x0, x1) x [y0, y1) of a picture, worked on at `width` x `height`."""

    x0: int
    y0: int
    x1: int
    y1: int
    width: int
    height: int

    @classmethod
    def around(cls, box_px: np.ndarray, margin_px: float, picture: tuple[int, int], side_px: int) -> Crop | None:
        """The crop about a box [x, y, w, h] grown by a margin, cut to a picture of (height, width), its longer side scaled to `side_px`.

        Small things are enlarged, so that lengths in working pixels are shares of the crop whatever the resolution. None where no pixel of it lies
        in the picture.
        """
        low = np.floor(np.clip(box_px[:2] - margin_px, 0, (picture[1], picture[0]))).astype(int)
        high = np.ceil(np.clip(box_px[:2] + box_px[2:] + margin_px, 0, (picture[1], picture[0]))).astype(int)
        if (high <= low).any():
            return None
        scale = side_px / (high - low).max()
        width, height = np.maximum(1, np.round((high - low) * scale)).astype(int)
        return cls(int(low[0]), int(low[1]), int(high[0]), int(high[1]), int(width), int(height))

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of its pixels in the full picture."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def scale(self) -> np.ndarray:
        """(2,) working pixels per full pixel, x and y."""
        return np.array([self.width / (self.x1 - self.x0), self.height / (self.y1 - self.y0)])

    def shrink(self, picture: np.ndarray) -> np.ndarray:
        """The crop of a full picture, at working size."""
        way = cv2.INTER_AREA if self.width < self.x1 - self.x0 else cv2.INTER_LINEAR
        return cv2.resize(picture[self.window], (self.width, self.height), interpolation=way)

    def shrink_mask(self, mask: np.ndarray) -> np.ndarray:
        """The crop of a full mask (H, W) bool, at working size."""
        return np.asarray(self.shrink(mask.view(np.uint8) * np.uint8(255)) > 127)

    def enlarge(self, values: np.ndarray) -> np.ndarray:
        """Working values (float32) at full size, linearly."""
        size = (self.x1 - self.x0, self.y1 - self.y0)
        return cv2.resize(values, size, interpolation=cv2.INTER_AREA if size[0] < self.width else cv2.INTER_LINEAR)

    def points(self, points_px: np.ndarray) -> np.ndarray:
        """Full-picture points (N, 2) in working pixels."""
        return np.asarray((points_px + 0.5 - (self.x0, self.y0)) * self.scale - 0.5)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence for a thing in a part of the picture: `logit` (h, w) float32 at full size, its first pixel at (x0, y0); above 0 is inside."""

    x0: int
    y0: int
    logit: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of its pixels in the full picture."""
        return slice(self.y0, self.y0 + self.logit.shape[0]), slice(self.x0, self.x0 + self.logit.shape[1])


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels from the outline of a mask (H, W) bool, positive inside, float32; at most height plus width where there is no outline."""
    farthest = float(sum(mask.shape))
    inside = np.minimum(cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3), farthest)
    outside = np.minimum(cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3), farthest)
    return np.asarray(np.where(mask, inside - 0.5, 0.5 - outside), np.float32)


def edge_aware(picture: np.ndarray, logit: np.ndarray, epsilon: float) -> np.ndarray:
    """Log odds (H, W) float32 smoothed, as probabilities, along the edges of a picture (H, W, 3); `epsilon`: squared contrast of an edge."""
    probability = (1 / (1 + np.exp(-logit))).astype(np.float32)
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    smooth = np.clip(_guided(gray, probability, _EDGE_RADIUS_PX, epsilon), _SURE, 1 - _SURE)
    return np.asarray(np.log(smooth / (1 - smooth)), np.float32)


def _guided(guide: np.ndarray, values: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """The guided filter of `values` by `guide`, both (H, W) float32 in [0, 1] (He et al., Guided Image Filtering, 2010)."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_v = cv2.blur(guide, size), cv2.blur(values, size)
    slope = (cv2.blur(guide * values, size) - mean_g * mean_v) / (cv2.blur(guide * guide, size) - mean_g * mean_g + epsilon)
    offset = mean_v - slope * mean_g
    return np.asarray(cv2.blur(slope, size) * guide + cv2.blur(offset, size), np.float32)


def keep_near(mask: np.ndarray, seeds: np.ndarray, smallest_px: int) -> np.ndarray:
    """The parts of a mask (H, W) bool of at least `smallest_px` pixels that touch `seeds` (H, W) bool, their small holes filled."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    good = stats[:, cv2.CC_STAT_AREA] >= smallest_px
    touched = np.zeros(count, bool)
    touched[np.unique(labels[seeds & mask])] = True
    good &= touched
    good[0] = False
    kept = good[labels]
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~kept).view(np.uint8), connectivity=4)
    hole = stats[:, cv2.CC_STAT_AREA] < smallest_px
    hole[labels[kept][:1]] = False
    return np.asarray(kept | (hole[labels] & ~kept))
