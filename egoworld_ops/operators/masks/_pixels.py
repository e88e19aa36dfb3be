"""The columns of table `masks` that describe the pixels of one mask, whatever backend found them."""

from __future__ import annotations

from typing import Any

import numpy as np

from egoworld_ops.vision import rle


def pixel_columns(mask: np.ndarray) -> dict[str, Any] | None:
    """The columns that describe a mask (H, W) bool at the size of the picture; None if it is empty."""
    area_px = int(mask.sum())
    if area_px == 0:
        return None
    return {"rle": rle.encode(mask), "mask_scale": 1.0, "bbox_px": rle.mask_bbox(mask), "area_px": area_px}
