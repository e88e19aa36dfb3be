"""Masks of hands: the prior from the landmarks, refined by a colour model learned inside it and by the edges of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.masks._color import BITS, ColorModel, log_ratio
from egoworld_ops.operators.masks._hand_prior import HandPrior, hand_prior
from egoworld_ops.operators.masks._regions import Crop, Evidence, edge_aware, keep_near, signed_distance
from egoworld_ops.vision.colors import cells

_SIDE_PX = 192
_MARGIN_M = 0.03
_CORE = 0.9
_NATS_PER_M = 300.0
_PRIOR_LIMITS = (-6.0, 2.0)
_CUFF_LIMIT = 0.5
_REACH_M = 0.012
_COLOR_LIMIT = 3.0
_OBJECTS_SHARE = 0.4
_MEMORY = 0.8
_EDGE = 1e-3
_NEVER = -8.0
_LEAST = 0.1
_SMALLEST_M = 0.008


@dataclass(frozen=True, slots=True)
class HandPrompt:
    """One detected hand: its role and its image points (21, 2)."""

    role: str
    points_px: np.ndarray


class HandSegmenter:
    """Finds the pixels of hands, frame after frame; remembers each hand's colours. A hand ends `wrist_margin_m` past its wrist joint."""

    def __init__(self, wrist_margin_m: float) -> None:
        self._wrist_margin_m = wrist_margin_m
        self._colors: dict[str, ColorModel] = {}

    def segment(self, rgb: np.ndarray, hand: HandPrompt, others: list[HandPrompt], objects: np.ndarray | None) -> Evidence | None:
        """The evidence for one hand in a frame (H, W, 3); None where it lies outside of it.

        `others` are the frame's other hands; `objects` (4096,) the colours of the known objects.
        """
        crop = self._crop(rgb, hand)
        if crop is None:
            return None
        prior = self._prior(crop, hand)
        shape = prior.draw(crop.width, crop.height)
        if not shape.any():
            return None
        picture = crop.shrink(rgb)
        inside_m = signed_distance(shape) / prior.px_per_m
        cuff, end = prior.past_joint(crop.width, crop.height), prior.beyond_wrist(crop.width, crop.height)
        core = prior.draw(crop.width, crop.height, _CORE) & ~cuff
        far = inside_m < -_REACH_M
        rest = far & ~end
        for other in others:
            rest &= ~self._prior(crop, other).draw(crop.width, crop.height)
        place = np.clip(_NATS_PER_M * inside_m, *_PRIOR_LIMITS)
        place[cuff] = np.minimum(place[cuff], _CUFF_LIMIT)
        logit = edge_aware(picture, place + self._color(hand.role, picture, core, rest, objects), _EDGE)
        logit[far | end] = _NEVER
        mask = keep_near(logit > 0, core, max(4, int((prior.px_per_m * _SMALLEST_M) ** 2)))
        logit = np.where(mask, np.maximum(logit, _LEAST), np.minimum(logit, -_LEAST)).astype(np.float32)
        return Evidence(crop.x0, crop.y0, crop.enlarge(logit))

    def _crop(self, rgb: np.ndarray, hand: HandPrompt) -> Crop | None:
        low, high = hand.points_px.min(0), hand.points_px.max(0)
        margin_px = _MARGIN_M * hand_prior(hand.points_px, self._wrist_margin_m).px_per_m
        return Crop.around(np.concatenate([low, high - low]), margin_px, rgb.shape[:2], _SIDE_PX)

    def _prior(self, crop: Crop, hand: HandPrompt) -> HandPrior:
        return hand_prior(crop.points(hand.points_px), self._wrist_margin_m)

    def _color(self, role: str, picture: np.ndarray, core: np.ndarray, rest: np.ndarray, objects: np.ndarray | None) -> np.ndarray:
        """(h, w) log odds of each pixel by its colour, after the hand's colours are updated with this picture."""
        cell = cells(picture, BITS)
        model = self._colors.setdefault(role, ColorModel(_MEMORY))
        if model.thing is None:
            model.update(cell, core.astype(float), rest.astype(float))
        model.update(cell, core / (1 + np.exp(-_log_odds(model, objects)[cell])), rest.astype(float))
        return np.asarray(_log_odds(model, objects)[cell])


def _log_odds(model: ColorModel, objects: np.ndarray | None) -> np.ndarray:
    """(4096,) log odds of each colour to be the hand's rather than its surroundings' or an object's."""
    assert model.thing is not None
    assert model.around is not None
    around = model.around if objects is None else (1 - _OBJECTS_SHARE) * model.around + _OBJECTS_SHARE * objects
    return log_ratio(model.thing, around, _COLOR_LIMIT)
