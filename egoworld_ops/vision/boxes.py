"""Boxes [x, y, width, height] in any one unit."""

from __future__ import annotations

import numpy as np


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), broadcast; 0 where both are empty."""
    end = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    both = np.maximum(end - np.maximum(first[..., :2], second[..., :2]), 0).prod(-1)
    either = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - both
    return np.asarray(both / np.maximum(either, 1e-9))
