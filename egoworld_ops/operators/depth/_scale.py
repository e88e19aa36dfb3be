"""By what the depth of a clip is to be multiplied so that things of known size have it: hands, as table `hand_pose` or a person has them, or objects
whose dimensions a person knows. And the other way round: by what the hands are to be multiplied so that they lie where depth of known error shows
them. One factor each for the clip, with its standard error. `_rows.py` decides whether the depth is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from egoworld_ops.operators import hand_size
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth_maps import DepthMap
from egoworld_ops.operators.rows import by_frame
from egoworld_ops.types import Camera
from egoworld_ops.vision import rle
from egoworld_ops.vision.lenses import unproject

_FLESH_M = 0.008
"""From the skin to the joint below it: half of a finger's thickness. A guess; at 0.4 m a half of it more is 1 % of scale."""
_HANDS_LIKE = (0.67, 1.5)
"""What the size of a network's hand may be multiplied by: beyond that it is the depth, or the camera, that is wrong. A guess: adults' hands differ by
6 % (`hand_pose.hamer`), and networks by 20 % (`hand_pose.mediapipe`)."""
_CONTRADICTS = 2.0
"""Standard errors by which depth must be off the size of something known to be called wrong."""
_JOINTS, _FRAMES = 8, 3
"""Fewest joints with a depth of a hand, and fewest frames with such a hand or object."""
_ACROSS = 0.15
"""Of the joints' distances to the depth, as share: a hand with more spread is hidden, or is none."""
_POINTS = 300
_LONGEST = 0.75
"""Quantile over the frames of the extent that is seen of an object: in some of them it is hidden, and in a few its mask holds more than it."""
_EXTENT_ERROR_SHARE = 0.05
"""Of an extent, from the mask's border and the depth's noise there. A guess."""
_HANDS = {"left": "hand_left", "right": "hand_right"}


@dataclass(frozen=True, slots=True)
class Scale:
    """A factor, what it was fitted to, and its standard error as a share of it; None where nothing of a known error was there to fit it to."""

    factor: float | None
    source: Literal["hands", "dimensions", "none"]
    error_share: float | None

    def columns(self) -> dict[str, Any]:
        """Those of table `depth`."""
        return {"scale": self.factor, "scale_source": self.source, "scale_error_share": self.error_share}

    def beside(self, limit: float) -> tuple[float, float | None]:
        """What depth of unknown error is to be multiplied by, and its standard error after that: 1 and None where this scale is less sure than that.

        Depth that it does not contradict stays as it is, as the scale may be the one that is wrong; it is then as unsure as the two differ.
        """
        if self.factor is None or self.error_share is None or self.error_share > limit:
            return 1.0, None
        off = math.log(self.factor)
        return (self.factor, self.error_share) if abs(off) > _CONTRADICTS * self.error_share else (1.0, math.hypot(self.error_share, off))


@dataclass(frozen=True, slots=True)
class _Hand:
    """A hand in a frame: its depth over that of the map at its skin, its own depth in metres, and the standard error of that."""

    ratio: float
    z_m: float
    error_share: float


class Evidence:
    """What the frames of a clip say of the scale, gathered one depth map at a time."""

    def __init__(self, item: ClipInput) -> None:
        self._camera = item.camera
        self._hands = by_frame(item.tables["hand_pose"], ("frame_index", "hand", "joints_px", "joints_m", "depth_error_share"))
        self._masks = by_frame(item.tables["masks"], ("frame_index", "role", "label", "rle"))
        self._known = hand_size.given(item.tables["hand_pose"], item.sidecar)
        self._sizes = {thing.label: np.sort(thing.dimensions_m) for thing in item.sidecar.objects if thing.dimensions_m}
        self._seen_hands: list[_Hand] = []
        self._extents: dict[str, list[float]] = {}

    def add(self, found: DepthMap) -> None:
        """The depth of one more frame."""
        masks = self._masks.get(found.frame_index, [])
        for hand in self._hands.get(found.frame_index, []):
            known = hand["joints_m"] is not None and hand["depth_error_share"] is not None
            if known and (seen := _of_hand(found, self._camera, hand, masks)):
                self._seen_hands.append(seen)
        for mask in masks:
            if mask["role"] == "object" and mask["label"] in self._sizes and (extent_m := _extent_m(found, self._camera, mask)):
                self._extents.setdefault(mask["label"], []).append(extent_m)

    def fitted(self) -> Scale:
        """The factor of the surest evidence."""
        found = [self._by_hands(), *(self._by_dimensions(label) for label in sorted(self._extents))]
        known = [scale for scale in found if scale is not None]
        return min(known, key=lambda scale: scale.error_share or 0.0) if known else Scale(None, "none", None)

    def of_hands(self, applied: float, error_share: float) -> dict[str, float]:
        """Columns `hand_scale` and its error, by depth of that error after it was multiplied by `applied`; none where hands are surer of themselves.

        A hand's place rests on the focal length as well: where that is assumed, its size does not follow from its depth.
        """
        if len(self._seen_hands) < _FRAMES or not self._camera.metric:
            return {}
        factors = np.array([(applied * (hand.z_m - _FLESH_M) / hand.ratio + _FLESH_M) / hand.z_m for hand in self._seen_hands])
        flesh = _FLESH_M / 2 / float(np.median([hand.z_m for hand in self._seen_hands]))
        factor, scatter = _middle(factors)
        error_share = math.hypot(error_share, scatter, flesh, self._camera.focal_error_share)
        surer = error_share < self._error_of_hands() and _HANDS_LIKE[0] <= factor <= _HANDS_LIKE[1]
        return {"hand_scale": factor, "hand_scale_error_share": error_share} if surer else {}

    def _error_of_hands(self) -> float:
        return float(np.median([hand.error_share for hand in self._seen_hands]))

    def _by_hands(self) -> Scale | None:
        """The hand's own error is the same in each frame, so it does not shrink with their number."""
        if len(self._seen_hands) < _FRAMES:
            return None
        size = 1.0 if self._known is None else self._known.factor
        factor, scatter = _middle(
            np.array([hand.ratio * (size * hand.z_m - _FLESH_M) / (hand.z_m - _FLESH_M) for hand in self._seen_hands])
        )
        error_share = self._error_of_hands() if self._known is None or self._known.error_share is None else self._known.error_share
        return Scale(factor, "hands", math.hypot(error_share, scatter))

    def _by_dimensions(self, label: str) -> Scale | None:
        """The longest extent that is seen of a thing is between its longest side and its diagonal; where between them, nobody knows."""
        extents, size = self._extents[label], self._sizes[label]
        if len(extents) < _FRAMES:
            return None
        seen_m, (low_m, high_m) = float(np.quantile(extents, _LONGEST)), (float(size[-1]), float(np.linalg.norm(size)))
        middle_m = (low_m + high_m) / 2
        shape = (high_m - low_m) / math.sqrt(12) / middle_m
        return Scale(middle_m / seen_m, "dimensions", math.hypot(shape, _EXTENT_ERROR_SHARE, self._camera.focal_error_share))


def _middle(factors: np.ndarray) -> tuple[float, float]:
    """Median of the frames, and its standard error as a share of it."""
    factor = float(np.median(factors))
    return factor, 1.4826 * float(np.median(np.abs(factors / factor - 1))) / math.sqrt(len(factors))


def _of_hand(found: DepthMap, camera: Camera, hand: Mapping[str, Any], masks: list[dict[str, Any]]) -> _Hand | None:
    """A hand beside the map; None where the map does not show it."""
    px, z_m = np.array(hand["joints_px"], np.float64), np.array(hand["joints_m"], np.float64)[:, 2]
    map_m = found.along(unproject(camera, px))
    for mask in masks:
        if mask["role"] == _HANDS[hand["hand"]]:
            height, width = mask["rle"]["size"]
            at = (px + 0.5) * [width / camera.width, height / camera.height] - 0.5
            map_m = np.where(rle.at(mask["rle"], at), map_m, np.nan)
    known = np.isfinite(map_m)
    ratios = ((z_m - _FLESH_M) / map_m)[known]
    if len(ratios) < _JOINTS:
        return None
    middle, at_m = float(np.median(ratios)), float(np.median(z_m[known]))
    shown = middle > 0 and at_m > 2 * _FLESH_M and float(np.median(np.abs(ratios / middle - 1))) < _ACROSS
    return _Hand(middle, at_m, hand["depth_error_share"]) if shown else None


def _extent_m(found: DepthMap, camera: Camera, mask: Mapping[str, Any]) -> float | None:
    """Longest distance between two points that are seen of a thing; None where its mask holds no depth."""
    v, u = np.nonzero(rle.decode_at(mask["rle"], (camera.height, camera.width)))
    px = np.stack([u, v], -1)
    px = np.concatenate([cv2.convexHull(px.astype(np.int32))[:, 0], px[:: max(1, len(px) // _POINTS)]])
    rays = unproject(camera, px.astype(np.float64))
    points = rays * (found.along(rays) / rays[:, 2])[:, None]
    points = points[np.isfinite(points).all(1)]
    if len(points) < _JOINTS:
        return None
    middle = np.median(points[:, 2])
    points = points[np.abs(points[:, 2] - middle) < _reach(points, middle)]
    pixel_m = float(middle) / camera.fx_px
    return float(np.linalg.norm(points[:, None] - points[None], axis=-1).max()) + pixel_m


def _reach(points: np.ndarray, middle: float) -> float:
    """How far before or behind the middle a point of the thing may lie: points of what is behind it, along the mask's border, are further.

    Of a rod that points away, the ends are twice the median deviation from the middle; of a ball, the outline is 3.5 times, of which the last 2 % of
    its extent is lost.
    """
    return 2.5 * float(np.median(np.abs(points[:, 2] - middle))) + 0.01
