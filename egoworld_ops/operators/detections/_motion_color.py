"""Finds objects that move with a hand, not with the background, with a colour unlike skin and background. Streaming, small pictures.

Evidence is gathered in coordinates that move with each hand. A pixel that the hand's motion explains better than the background's motion
belongs to the hand or to what it holds. Flat surfaces, which both motions explain, count for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

from egoworld_ops.operators.detections._backwards import Look, left_its_place, traced
from egoworld_ops.operators.detections._following import fit, sample, track
from egoworld_ops.operators.detections._hand_shape import HandShape
from egoworld_ops.operators.detections._together import Record, Step, step
from egoworld_ops.vision.boxes import iou
from egoworld_ops.vision.colors import cells

_SIDE_PX = 160
_MIN_SIDE_PX = 24
_MIN_PARALLAX_PX = 0.6
_LEVELS_PER_NAT = 5.0
_STEP_LIMIT = 1.0
_STILL_NATS = 0.2
_TOGETHER_PX = 0.3
_TOGETHER_SHARE = 0.4
_EVIDENCE_LIMITS = (-1.0, 3.0)
_FOUND = 1.2
_GROWTH_PX = 16
_MIN_PART = 0.08
_SQUARE = np.ones((3, 3), np.uint8)
_MIN_SHARE_OF_HAND = 0.1
_MAX_SHARE_OF_PICTURE = 0.25
_REACH_HANDS = 1.3
_NEAR_HANDS = 0.5
_SAME_BOX_IOU = 0.2
_SAME_COLOR = 0.6
_SAME_PLACE = 0.5
_PATIENCE_LOOKS = 4
_MEMORY = 0.98
_BITS = 3
_SHADING_PX = 7
_CELLS = 1024


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object found: `number` counts the clip's objects from 0, `box_px` (4,) float32 x, y, width, height, `score` 0 to 1, as far as
    is known at this frame."""

    number: int
    box_px: np.ndarray
    score: float


@dataclass(slots=True)
class _Known:
    """An object found before: its box (4,) in small pixels, its colours, and the frame counts at which it was last seen and last proposed.

    It is first proposed when it is seen a second time: not while `fresh`, at once where it is seen `again` after a loss.
    """

    box: np.ndarray
    colors: np.ndarray
    seen: int
    proposed: int | None = None
    number: int | None = None
    fresh: bool = False
    again: bool = False
    record: Record = field(default_factory=Record)


@dataclass(slots=True)
class _HandEvidence:
    """Evidence about a hand's surroundings: its centre (2,) and the log odds (h, w) that each pixel moves with it; the last step, if it moved."""

    center: np.ndarray
    odds: np.ndarray
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class _Region:
    """Where a thing is in one look, (h, w) bool, and how many of its pixels show there that it moves with a hand."""

    look: int
    mask: np.ndarray
    shown_px: int


class MotionColorFinder:
    """Looks for objects in one clip, every `every_frames` frames; one that stays is proposed again every `repeat_frames` frames."""

    def __init__(self, every_frames: int, repeat_frames: int) -> None:
        self._every_frames = every_frames
        self._repeat_frames = repeat_frames
        self._count = -1
        self._before: np.ndarray | None = None
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)
        self._hands: list[_HandEvidence] = []
        self._known: list[_Known] = []
        self._covered: np.ndarray | None = None
        self._records: dict[int, Record] = {}
        self._looks: list[Look] = []
        self._best: dict[int, _Region] = {}
        self._factor = np.ones(2)

    def scores(self) -> dict[int, float]:
        """Of the objects that have moved with a hand for long enough and left their place, number and confidence, 0 to 1."""
        moved = {number: record.score for number, record in self._records.items() if record.score > 0}
        return {n: score for n, score in moved.items() if left_its_place(self._looks, self._best[n].look, self._best[n].mask)}

    def earlier(self) -> tuple[list[tuple[int, Sighting]], dict[int, int]]:
        """Of the objects that `scores` names: where each was first seen, with the count of that frame, and which are a part of another one.

        A part is an object that was where the other one was found, when that was found.
        """
        scores = self.scores()
        found, part_of = [], dict[int, int]()
        best = {number: region for number, region in self._best.items() if number in scores}
        for number, region in sorted(best.items(), key=lambda item: item[1].look):
            before = traced(self._looks, region.look, region.mask)
            whole = [n for n, other in best.items() if n != number and other.look in before and _is_part(before[other.look], other.mask)]
            if whole:
                part_of[number] = part_of.get(whole[0], whole[0])
                continue
            first = min(before, default=region.look)
            box = _box(before.get(first, region.mask))
            box_px = np.concatenate([box[:2] * self._factor, box[2:] * self._factor]).astype(np.float32)
            found.append((first * self._every_frames, Sighting(number, box_px, scores[number])))
        return found, part_of

    def update(self, rgb: np.ndarray, hands_px: Sequence[np.ndarray]) -> list[Sighting]:
        """Objects to propose in this frame; `hands_px` are (21, 2) image points of each hand in it."""
        self._count += 1
        if self._count % self._every_frames:
            return []
        height, width = rgb.shape[:2]
        scale = min(1.0, _SIDE_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        factor = np.array([width / size[0], height / size[1]])
        picture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        shapes = [HandShape((points_px + 0.5) / factor - 0.5, size) for points_px in hands_px]
        self._gather(gray, shapes)
        self._before = gray
        self._covered = np.logical_or.reduce([np.zeros(gray.shape, bool), *(s.flesh | s.forearm for s in shapes)])
        self._factor = factor
        self._looks.append(Look(picture, self._covered, tuple(shape.points for shape in shapes)))
        found = self._candidates(picture, shapes)
        return [Sighting(n, np.concatenate([box[:2] * factor, box[2:] * factor]).astype(np.float32), score) for n, box, score in found]

    def _gather(self, gray: np.ndarray, shapes: list[HandShape]) -> None:
        """Move each hand's evidence along with it, and add the evidence of the last step of motion."""
        old, self._hands = self._hands, []
        for shape in shapes:
            near = [h for h in old if np.linalg.norm(h.center - shape.center) < shape.length and h.odds.shape == gray.shape]
            odds = np.zeros(gray.shape, np.float32)
            if near:
                before = min(near, key=lambda h: float(np.linalg.norm(h.center - shape.center)))
                shift = np.column_stack([np.eye(2), shape.center - before.center])
                odds = _MEMORY * cv2.warpAffine(before.odds, shift, gray.shape[::-1], flags=cv2.INTER_LINEAR)
            self._hands.append(_HandEvidence(shape.center, odds))
        if self._before is not None and self._before.shape == gray.shape and shapes and min(gray.shape) >= _MIN_SIDE_PX:
            self._add_motion(self._before, gray, shapes)

    def _add_motion(self, before: np.ndarray, now: np.ndarray, shapes: list[HandShape]) -> None:
        taken = np.logical_or.reduce([s.reach(_NEAR_HANDS) | s.forearm for s in shapes])
        A_background = fit(*track(before, now, ~taken))
        if A_background is None:
            return
        grid = _grid(*now.shape)
        source = grid + self._backward_flow(now, before)
        still = _apply(cv2.invertAffineTransform(A_background), grid)
        left_behind = _error(before, now, still)
        covered = self._was_covered(still)
        prints = (_print(before), _print(now))
        print_behind = _error(*prints, still)
        gain = (left_behind - _error(before, now, source)) / _LEVELS_PER_NAT
        going = _distance(source, still)
        for hand, shape in zip(self._hands, shapes, strict=True):
            speed = float(np.median(going[shape.core])) if shape.core.any() else 0.0
            A_hand = fit(*sample(grid[shape.core], source[shape.core])) if speed >= _MIN_PARALLAX_PX else None
            if A_hand is None:
                continue
            moved = _apply(A_hand, grid)
            together = _distance(source, moved) < _TOGETHER_PX + _TOGETHER_SHARE * speed
            followed = np.where(together[..., None], source, moved)
            along = np.minimum(_error(*prints, moved), _error(*prints, followed))
            hand.step = step(print_behind, along, covered | self._was_covered(moved) | shape.rim, speed / shape.length)
            nats = np.where(together, gain, -_STILL_NATS)
            hand.odds = np.clip(hand.odds + np.clip(nats, -_STEP_LIMIT, _STEP_LIMIT), *_EVIDENCE_LIMITS)

    def _was_covered(self, source: np.ndarray) -> np.ndarray:
        """(h, w) bool: whether a hand or forearm was in the last picture where each pixel came from (h, w, 2)."""
        assert self._covered is not None
        x, y = cv2.split(source)
        return np.asarray(cv2.remap(self._covered.view(np.uint8), x, y, cv2.INTER_NEAREST, borderValue=1) > 0)

    def _backward_flow(self, now: np.ndarray, before: np.ndarray) -> np.ndarray:
        """(h, w, 2) float32 from each pixel to where it was; on one thread, since the method's result depends on their number."""
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return np.asarray(self._flow.calc(now, before, np.zeros((*now.shape, 2), np.float32)))
        finally:
            cv2.setNumThreads(threads)

    def _candidates(self, picture: np.ndarray, shapes: list[HandShape]) -> list[tuple[int, np.ndarray, float]]:
        if not shapes:
            return []
        flesh = np.logical_or.reduce([s.flesh | s.forearm for s in shapes])
        cell = cells(picture, _BITS)
        found = []
        for hand, shape in zip(self._hands, shapes, strict=True):
            seeds = _seeds(cell, shape, hand.odds, flesh)
            if seeds is None:
                continue
            known = self._identify(_box(seeds), _histogram(cell, seeds))
            if hand.step is not None:
                known.record.add(hand.step, seeds)
            number = self._due(known)
            better = self._shows_more(known.number, hand.step, seeds)
            if known.number is None or (number is None and better is None):
                continue
            behind = flesh if hand.step is None else flesh | (hand.step.left_behind() & ~seeds)
            region = _grown(picture, cell, seeds, shape.reach(_REACH_HANDS), behind)
            if better is not None:
                self._best[known.number] = _Region(len(self._looks) - 1, region, better)
            if number is not None:
                self._records[number] = known.record
                found.append((number, _box(region), known.record.score))
        return found

    def _shows_more(self, number: int | None, last: Step | None, seeds: np.ndarray) -> int | None:
        """How many pixels of a thing show now that it moves with a hand, if more than at any look before."""
        shown_px = 0 if last is None else last.shown_px(seeds)
        known = None if number is None else self._best.get(number)
        return shown_px if known is None or shown_px > known.shown_px else None

    def _identify(self, box: np.ndarray, colors: np.ndarray) -> _Known:
        """The object in a box, known or new; what is known of it is updated."""
        same = [(float(iou(k.box, box)), n) for n, k in enumerate(self._known) if not self._lost(k)]
        overlap, number = max(same, default=(0.0, -1))
        if overlap < _SAME_BOX_IOU:
            likeness, number = max(((float(np.sqrt(k.colors * colors).sum()), n) for n, k in enumerate(self._known)), default=(0.0, -1))
            if likeness < _SAME_COLOR:
                self._known.append(_Known(box, colors, self._count, fresh=True))
                return self._known[-1]
        known = self._known[number]
        known.fresh = False
        known.again = self._lost(known)
        known.box, known.seen = box, self._count
        known.colors = 0.9 * known.colors + 0.1 * colors
        return known

    def _lost(self, known: _Known) -> bool:
        return self._count - known.seen > _PATIENCE_LOOKS * self._every_frames

    def _due(self, known: _Known) -> int | None:
        """The number of an object just seen if it is to be proposed now, else None."""
        waits = known.proposed is not None and not known.again and self._count - known.proposed < self._repeat_frames
        if known.fresh or waits:
            return None
        known.proposed = self._count
        if known.number is None:
            known.number = sum(k.number is not None for k in self._known)
        return known.number


def _seeds(cell: np.ndarray, shape: HandShape, odds: np.ndarray, flesh: np.ndarray) -> np.ndarray | None:
    """(h, w) bool: pixels that surely move with a hand but are neither the hand nor of its colour; None if they are few."""
    moving = (odds > _FOUND) & shape.reach(_REACH_HANDS) & ~flesh
    if moving.sum() < _MIN_SHARE_OF_HAND * shape.area:
        return None
    rest = ~shape.reach(_NEAR_HANDS) & ~flesh
    seeds = moving & _unlike(cell, moving, rest) & _unlike(cell, moving, shape.core)
    seeds = cv2.morphologyEx(cv2.morphologyEx(seeds.view(np.uint8), cv2.MORPH_CLOSE, _SQUARE), cv2.MORPH_OPEN, _SQUARE) > 0
    seeds = _largest(seeds & ~flesh)
    return seeds if seeds.sum() >= _MIN_SHARE_OF_HAND * shape.area else None


def _unlike(cell: np.ndarray, thing: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(h, w) bool: pixels whose colour is more frequent on the thing than on the rest."""
    return np.asarray((_histogram(cell, thing) > _histogram(cell, rest))[cell])


def _grown(picture: np.ndarray, cell: np.ndarray, seeds: np.ndarray, reach: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(h, w) bool: the thing around the seeds, by colour and edges (GrabCut), without what is surely something `other`; the seeds where that
    finds nothing better."""
    near = (cv2.dilate(seeds.view(np.uint8), np.ones((2 * _GROWTH_PX + 1,) * 2, np.uint8)) > 0) & reach
    alike = near & _unlike(cell, seeds, ~near)
    trimap = np.where(seeds | alike, cv2.GC_PR_FGD, np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    trimap[other] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, trimap, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    region = _parts(trimap == cv2.GC_PR_FGD, _MIN_PART * int(seeds.sum()))
    good = (region & seeds).sum() >= 0.5 * seeds.sum() and region.mean() <= _MAX_SHARE_OF_PICTURE
    return region if good else seeds


def _box(mask: np.ndarray) -> np.ndarray:
    """(4,) x, y, width, height of a mask."""
    return np.array(cv2.boundingRect(mask.view(np.uint8)), float)


def _is_part(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the smaller of two masks lies mostly in the other."""
    return bool((one & other).sum() > _SAME_PLACE * min(one.sum(), other.sum()))


@cache
def _grid(height: int, width: int) -> np.ndarray:
    """(height, width, 2) float32 x and y of each pixel."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)


def _apply(A: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (h, w, 2) float32 moved by A (2, 3)."""
    return np.asarray(cv2.transform(points, A))


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(h, w) float32 lengths between points (h, w, 2)."""
    x, y = cv2.split(cv2.subtract(first, second))
    return np.asarray(cv2.magnitude(x, y))


def _error(before: np.ndarray, now: np.ndarray, source: np.ndarray) -> np.ndarray:
    """(h, w) float32 grey levels between the new picture and the old one looked up at `source` (h, w, 2), averaged over 3x3 pixels."""
    x, y = cv2.split(source)
    moved = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.blur(cv2.absdiff(now, moved).astype(np.float32), (3, 3))


def _print(picture: np.ndarray) -> np.ndarray:
    """(h, w) uint8: a picture without its shading, so that a shadow that moves is not seen."""
    return cv2.addWeighted(picture, 1.0, cv2.blur(picture, (_SHADING_PX, _SHADING_PX)), -1.0, 128.0)


def _histogram(cell: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(1024,) share of the masked pixels in each colour cell."""
    counts = np.bincount(cell[mask], minlength=_CELLS).astype(float)
    return np.asarray(counts / max(1.0, counts.sum()))


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())) if count > 1 else mask


def _parts(mask: np.ndarray, smallest: float) -> np.ndarray:
    """The connected parts of a mask of at least `smallest` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    good = stats[:, cv2.CC_STAT_AREA] >= smallest
    good[0] = False
    return np.asarray(good[labels])
