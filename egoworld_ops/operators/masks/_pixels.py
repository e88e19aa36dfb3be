"""The columns of table `masks` that describe the pixels of one mask, whatever backend found them."""

from __future__ import annotations

from typing import Any

import numpy as np

from egoworld_ops.vision import rle


def pixel_columns(mask: np.ndarray) -> dict[str, Any] | None:
    """The columns that describe a mask (H, W) bool at the size of the picture; None if it is empty."""
    left, top, width, height = rle.mask_bbox(mask).astype(int)
    return crop_columns(mask[top : top + height, left : left + width], left, top, mask.shape) if width else None


def crop_columns(crop: np.ndarray, left: int, top: int, size_px: tuple[int, int]) -> dict[str, Any]:
    """The same of a mask of size (height, width), of which the part (h, w) bool in its own tight box is given."""
    return {
        "rle": rle.encode_crop(crop, left, top, size_px),
        "mask_scale": 1.0,
        "bbox_px": np.array([left, top, crop.shape[1], crop.shape[0]], np.float32),
        "area_px": int(crop.sum()),
    }
