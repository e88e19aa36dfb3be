"""Where a thing was before it was found: its region followed backwards through the small pictures of a clip, until it is not surely there any more.

A thing is found once it moves with a hand. Before that it lay somewhere, and it was the same thing. Its own texture says where it came from; what has
none stayed with the background. Where a hand covers it, it is carried on for a few looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray | None]
"""From two grey pictures (h, w) uint8 and a mask (h, w) bool in the first: the motion (2, 3) of what it covers into the second, or None."""

_PATIENCE_LOOKS = 4
_MIN_SHOWN = 0.4
_MAX_CHANGE_LEVELS = 22.0
_MIN_PX = 12
_MIN_AREA_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """One small picture (h, w, 3) uint8, and what hands and forearms may cover of it, (h, w) bool."""

    picture: np.ndarray
    covered: np.ndarray

    @property
    def grey(self) -> np.ndarray:
        """(h, w) uint8."""
        return cv2.cvtColor(self.picture, cv2.COLOR_RGB2GRAY)


def traced(looks: list[Look], found: int, region: np.ndarray, fit: Fit) -> dict[int, np.ndarray]:
    """Where the thing of a region (h, w) bool in look `found` is seen before it: (h, w) bool by look, those left out in which it is hidden."""
    seen: dict[int, np.ndarray] = {}
    first, last_seen, mask = looks[found], found, region
    colours = _shown(first, region)
    area = int(region.sum())
    for at in range(found - 1, -1, -1):
        after, before = looks[at + 1], looks[at]
        if before.picture.shape != after.picture.shape:
            break
        own = fit(after.grey, before.grey, mask & ~after.covered)
        ways = [A for A in (own, fit(after.grey, before.grey, ~mask & ~after.covered)) if A is not None]
        moved = [_warped(mask, A) for A in ways]
        changes = [_change(after, before, mask, A, m) for A, m in zip(ways, moved, strict=True)]
        if not ways:
            break
        best = int(np.argmin(changes))
        mask = moved[best]
        if not _MIN_AREA_SHARE * area <= mask.sum() <= area / _MIN_AREA_SHARE:
            break
        shown = _shown(before, mask)
        if changes[best] <= _MAX_CHANGE_LEVELS and min(len(shown), len(colours)) >= _MIN_PX and _alike(shown, colours):
            seen[at], last_seen = mask, at
        elif last_seen - at > _PATIENCE_LOOKS:
            break
    return seen


def _warped(mask: np.ndarray, A: np.ndarray) -> np.ndarray:
    moved = cv2.warpAffine(mask.astype(np.uint8) * np.uint8(255), A, mask.shape[::-1], flags=cv2.INTER_LINEAR)
    return np.asarray(moved > 127)


def _change(after: Look, before: Look, mask: np.ndarray, A: np.ndarray, moved: np.ndarray) -> float:
    """Mean difference, levels, of the thing in both pictures where neither hides it; infinite where too little of it is shown."""
    picture = cv2.warpAffine(after.picture, A, mask.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shown = moved & ~before.covered & ~_warped(after.covered, A)
    if shown.sum() < max(_MIN_SHOWN * moved.sum(), _MIN_PX):
        return np.inf
    return float(cv2.absdiff(picture, before.picture)[shown].mean())


def _shown(look: Look, mask: np.ndarray) -> np.ndarray:
    """(N, 3) the colours of what is seen of a mask."""
    return look.picture[mask & ~look.covered].astype(np.float32)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two things have the same colours (N, 3), on the whole."""
    return bool(np.abs(np.median(one, 0) - np.median(other, 0)).max() <= 2 * _MAX_CHANGE_LEVELS)
