"""Colours as numbered cells of Lab, for histograms."""

from __future__ import annotations

import cv2
import numpy as np


def cells(rgb: np.ndarray, bits: int) -> np.ndarray:
    """(H, W) int32 number of the colour cell each pixel of (H, W, 3) uint8 falls into, in Lab stretched along its chroma axes.

    Each axis has 2**bits cells; lightness counts highest.
    """
    shift = 8 - bits
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.int32)
    chroma = np.clip((lab[..., 1:] - 128) * 2 + 128, 0, 255) >> shift
    return np.asarray(((lab[..., 0] >> shift << bits) + chroma[..., 0] << bits) + chroma[..., 1])
