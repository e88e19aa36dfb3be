"""The working picture of an object: the frame around it, resized so that the object has about the same size in every video.

All lengths in pixels in this package are of working pictures. There a square of the object's median area has a side of SIDE_PX, so that each
length is a share of the object's size, at every resolution of the video, and an object costs the same time in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from egoworld_ops.types import Camera

SIDE_PX = 140.0
MAX_ENLARGED = 4.0
"""Smaller objects are not enlarged further: there is nothing more to see."""


def scale_of(areas_px: list[float]) -> float:
    """Working pixels per pixel of the video, from the areas of an object's masks."""
    return min(SIDE_PX / float(np.sqrt(np.median(areas_px))), MAX_ENLARGED)


def scaled(camera: Camera, scale: float) -> Camera:
    """The camera of the picture resized by `scale`."""
    return replace(
        camera,
        fx_px=camera.fx_px * scale,
        fy_px=camera.fy_px * scale,
        cx_px=(camera.cx_px + 0.5) * scale - 0.5,
        cy_px=(camera.cy_px + 0.5) * scale - 0.5,
        width=max(round(camera.width * scale), 1),
        height=max(round(camera.height * scale), 1),
    )


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the video's picture, columns `[x0, x1)` and rows `[y0, y1)`, and the scale at which it is worked on."""

    x0: int
    y0: int
    x1: int
    y1: int
    scale: float

    @property
    def origin_px(self) -> np.ndarray:
        """(2,) where its first pixel lies in the working picture."""
        return np.array([self.x0, self.y0]) * self.scale + 0.0

    def of(self, picture: np.ndarray) -> np.ndarray:
        """This part of a picture (H, W) or (H, W, C) uint8, resized."""
        part = np.ascontiguousarray(picture[self.y0 : self.y1, self.x0 : self.x1])
        if self.scale == 1:
            return part
        way = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, None, fx=self.scale, fy=self.scale, interpolation=way))

    def mask_of(self, mask: np.ndarray) -> np.ndarray:
        """This part of a mask (H, W) bool, resized."""
        part = mask[self.y0 : self.y1, self.x0 : self.x1]
        return part.copy() if self.scale == 1 else self.of(mask.astype(np.uint8) * 255) > 127


def region_around(boxes: list[tuple[int, int, int, int]], margin_px: float, size: tuple[int, int], scale: float) -> Region:
    """The region of boxes [x, y, width, height] with a margin in working pixels, within a picture of (height, width)."""
    margin = int(np.ceil(margin_px / scale))
    x0, y0 = (max(min(box[i] for box in boxes) - margin, 0) for i in (0, 1))
    x1, y1 = (min(max(box[i] + box[i + 2] for box in boxes) + margin, size[1 - i]) for i in (0, 1))
    return Region(x0, y0, x1, y1, scale)
