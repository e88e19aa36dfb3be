"""Where a thing was before it was found: its region followed backwards through the small pictures of a clip, until it is not surely there any more.

A thing is found once it moves with a hand. Before that it lay somewhere, and it was the same thing. Its own texture says where it came from, or the
hand that brought it; what has none stayed with the background. Where a hand covers it, it is carried on for a few looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.detections._following import fit, track

_PATIENCE_LOOKS = 4
_MIN_SHOWN = 0.4
_MAX_CHANGE_LEVELS = 22.0
_MIN_PX = 12
_SHADE = 1.6
_PLACE_LOOKS = 12
_OTHER_LEVELS = 30.0
_MIN_AREA_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """One small picture (h, w, 3) uint8, what hands and forearms may cover of it, (h, w) bool, and the points (21, 2) of each hand."""

    picture: np.ndarray
    covered: np.ndarray
    hands: tuple[np.ndarray, ...] = ()

    @property
    def grey(self) -> np.ndarray:
        """(h, w) uint8."""
        return cv2.cvtColor(self.picture, cv2.COLOR_RGB2GRAY)


def traced(looks: list[Look], found: int, region: np.ndarray) -> dict[int, np.ndarray]:
    """Where the thing of a region (h, w) bool in look `found` is seen before it: (h, w) bool by look, those left out in which it is hidden."""
    seen: dict[int, np.ndarray] = {}
    first, last_seen, mask = looks[found], found, region
    colours = _shown(first, region)
    area = int(region.sum())
    for at in range(found - 1, -1, -1):
        after, before = looks[at + 1], looks[at]
        if before.picture.shape != after.picture.shape:
            break
        ways = _ways(after, before, mask)
        moved = [_warped(mask, A) for A in ways]
        changes = [_change(after, before, mask, A, m) for A, m in zip(ways, moved, strict=True)]
        if not ways:
            break
        best = int(np.argmin(changes)) if min(changes) <= _MAX_CHANGE_LEVELS else 0
        mask = moved[best]
        if not _MIN_AREA_SHARE * area <= mask.sum() <= area / _MIN_AREA_SHARE:
            break
        shown = _shown(before, mask)
        if changes[best] <= _MAX_CHANGE_LEVELS and min(len(shown), len(colours)) >= _MIN_PX and _alike(shown, colours):
            seen[at], last_seen = mask, at
        elif last_seen - at > _PATIENCE_LOOKS:
            break
    return seen


def left_its_place(looks: list[Look], found: int, region: np.ndarray) -> bool:
    """Whether another surface is seen where the thing of a region (h, w) bool was in look `found`, before it came or after it went.

    The shadow of a hand leaves the same surface in another light, and what never moved leaves itself.
    """
    return any(_OTHER_LEVELS < change < np.inf for step in (-1, 1) for change in _changes_of_place(looks, found, region, step))


def _changes_of_place(looks: list[Look], found: int, region: np.ndarray, step: int) -> Iterator[float]:
    """How different, levels, the place of a region is in each of the looks next to `found`; infinite where it is hidden."""
    A = np.eye(3)
    for at in range(found + step, found + step * (_PLACE_LOOKS + 1), step):
        if not 0 <= at < len(looks) or looks[at].picture.shape != looks[found].picture.shape:
            return
        here, there = looks[at - step], looks[at]
        way = fit(*track(here.grey, there.grey, ~here.covered & ~_warped(region, A[:2])))
        if way is None:
            return
        A = np.vstack([way, [0, 0, 1]]) @ A
        yield _change(looks[found], there, region, A[:2], _warped(region, A[:2]))


def _ways(after: Look, before: Look, mask: np.ndarray) -> list[np.ndarray]:
    """How a thing may have come from where it was, (2, 3) each: with the background, by its own texture, with a hand, and by its texture near
    where that hand took it from. The first is what is believed where nothing shows it."""
    shown = mask & ~after.covered
    ways = [fit(*track(after.grey, before.grey, part)) for part in (~mask & ~after.covered, shown)]
    for A in _of_hands(after, before):
        there = cv2.warpAffine(after.grey, A, mask.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        rest = fit(*track(there, before.grey, _warped(shown, A)))
        ways += [A, None if rest is None else rest @ np.vstack([A, [0, 0, 1]])]
    return [A for A in ways if A is not None]


def _of_hands(after: Look, before: Look) -> list[np.ndarray]:
    """The motion (2, 3) of each hand from one look to the nearest hand of the look before."""
    found = []
    for points in after.hands:
        if before.hands:
            there = min(before.hands, key=lambda other: float(np.linalg.norm(other.mean(0) - points.mean(0))))
            A, _ = cv2.estimateAffinePartial2D(points, there, method=cv2.LMEDS)
            found += [] if A is None else [A]
    return found


def _warped(mask: np.ndarray, A: np.ndarray) -> np.ndarray:
    moved = cv2.warpAffine(mask.astype(np.uint8) * np.uint8(255), A, mask.shape[::-1], flags=cv2.INTER_LINEAR)
    return np.asarray(moved > 127)


def _change(after: Look, before: Look, mask: np.ndarray, A: np.ndarray, moved: np.ndarray) -> float:
    """Mean difference, levels, of the thing in both pictures where neither hides it, in one light; infinite where too little of it is shown."""
    picture = cv2.warpAffine(after.picture, A, mask.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shown = moved & ~before.covered & ~_warped(after.covered, A)
    if shown.sum() < max(_MIN_SHOWN * moved.sum(), _MIN_PX):
        return np.inf
    there, here = picture[shown].astype(np.float32), before.picture[shown].astype(np.float32)
    return float(np.abs(there * _light(there, here) - here).mean())


def _shown(look: Look, mask: np.ndarray) -> np.ndarray:
    """(N, 3) the colours of what is seen of a mask."""
    return look.picture[mask & ~look.covered].astype(np.float32)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two things have the same colours (N, 3), on the whole and in one light."""
    return bool(np.abs(np.median(one, 0) * _light(one, other) - np.median(other, 0)).max() <= 2 * _MAX_CHANGE_LEVELS)


def _light(one: np.ndarray, other: np.ndarray) -> float:
    """How much brighter colours (N, 3) are the second time, as far as the shadow of a hand may make them."""
    return float(np.clip(other.mean() / max(float(one.mean()), 1.0), 1 / _SHADE, _SHADE))
