"""Things of one kind beside each other: where two tracks are of one size and colour and so near that they may have been exchanged.

Which of two equal things a track is on follows from its unbroken motion alone. Where their masks touch, that says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._tracking import Sighting, Track
from egoworld_ops.operators.object_pose._working import SIDE_PX

SAME_SIZE = 0.05
"""Shapes are taken for equal if their sides, in order of length, differ by no more than this share."""
SAME_COLOR = 0.5
"""And looks, if their colours' histograms overlap by this share: light and the side that is seen change them."""
_LEVELS = 6
NEAR_SHARE = 0.15
"""Masks so near, as a share of the thing's size, touch: what follows one of them may go on with the other."""


def exchangeable(tracks: Sequence[Track], shapes: Mapping[int, Shape | None]) -> dict[tuple[int, int], int]:
    """By track and frame the other track with which it may have been exchanged there; frames in which it cannot are left out.

    Args:
        tracks: of one clip, each with a number of its own.
        shapes: of each track, None where its size is not known: nothing is said of those.
    """
    found: dict[tuple[int, int], int] = {}
    for one, other in combinations(tracks, 2):
        if _same_size(shapes[one.track_id], shapes[other.track_id]) and _same_look(one, other):
            for frame_index in _touching(one, other):
                found[one.track_id, frame_index], found[other.track_id, frame_index] = other.track_id, one.track_id
    return found


def _same_size(one: Shape | None, other: Shape | None) -> bool:
    return one is not None and other is not None and np.allclose(np.sort(one.dimensions_m), np.sort(other.dimensions_m), rtol=SAME_SIZE)


def _same_look(one: Track, other: Track) -> bool:
    return float(np.minimum(_colors(one), _colors(other)).sum()) >= SAME_COLOR


def _colors(track: Track) -> np.ndarray:
    """Shares of the object's pixels by colour, in all keyframes together."""
    pixels = np.concatenate([view.rgb[view.mask & ~view.hands] for view in track.keyframes])
    level = pixels.astype(np.int64) * _LEVELS // 256
    counts = np.bincount(level @ (_LEVELS**2, _LEVELS, 1), minlength=_LEVELS**3)
    return counts / max(counts.sum(), 1)


def _touching(one: Track, other: Track) -> list[int]:
    """The frames in which their masks are near to each other."""
    near_px = NEAR_SHARE * SIDE_PX / min(one.scale, other.scale)
    there = {sighting.frame_index: sighting for sighting in other.sightings}
    return [
        sighting.frame_index
        for sighting in one.sightings
        if sighting.frame_index in there
        and _gap_px(_border_px(sighting, one.scale), _border_px(there[sighting.frame_index], other.scale)) <= near_px
    ]


def _border_px(sighting: Sighting, scale: float) -> np.ndarray:
    """(N, 2) pixels of the video on the mask's border."""
    seen = sighting.seen
    lines, _ = cv2.findContours(seen.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([line[:, 0] for line in lines]) if lines else np.zeros((0, 2))
    return np.asarray((points / seen.scale + seen.origin_px) / scale)


def _gap_px(a_px: np.ndarray, b_px: np.ndarray) -> float:
    """Least distance between points (N, 2) and (M, 2); infinite where there are none."""
    if not len(a_px) or not len(b_px):
        return np.inf
    return float(np.sqrt(((a_px[:, None] - b_px) ** 2).sum(2).min()))
