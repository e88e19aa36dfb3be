"""Masks of hands: the prior from the landmarks, refined by a colour model learned inside it and by the edges of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.masks._color import ColorModel, cells, log_ratio
from egoworld_ops.operators.masks._hand_prior import hand_prior
from egoworld_ops.operators.masks._regions import Crop, Evidence, guided, keep_near, signed_distance

_SIDE_PX = 192
_MARGIN_M = 0.03
_FINGER_M = 0.010
_CORE = 0.9
_COLOR_LIMIT = 3.0
_COLOR_WEIGHT = 1.0
_PRIOR_WEIGHT = 3.0
_PRIOR_LIMITS = (-6.0, 2.0)
_CUFF_LIMIT = 0.5
_REACH_M = 0.012
_NEVER = -8.0
_MEMORY = 0.8


@dataclass(frozen=True, slots=True)
class HandPrompt:
    """One detected hand: its role and its image points (21, 2)."""

    role: str
    points_px: np.ndarray


class HandSegmenter:
    """Finds the pixels of hands, frame after frame; remembers each hand's colours."""

    def __init__(self, wrist_margin_m: float) -> None:
        self._wrist_margin_m = wrist_margin_m
        self._colors: dict[str, ColorModel] = {}

    def segment(self, rgb: np.ndarray, hand: HandPrompt, others: list[HandPrompt], objects: np.ndarray | None) -> Evidence | None:
        """The evidence for one hand in a frame (H, W, 3); None where it lies outside of it.

        `others` are the frame's other hands; `objects` (4096,) the colours of the known objects.
        """
        size_px = hand_prior(hand.points_px, self._wrist_margin_m).px_per_m
        low, high = hand.points_px.min(0), hand.points_px.max(0)
        crop = Crop.around(np.concatenate([low, high - low]), _MARGIN_M * size_px, rgb.shape[:2], _SIDE_PX)
        if crop is None:
            return None
        prior = hand_prior(crop.points(hand.points_px), self._wrist_margin_m)
        picture = crop.shrink(rgb)
        shape = prior.draw(crop.width, crop.height)
        if not shape.any():
            return None
        distance = signed_distance(shape) / (prior.px_per_m * _FINGER_M)
        prior_logit = np.clip(_PRIOR_WEIGHT * distance, *_PRIOR_LIMITS)
        cuff = prior.past_joint(crop.width, crop.height)
        prior_logit[cuff] = np.minimum(prior_logit[cuff], _CUFF_LIMIT)
        other = np.zeros_like(shape)
        for rival in others:
            other |= hand_prior(crop.points(rival.points_px), self._wrist_margin_m).draw(crop.width, crop.height)
        core = prior.draw(crop.width, crop.height, _CORE) & ~cuff
        cell = cells(picture)
        model = self._colors.setdefault(hand.role, ColorModel(_MEMORY))
        outside = (distance < -_REACH_M / _FINGER_M) & ~other & ~prior.beyond_wrist(crop.width, crop.height)
        if model.thing is None:
            model.update(cell, core.astype(float), outside.astype(float))
        color = self._color_logit(model, objects)[cell]
        weight = core / (1 + np.exp(-color))
        model.update(cell, weight, outside.astype(float))
        color = self._color_logit(model, objects)[cell]
        logit = _COLOR_WEIGHT * color + prior_logit
        logit = self._refine(picture, logit)
        logit[(distance < -_REACH_M / _FINGER_M) | prior.beyond_wrist(crop.width, crop.height)] = _NEVER
        mask = keep_near(logit > 0, core, max(4, int((prior.px_per_m * 0.008) ** 2)))
        logit = np.where(mask, np.maximum(logit, 0.1), np.minimum(logit, -0.1)).astype(np.float32)
        return Evidence(crop.x0, crop.y0, crop.enlarge(logit))

    def _color_logit(self, model: ColorModel, objects: np.ndarray | None) -> np.ndarray:
        around = model.around if objects is None else 0.6 * model.around + 0.4 * objects
        return log_ratio(model.thing, around, _COLOR_LIMIT)

    def _refine(self, picture: np.ndarray, logit: np.ndarray) -> np.ndarray:
        probability = 1 / (1 + np.exp(-logit))
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        smooth = np.clip(guided(gray, probability.astype(np.float32), 3, 1e-3), 0.001, 0.999)
        return np.log(smooth / (1 - smooth))
