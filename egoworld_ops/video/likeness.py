"""Whether two pictures may show one scene, whatever the light: a scene in which a lamp goes on, or a flash goes off, is no other scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import cv2
import numpy as np

_MAX_LIKENESS = 0.75
"""Correlation of two pictures above which they may be one scene in another light."""
_FINE_CELLS = (64, 36)
_BLUR = (9, 9)
_MAX_SAME_DETAIL = 0.4
"""Correlation of the fine detail of two pictures above which they are one scene in another light: shots of different scenes reach 0.36 at most, one
shot before and after a lamp goes on 0.5 to 0.96."""
_BLACK, _CLIPPED = 6, 250
"""Grey levels: bars beside the picture say nothing of it, nor does what a flash makes white."""
_BLINDED = 0.75
"""Where more of a picture than this is white, nothing tells that it is another scene."""
_MIN_SHOWN = 0.05
_PLAIN = 5.0
"""Standard deviation over cells, of 255, below which a picture is plain."""


class Picture:
    """One picture, and what is compared of it, computed when it is first asked for.

    Args:
        cells: (9, 16, 3) uint8 colours of coarse cells, BGR.
        whole: (H, W, 3) uint8, BGR.
    """

    def __init__(self, cells: np.ndarray, whole: np.ndarray) -> None:
        self._cells, self._whole = cells, whole

    @cached_property
    def plain(self) -> bool:
        """Whether it shows next to nothing."""
        return self._spread[1] < _PLAIN

    def like(self, other: Picture) -> float:
        """How alike two pictures are, whatever the light; above 1 they may show one scene."""
        return max(alike(other) for alike in self._comparisons)

    def is_like(self, other: Picture, enough: float = 1.0) -> bool:
        """Whether `like` is above `enough`."""
        return any(alike(other) > enough for alike in self._comparisons)

    @property
    def _comparisons(self) -> Sequence[Callable[[Picture], float]]:
        """Correlations, each over the one that may be of one scene; the cheapest first, by which most pictures of one scene are alike."""
        return self._colours_like, self._ranks_like, self._detail_like

    def _colours_like(self, other: Picture) -> float:
        """Correlation of colours over cells."""
        spread = max(self._spread[1] * other._spread[1], 1e-6)
        return float(self._colours @ other._colours) / self._colours.size / spread / _MAX_LIKENESS

    def _ranks_like(self, other: Picture) -> float:
        """Correlation over cells of the order of brightness, which a light that clips leaves as it was."""
        return float(self._ranks @ other._ranks) / _MAX_LIKENESS

    @cached_property
    def _spread(self) -> tuple[np.ndarray, float]:
        """(3,) float32 mean colour of the cells, and the standard deviation of colours over them."""
        mean, of_channels = cv2.meanStdDev(self._cells)
        return mean.astype(np.float32).reshape(3), cv2.norm(of_channels) / math.sqrt(3)

    @cached_property
    def _colours(self) -> np.ndarray:
        """(3 * 16 * 9,) float32 colours of cells less their mean."""
        return np.asarray((self._cells - self._spread[0]).reshape(-1))

    @cached_property
    def _ranks(self) -> np.ndarray:
        """(16 * 9,) places of the cells in the order of brightness, as a unit vector."""
        order = self._cells.reshape(-1, 3).mean(1).argsort(kind="stable").argsort(kind="stable")
        ranks = order - order.mean()
        return np.asarray(ranks / np.sqrt(ranks @ ranks))

    @cached_property
    def _grey(self) -> np.ndarray:
        """(36, 64) uint8 brightness of fine cells."""
        return np.asarray(cv2.cvtColor(cv2.resize(self._whole, _FINE_CELLS, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY))

    @cached_property
    def _detail(self) -> np.ndarray:
        """(36, 64) float32 brightness without its coarse light."""
        light = self._grey.astype(np.float32)
        return light - cv2.blur(light, _BLUR)

    @cached_property
    def _white(self) -> np.ndarray:
        """Where a flash, or the sun, leaves nothing to compare."""
        return self._grey >= _CLIPPED

    @cached_property
    def _blinded(self) -> bool:
        return bool(self._white.mean() > _BLINDED)

    def _detail_like(self, other: Picture) -> float:
        """Correlation of fine detail where both show something: whole where a flash blinds the camera, none where both have little else than bars
        beside the picture."""
        if self._blinded or other._blinded:
            return 1.0 / _MAX_SAME_DETAIL
        hidden = self._white | other._white
        if (bars := np.maximum(self._grey, other._grey) < _BLACK).any():
            hidden |= cv2.dilate(bars.astype(np.uint8), np.ones(_BLUR, np.uint8)) > 0
        shown = ~hidden
        if shown.mean() < _MIN_SHOWN:
            return 0.0
        a, b = self._detail[shown], other._detail[shown]
        a, b = a - a.mean(), b - b.mean()
        return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), 1e-6 * a.size)) / _MAX_SAME_DETAIL
