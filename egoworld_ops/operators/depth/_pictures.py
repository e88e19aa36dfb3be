"""What a network is shown of a frame: a pinhole's picture of a size that it takes; and which pixels of it the lens shows."""

from __future__ import annotations

import cv2
import numpy as np

from egoworld_ops.operators.depth_maps import resized, straight
from egoworld_ops.types import Camera
from egoworld_ops.vision.lenses import rectified_map


class Pictures:
    """The pictures of a video, straightened where it has a lens, and resized.

    Args:
        camera: of the video.
        side_px: longer side; smaller pictures are enlarged.
        multiple: of which both sides are made multiples, each the nearest.
    """

    def __init__(self, camera: Camera, side_px: int, multiple: int = 1) -> None:
        whole = straight(camera)
        scale = side_px / max(whole.width, whole.height)
        self._first = [max(1, round(side * scale)) for side in (whole.width, whole.height)]
        self.camera = resized(whole, *(max(1, (2 * side + multiple) // (2 * multiple)) * multiple for side in self._first))
        self._map = None if camera.is_pinhole else rectified_map(camera, whole, np.eye(3))
        self.unseen = np.zeros((self.camera.height, self.camera.width), bool)
        """Pixels (h, w) that the lens shows nothing in."""
        if self._map is not None:
            x, y = rectified_map(camera, self.camera, np.eye(3))
            self.unseen = (x < 0) | (y < 0) | (x > camera.width - 1) | (y > camera.height - 1)

    def of(self, rgb: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 of a frame (H, W, 3). First resized in its own shape, then to multiples, as Depth Anything 3's code does it."""
        picture = rgb if self._map is None else cv2.remap(rgb, *self._map, cv2.INTER_LINEAR)
        return _resized(_resized(picture, *self._first), self.camera.width, self.camera.height)


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    grows = width > picture.shape[1] or height > picture.shape[0]
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA))
