"""How long a unit of the reconstruction is, from hands or from objects of known size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from egoworld_ops.operators.rows import standing_pose_of

MIN_FRAMES, _MIN_POINTS = 3, 4
_AROUND = 0.6
"""Points are near a thing if they lie so near to its box, in sizes of it."""
_HAND_ERROR, _HAND_ABOVE = 0.25, 0.8
"""Depth of a hand by a network is off by 10 to 40 %; and it hovers over what is behind it: the nearest fifth of its frames counts."""
_OBJECT_ERROR, _OBJECT_ABOVE = 0.05, 0.6


@dataclass(frozen=True, slots=True)
class Scale:
    """Metres in a unit, standard error as a share of it, and what it comes from, as column `scale_source`."""

    metres_per_unit: float
    error_share: float
    source: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Points of the world seen in one frame: pixels (N, 2), and depths (N,) in units."""

    px: np.ndarray
    depth_units: np.ndarray


def scale_of(seen: Mapping[int, Seen], objects: Iterable[Mapping[str, Any]], hands: Iterable[Mapping[str, Any]]) -> Scale | None:
    """The scale by the objects whose size is given, else by the hands; None where neither is near points of the world in enough frames.

    A thing is nearer than what lies around it in the picture, or as near where it touches; so each frame gives a lower bound, and frames where it
    lies or touches give the scale: a high quantile over the frames.

    Args:
        seen: by frame.
        objects: rows of `object_pose`.
        hands: rows of `hand_pose`.
    """
    return _by_objects(seen, objects) or _by_hands(seen, hands)


def _by_objects(seen: Mapping[int, Seen], rows: Iterable[Mapping[str, Any]]) -> Scale | None:
    ratios = []
    for row in rows:
        T = standing_pose_of(row) if row["scale_source"] in ("dimensions", "mesh") and row["dimensions_m"] else None
        if T is not None and row["frame_index"] in seen:
            x_m, y_m, z_m = T[:3, 3]
            size_px = row["fx_px"] * max(row["dimensions_m"]) / z_m
            at = np.array([row["fx_px"] * x_m, row["fy_px"] * y_m]) / z_m + [row["cx_px"], row["cy_px"]]
            depth = _depth_around(seen[row["frame_index"]], at - size_px / 2, at + size_px / 2)
            if depth is not None:
                ratios.append(float(z_m + min(row["dimensions_m"]) / 2) / depth)
    return _scale(ratios, _OBJECT_ABOVE, _OBJECT_ERROR, "dimensions")


def _by_hands(seen: Mapping[int, Seen], rows: Iterable[Mapping[str, Any]]) -> Scale | None:
    ratios = []
    for row in rows:
        if row["joints_m"] is not None and row["frame_index"] in seen:
            px, depth_m = np.array(row["joints_px"]), float(np.median(np.array(row["joints_m"])[:, 2]))
            depth = _depth_around(seen[row["frame_index"]], px.min(0), px.max(0))
            if depth is not None and depth_m > 0:
                ratios.append(depth_m / depth)
    return _scale(ratios, _HAND_ABOVE, _HAND_ERROR, "hands")


def _depth_around(seen: Seen, low_px: np.ndarray, high_px: np.ndarray) -> float | None:
    """Median depth of the points in and around a box; None where there are too few."""
    margin = _AROUND * (high_px - low_px).max()
    near = ((seen.px > low_px - margin) & (seen.px < high_px + margin)).all(1)
    return float(np.median(seen.depth_units[near])) if near.sum() >= _MIN_POINTS else None


def _scale(ratios: Sequence[float], quantile: float, bias: float, source: str) -> Scale | None:
    if len(ratios) < MIN_FRAMES:
        return None
    value = float(np.quantile(ratios, quantile))
    spread = float(np.median(np.abs(np.array(ratios) - np.median(ratios)))) * 1.4826 / value
    return Scale(value, float(np.hypot(bias, spread)), source)
