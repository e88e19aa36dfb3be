"""What is not the world: hands, the arms behind them, and objects that hands may move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from egoworld_ops.vision import rle

_WRIST, _MIDDLE_MCP = 0, 9
_HALF_WIDTH, _SPREAD = 0.6, 5.0
"""Half the width of an arm at the wrist, in lengths of the palm, and how many times wider the strip is far behind."""
_FAR_PALMS = 40.0


def left_out(masks: Sequence[Mapping[str, Any]], hands: Sequence[Mapping[str, Any]], size_px: tuple[int, int], scale: float) -> np.ndarray:
    """The union (h, w) bool of the masks of one frame, and of a strip from each wrist away from the fingers: sleeves move with the hands.

    Args:
        masks: rows of table `masks` of the frame.
        hands: rows of table `hand_pose` of the frame.
        size_px: height and width of the result.
        scale: pixels of the video that one of its pixels spans.
    """
    union = np.zeros(size_px, np.uint8)
    for row in masks:
        union |= rle.decode_at(row["rle"], size_px).astype(np.uint8)
    for row in hands:
        joints = (np.array(row["joints_px"], np.float64) + 0.5) / scale - 0.5
        palm = joints[_WRIST] - joints[_MIDDLE_MCP]
        across = np.array([-palm[1], palm[0]])
        near, far = joints[_WRIST] - 0.2 * palm, joints[_WRIST] + _FAR_PALMS * palm
        strip = [near + _HALF_WIDTH * across, near - _HALF_WIDTH * across]
        strip += [far - _SPREAD * _HALF_WIDTH * across, far + _SPREAD * _HALF_WIDTH * across]
        if np.isfinite(strip).all():
            cv2.fillPoly(union, [np.clip(np.rint(strip), -30_000, 30_000).astype(np.int32)], 1)
    return union > 0
