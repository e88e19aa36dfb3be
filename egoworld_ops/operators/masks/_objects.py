"""Masks of objects: cut out of a prompt's box once, then moved with the object and segmented again by colour, place and motion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.masks._color import BITS, ColorModel, histogram, log_ratio
from egoworld_ops.operators.masks._motion import Motion
from egoworld_ops.operators.masks._regions import Crop, Evidence, edge_aware, keep_near, signed_distance
from egoworld_ops.vision.colors import cells
from egoworld_ops.vision.rle import mask_bbox

_SIDE_PX = 192
_GRABCUT_SIDE_PX = 160
_GRABCUT_ROUNDS = 4
_RING = 0.45
_MARGIN = 0.29
_LOOSENESS = 0.3
_MIN_BOX_SHARE = 0.15
_MAX_GROWTH = 2.5
_MAX_SHARED_COLOR = 0.4
_STANDS_OUT = 2.0
_MIN_PX = 12
_LEAST_SHARE = 4e-5
_MEMORY = 0.9
_COLOR_LIMIT = 3.0
_PLACE_WEIGHT = 2.5
_PLACE_LIMIT = 5.0
_MOTION_PER_LEVEL = 0.08
_MOTION_LIMIT = 2.0
_AGREEMENT = 0.5
_GONE = -0.75
_HIDDEN_SHARE = 0.04
_IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object in one frame: its evidence, and whether the frame itself shows it (else it is only carried there)."""

    evidence: Evidence
    observed: bool


class ObjectTrack:
    """One object of one clip.

    Its whole shape is kept, including parts that hands hide; hands are removed from the reported mask.

    Args:
        label: its name, where known.
        max_carried: frames over which it is carried without being seen before it is lost.
    """

    def __init__(self, label: str | None, max_carried: int) -> None:
        self.label = label
        self.surest = 1.0
        """No mask of it is surer than this: the confidence that it is an object at all."""
        self._max_carried = max_carried
        self._colors = ColorModel(_MEMORY)
        self._whole: np.ndarray | None = None
        self._unseen = 0

    @property
    def alive(self) -> bool:
        """Whether it is being followed."""
        return self._whole is not None

    @property
    def colors(self) -> np.ndarray | None:
        """(4096,) its colours, as `_color.histogram`."""
        return self._colors.thing if self.alive else None

    @property
    def whole(self) -> np.ndarray | None:
        """(H, W) bool: all of it in the last frame, including what hands hid."""
        return self._whole

    def prompt(self, rgb: np.ndarray, box_px: np.ndarray, exact: bool, hands: np.ndarray) -> Sighting | None:
        """Start, or start again, from a box [x, y, w, h] that bounds it exactly or is a guess; `hands` (H, W) bool.

        None where the box shows nothing of it.
        """
        cut = cut_out_of_box(rgb, box_px, hands, exact)
        if cut is None:
            return None
        crop, mask = cut
        whole = np.zeros(rgb.shape[:2], bool)
        whole[crop.window] = crop.enlarge(mask.astype(np.float32)) > 0.5
        return self.go_on(rgb, whole, hands)

    def go_on(self, rgb: np.ndarray, whole: np.ndarray, hands: np.ndarray) -> Sighting | None:
        """Start, or start again, from its pixels (H, W) bool in this frame; None where nothing of it is visible."""
        self._whole, self._unseen = whole, 0
        self._colors = ColorModel(_MEMORY)
        return self._segment(rgb, whole, hands, None)

    def follow(
        self, rgb: np.ndarray, hands: np.ndarray, motion: Motion, A_background: np.ndarray | None, A_hand: np.ndarray | None
    ) -> Sighting | None:
        """Find it in the next frame. None if nothing of it is visible, or it is lost (then it is no longer `alive`)."""
        assert self._whole is not None
        A_own = motion.affine(self._whole, hands)
        A = self._likeliest(motion, hands, A_hand, A_background) if A_own is None else A_own
        moved = cv2.warpAffine(self._whole.view(np.uint8) * np.uint8(255), A, rgb.shape[1::-1], flags=cv2.INTER_LINEAR) > 127
        preference = motion.preference(A_own, A_background) if A_own is not None and A_background is not None else None
        sighting = self._segment(rgb, moved, hands, preference)
        self._unseen = 0 if sighting is not None and sighting.observed else self._unseen + 1
        if self._unseen > self._max_carried or self._whole is None:
            self._whole = None
            return None
        return sighting

    def _likeliest(self, motion: Motion, hands: np.ndarray, A_hand: np.ndarray | None, A_background: np.ndarray | None) -> np.ndarray:
        """The motion (2, 3) of the hands or of the background, whichever explains better what is seen where that takes it; of equals the hands'."""
        whole = self._whole
        assert whole is not None
        known = [A for A in (A_hand, A_background) if A is not None] or [_IDENTITY]
        return min(known, key=lambda A: motion.misfit(A, whole, hands))

    def _segment(self, rgb: np.ndarray, moved: np.ndarray, hands: np.ndarray, preference: np.ndarray | None) -> Sighting | None:
        box_px = mask_bbox(moved)
        area_px = int(moved.sum())
        crop = Crop.around(box_px, _MARGIN * float(np.sqrt(area_px)), rgb.shape[:2], _SIDE_PX)
        if area_px < max(_LEAST_SHARE * moved.size, 1) or crop is None:
            self._whole = None
            return None
        picture, place, hand = crop.shrink(rgb), crop.shrink_mask(moved), crop.shrink_mask(hands)
        if (place & ~hand).sum() < max(_MIN_PX, _HIDDEN_SHARE * place.sum()):
            self._whole = moved
            return None
        expected = place & ~hand
        color = self._color(picture, expected, ~place & ~hand)
        logit = _logit(picture, place, color, None if preference is None else crop.shrink(_full(preference, rgb)))
        mask = keep_near((logit > 0) & ~hand, expected, max(4, int(0.005 * place.sum())))
        agreement = (mask & expected).sum() / max(1, (mask | expected).sum())
        observed = bool(agreement >= _AGREEMENT and color[mask].mean() > _GONE)
        if not observed:
            mask = expected
        self._remember(crop, picture, mask, place, hand, moved, observed)
        signed = np.where(mask, np.maximum(logit, 0.1), np.minimum(logit, -0.1)).astype(np.float32)
        signed[hand] = -8.0
        return Sighting(Evidence(crop.x0, crop.y0, crop.enlarge(signed)), observed)

    def _color(self, picture: np.ndarray, thing: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(h, w) float32 log odds of each pixel by its colour; learned here where nothing was yet."""
        cell = cells(picture, BITS)
        if self._colors.thing is None or self._colors.around is None:
            self._colors.update(cell, thing.astype(float), rest.astype(float))
        assert self._colors.thing is not None
        assert self._colors.around is not None
        return np.asarray(log_ratio(self._colors.thing, self._colors.around, _COLOR_LIMIT)[cell])

    def _remember(
        self, crop: Crop, picture: np.ndarray, mask: np.ndarray, place: np.ndarray, hand: np.ndarray, moved: np.ndarray, observed: bool
    ) -> None:
        near_hand = cv2.dilate(hand.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
        whole = moved.copy()
        if observed:
            grown = mask | (place & near_hand)
            whole[crop.window] = crop.enlarge(grown.astype(np.float32)) > 0.5
            core = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
            rest = cv2.dilate(grown.view(np.uint8), np.ones((5, 5), np.uint8)) == 0
            self._colors.update(cells(picture, BITS), core.astype(float), (rest & ~near_hand).astype(float))
        self._whole = whole


def _logit(picture: np.ndarray, place: np.ndarray, color: np.ndarray, preference: np.ndarray | None) -> np.ndarray:
    """(h, w) float32 log odds of each pixel by colour, place and motion, smoothed up to the picture's edges."""
    reach_px = 0.06 * np.sqrt(place.sum()) + 1
    logit = color + np.clip(_PLACE_WEIGHT * signed_distance(place) / reach_px, -_PLACE_LIMIT, _PLACE_LIMIT)
    if preference is not None:
        logit = logit + np.clip(_MOTION_PER_LEVEL * preference, -_MOTION_LIMIT, _MOTION_LIMIT)
    return edge_aware(picture, logit, 3e-3)


def cut_out_of_box(rgb: np.ndarray, box_px: np.ndarray, hands: np.ndarray, exact: bool) -> tuple[Crop, np.ndarray] | None:
    """The crop around a box and the thing in it, (h, w) bool at working size, hands left out.

    An `exact` box bounds the thing: without background to compare with, or if the cut leaves next to nothing, the thing is all of the box
    except hands. A guessed box may cover a part of the thing, or nothing. None if the box shows only hands, or nothing stands out in a guess.
    """
    if not (np.isfinite(box_px).all() and (box_px[2:] > 0).all()):
        return None
    side_px = float(box_px[2:].max())
    crop = Crop.around(box_px, _RING * side_px, rgb.shape[:2], _GRABCUT_SIDE_PX)
    if crop is None:
        return None
    hand = crop.shrink_mask(hands)
    box = _rectangle(crop, box_px, 0.0)
    inside = box & ~hand
    if not inside.any():
        return None
    if min(inside.sum(), (~(box if exact else inside)).sum()) < _MIN_PX:
        return (crop, inside) if exact else None
    picture = crop.shrink(rgb)
    if exact:
        cut = _grab_cut(_uncovered(picture, hand), box, box) & ~hand
        return crop, cut if cut.sum() >= _MIN_BOX_SHARE * inside.sum() else inside
    near = _rectangle(crop, box_px, _LOOSENESS * side_px) & ~hand
    guess = _guess(picture, inside, near, _colors_elsewhere(rgb, box_px, hands))
    return None if guess is None else (crop, guess)


def _uncovered(picture: np.ndarray, hand: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) with each pixel of hands (h, w) bool painted like the nearest other one.

    What shows between fingers then goes on behind them. As background they would cut it into slivers, each with more edge than inside, and their dark
    edges would stand for shaded parts of the thing.
    """
    if not hand.any():
        return picture
    _, nearest = cv2.distanceTransformWithLabels(hand.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colors = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colors[nearest[~hand]] = picture[~hand]
    return colors[nearest]


def _guess(picture: np.ndarray, inside: np.ndarray, near: np.ndarray, elsewhere: np.ndarray) -> np.ndarray | None:
    """What stands out from the picture's other colours in and near a guessed box, by GrabCut or by colour alone; None if nothing does."""
    cell = cells(picture, BITS)
    alike = near & (histogram(cell, inside.astype(float)) > _STANDS_OUT * elsewhere)[cell]
    for cut in (_grab_cut(picture, alike, near) if alike.sum() >= _MIN_PX else alike, alike):
        whole = keep_near(cut, inside, _MIN_PX)
        shared = np.minimum(histogram(cell, whole.astype(float)), elsewhere).sum()
        if _MIN_BOX_SHARE * inside.sum() <= whole.sum() <= _MAX_GROWTH * inside.sum() and shared < _MAX_SHARED_COLOR:
            return whole
    return None


def _grab_cut(picture: np.ndarray, likely: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """(h, w) bool: the thing that likely covers some pixels, possibly others, and no more (Rother et al., GrabCut, 2004)."""
    trimap = np.where(likely, cv2.GC_PR_FGD, np.where(possible, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, trimap, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.asarray(trimap == cv2.GC_PR_FGD)


def _colors_elsewhere(rgb: np.ndarray, box_px: np.ndarray, hands: np.ndarray) -> np.ndarray:
    """(4096,) the colours of a frame outside of a box and of hands."""
    frame = Crop.around(np.array([0.0, 0.0, rgb.shape[1], rgb.shape[0]]), 0.0, rgb.shape[:2], _GRABCUT_SIDE_PX)
    assert frame is not None
    rest = ~frame.shrink_mask(hands) & ~_rectangle(frame, box_px, 0.0)
    return histogram(cells(frame.shrink(rgb), BITS), rest.astype(float))


def _rectangle(crop: Crop, box_px: np.ndarray, margin_px: float) -> np.ndarray:
    """(h, w) bool at working size: a box grown by a margin; at least a pixel of it."""
    corners = crop.points(np.stack([box_px[:2] - margin_px, box_px[:2] + box_px[2:] + margin_px]) - 0.5)
    x0, y0, x1, y1 = np.round(corners + 0.5).astype(int).ravel()
    mask = np.zeros((crop.height, crop.width), bool)
    mask[max(y0, 0) : max(y1, y0 + 1, 1), max(x0, 0) : max(x1, x0 + 1, 1)] = True
    return mask


def _full(values: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    return cv2.resize(values, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
