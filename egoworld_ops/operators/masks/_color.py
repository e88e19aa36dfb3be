"""Colour models: how likely a colour is on a thing rather than around it, learned from the picture and smoothed over time."""

from __future__ import annotations

import numpy as np

BITS = 4
_BINS = 2**BITS
_CELLS = _BINS**3
_FLOOR = 2e-4


def histogram(cell: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(4096,) float64 share of each colour cell under pixel weights (H, W), smoothed over neighbouring cells; zeros without weight."""
    counts = np.bincount(cell.ravel(), weight.ravel(), _CELLS)
    total = counts.sum()
    return _smooth(counts / total) if total > 0 else counts


def log_ratio(thing: np.ndarray, around: np.ndarray, limit: float) -> np.ndarray:
    """(4096,) float32 log of the likelihood of each colour on the thing over that around it, within +-limit; 0 where neither has it."""
    return np.clip(np.log((thing + _FLOOR) / (around + _FLOOR)), -limit, limit).astype(np.float32)


class ColorModel:
    """Colours of one thing and of its surroundings; each update forgets `1 - memory` of the earlier ones."""

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self.thing: np.ndarray | None = None
        self.around: np.ndarray | None = None

    def update(self, cell: np.ndarray, on_thing: np.ndarray, on_rest: np.ndarray) -> None:
        """Learn from a picture's colour cells (H, W) with pixel weights for the thing and for the rest."""
        self.thing = self._blend(self.thing, histogram(cell, on_thing))
        self.around = self._blend(self.around, histogram(cell, on_rest))

    def _blend(self, known: np.ndarray | None, new: np.ndarray) -> np.ndarray:
        if known is None or not known.any():
            return new
        return self._memory * known + (1 - self._memory) * new if new.any() else known


def _smooth(values: np.ndarray) -> np.ndarray:
    """A binomial blur over the three axes of the colour cube, mass kept."""
    cube = values.reshape(_BINS, _BINS, _BINS)
    for axis in range(3):
        padded = np.pad(cube, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, high = (np.take(padded, range(k, k + _BINS), axis) for k in (0, 2))
        cube = 0.5 * cube + 0.25 * (low + high)
    return cube.ravel()
