"""Things that are looked for now and then, and followed between: which box of a search is which thing.

Between two searches a thing's box moves as its texture does. At a search the boxes of each phrase are given to its things, all at once, for the most
overlap in sum (Kuhn, "The Hungarian Method for the Assignment Problem", 1955).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.detections._following import track
from egoworld_ops.vision.boxes import iou

_SIDE_PX = 320
_MIN_FEATURES = 6
_MAX_GROWTH = 1.15
"""From one frame to the next; a faster change is an error of the features."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One box of a search.

    Args:
        phrase: what it was looked for by.
        box_px: (4,) float64 x, y, width, height, within the picture.
        score: 0 to 1.
    """

    phrase: str
    box_px: np.ndarray
    score: float


@dataclass(slots=True)
class Track:
    """A thing: its box now; which search found it first, how many did, and how many have missed it since; when the last one found it."""

    number: int
    phrase: str
    box_px: np.ndarray
    score: float
    born: int
    hits: int = 0
    missed: int = 0
    found_s: float = 0.0


def each_once(found: Sequence[Found], max_iou: float) -> list[Found]:
    """Of the boxes of one phrase that overlap by more than `max_iou` the surest, surest first."""
    kept: list[Found] = []
    for box in sorted(found, key=lambda f: -f.score):
        if all(k.phrase != box.phrase or iou(k.box_px, box.box_px) <= max_iou for k in kept):
            kept.append(box)
    return kept


class BoxTracks:
    """The things of one clip.

    Args:
        min_new_score: of a box that becomes a thing; others only confirm one.
        min_iou: overlap of a box with the thing that it is.
        max_missed: searches in a row that may miss a thing before its place is no longer followed.
    """

    def __init__(self, min_new_score: float, min_iou: float, max_missed: int) -> None:
        self._min_new_score, self._min_iou, self._max_missed = min_new_score, min_iou, max_missed
        self._tracks: list[Track] = []
        self._next = self._searches = 0
        self._before: np.ndarray | None = None

    @property
    def followed(self) -> list[Track]:
        """The things whose places are known now."""
        return [t for t in self._tracks if t.missed <= self._max_missed]

    def follow(self, rgb: np.ndarray) -> None:
        """Move the boxes to the next frame, (H, W, 3) uint8. A box without texture stays where it is."""
        scale = min(1.0, _SIDE_PX / max(rgb.shape[:2]))
        now = cv2.cvtColor(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        if self._before is not None:
            for thing in self.followed:
                thing.box_px = _moved(self._before, now, thing.box_px * scale) / scale
        self._before = now

    def match(self, found: Iterable[Found]) -> list[Track]:
        """Give each box of a search to a thing, old or new; the things that were found.

        A thing that was lost is found again wherever it is, if it is the only lost one of its phrase and one box of the phrase is left.
        """
        boxes = list(found)
        seen = self._overlapping(boxes)
        left = {i: b for i, b in enumerate(boxes) if i not in seen}
        matched = {id(t) for t in seen.values()}
        for i, box in left.items():
            lost = [t for t in self._tracks if t.phrase == box.phrase and id(t) not in matched]
            alone = len(lost) == 1 and lost[0].missed > self._max_missed and sum(b.phrase == box.phrase for b in left.values()) == 1
            if alone:
                seen[i] = lost[0]
            elif box.score >= self._min_new_score:
                thing = Track(self._next, box.phrase, box.box_px, box.score, self._searches)
                self._next += 1
                self._tracks.append(thing)
                seen[i] = thing
        self._searches += 1
        for thing in self._tracks:
            thing.missed += 1
        for i, thing in seen.items():
            thing.box_px, thing.score, thing.hits, thing.missed = boxes[i].box_px, boxes[i].score, thing.hits + 1, 0
        return sorted(seen.values(), key=lambda t: t.number)

    def passing(self) -> set[int]:
        """The things that one search found and the next, if there was one, did not."""
        return {t.number for t in self._tracks if t.hits == 1 and t.born < self._searches - 1}

    def _overlapping(self, boxes: Sequence[Found]) -> dict[int, Track]:
        """The thing of each box that overlaps one, by the box's place in the list."""
        from scipy.optimize import linear_sum_assignment

        things = self.followed
        if not boxes or not things:
            return {}
        overlaps = iou(np.stack([b.box_px for b in boxes])[:, None], np.stack([t.box_px for t in things])[None])
        overlaps[np.array([[b.phrase != t.phrase for t in things] for b in boxes])] = 0
        pairs = zip(*linear_sum_assignment(-overlaps), strict=True)
        return {int(i): things[j] for i, j in pairs if overlaps[i, j] >= self._min_iou}


def _moved(before: np.ndarray, now: np.ndarray, box_px: np.ndarray) -> np.ndarray:
    """A box (4,) carried from one small picture (h, w) uint8 to the next by the middle motion and growth of the features in it."""
    x0, y0 = np.floor(np.maximum(box_px[:2], 0)).astype(int)
    x1, y1 = np.ceil(box_px[:2] + box_px[2:]).astype(int)
    mask = np.zeros(before.shape, bool)
    mask[y0:y1, x0:x1] = True
    if not mask.any():
        return box_px
    start, end = track(before, now, mask)
    if len(start) < _MIN_FEATURES:
        return box_px
    shift = np.median(end - start, axis=0)
    spread = np.linalg.norm(start - np.median(start, axis=0), axis=1), np.linalg.norm(end - np.median(end, axis=0), axis=1)
    far = spread[0] > np.median(spread[0])
    growth = float(np.clip(np.median(spread[1][far] / spread[0][far]), 1 / _MAX_GROWTH, _MAX_GROWTH)) if far.any() else 1.0
    centre = box_px[:2] + box_px[2:] / 2
    middle = np.median(start, axis=0)
    centre = middle + shift + growth * (centre - middle)
    return np.concatenate([centre - growth * box_px[2:] / 2, growth * box_px[2:]])
