"""What the frames around say of a thing: whether its pose froze, jitters, has the shape of the other side, or belongs to another frame.

Each function takes the things of a clip by frame and track, and gives columns by (frame, track).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from egoworld_ops.operators.agreement._things import Thing
from egoworld_ops.operators.rows import pose_of

Frames = Mapping[int, Mapping[int, Thing]]
Columns = dict[tuple[int, int], dict[str, Any]]

OTHER_SIDE = -0.2
"""Median cosine below which the fingers bend as those of the other hand do. Fingers that are straight have one of about 0."""
_AROUND_S = 0.5
_MOST_LAG = 6
_LEAST_FRAMES = 15
_LEAST_MISFIT = 0.01
"""In sizes of the thing: what moves less between frames cannot tell one frame from another."""
_MISFIT_DROP = 0.5
"""At another time the misfit must be less than this share of what it is at the same time."""
_ELSEWHERE, _ELSEWHERE_S = 0.25, 10.0
"""In sizes of the thing or of a hand, whichever is larger: the boxes of an object's masks lie no farther apart than the first, and the second times
the seconds between them. Of a hand's 12 cm that is a metre a second beyond its own length a frame."""
_WRIST, _THUMB = 0, (1, 4)
_KNUCKLES, _TIPS = (5, 9, 13, 17), (8, 12, 16, 20)


def frozen(frames: Frames, stride: int) -> Columns:
    """`frozen`: the pose is that of the frame before to the bit, and the masks of the two frames are not the same."""
    found: Columns = {}
    for index, things in frames.items():
        for track_id, thing in things.items():
            before = frames.get(index - stride, {}).get(track_id)
            if before is not None and _same_pose(before, thing) and not _same_mask(before, thing):
                found[index, track_id] = {"frozen": True}
    return found


def _same_pose(first: Thing, second: Thing) -> bool:
    if first.pose is None or second.pose is None:
        return False
    if first.is_hand:
        return first.joints_m is not None and second.joints_m is not None and np.array_equal(first.joints_m, second.joints_m)
    a, b = pose_of(first.pose), pose_of(second.pose)
    return a is not None and b is not None and np.array_equal(a, b) and bool(second.pose["observed"])


def _same_mask(first: Thing, second: Thing) -> bool:
    return first.mask is None or second.mask is None or first.mask["rle"] == second.mask["rle"]


def jitter(frames: Frames, stride: int) -> Columns:
    """`jitter_share` of hands."""
    found: Columns = {}
    for index, things in frames.items():
        for track_id, thing in things.items():
            three = [frames.get(index + step, {}).get(track_id) for step in (-stride, 0, stride)]
            seen = [t.projected_px for t in three if t is not None and t.is_hand and t.projected_px is not None]
            if len(seen) == len(three) and thing.size_px:
                off = np.linalg.norm(seen[1] - (seen[0] + seen[2]) / 2, axis=1)
                if np.isfinite(off).all():
                    found[index, track_id] = {"jitter_share": float(off.mean() / thing.size_px)}
    return found


def side(frames: Frames, stride: int) -> Columns:
    """`side_score` of hands, and `bends_away`: whether the fingers bend as the other hand's in this frame itself.

    Wrist to the index finger's knuckle, cross wrist to the little finger's, points out of the palm of a right hand: that way fingers bend.
    """
    bends: dict[int, list[tuple[int, float, float]]] = {}
    for index, things in frames.items():
        for track_id, thing in things.items():
            if thing.is_hand and thing.joints_m is not None and (bend := _bend(thing.joints_m)) is not None:
                right = 1.0 if thing.role == "hand_right" else -1.0
                bends.setdefault(track_id, []).append((index, float(thing.any_row["timestamp_s"]), right * bend))
    found: Columns = {}
    for track_id, of_track in bends.items():
        times, values = np.array([t for _, t, _ in of_track]), np.array([v for _, _, v in of_track])
        first, last = np.searchsorted(times, times - _AROUND_S), np.searchsorted(times, times + _AROUND_S, side="right")
        for (index, _, value), a, b in zip(of_track, first, last, strict=True):
            found[index, track_id] = {"side_score": float(np.median(values[a:b])), "bends_away": value < 0}
    return found


def elsewhere(frames: Frames, stride: int) -> Columns:
    """`elsewhere` of objects: the mask is farther from where it was last seen than things are moved in that time, their own size apart."""
    seen: dict[int, list[tuple[int, Thing]]] = {}
    for index, things in frames.items():
        for track_id, thing in things.items():
            if thing.mask is not None and thing.mask["observed"] and thing.size_px is not None:
                seen.setdefault(0 if thing.is_hand else track_id, []).append((index, thing))
    hand_px = _usual_px(seen.pop(0, []))
    found: Columns = {}
    for track_id, of_track in seen.items():
        unit_px = max(_usual_px(of_track), hand_px)
        for (_, before), (index, now) in pairwise(of_track):
            elapsed_s = float(now.any_row["timestamp_s"] - before.any_row["timestamp_s"])
            if _apart_px(before, now) > unit_px * (_ELSEWHERE + _ELSEWHERE_S * elapsed_s):
                found[index, track_id] = {"elsewhere": True}
    return found


def _usual_px(things: Sequence[tuple[int, Thing]]) -> float:
    return float(np.median([thing.size_px for _, thing in things])) if things else 0.0


def _apart_px(first: Thing, second: Thing) -> float:
    """Distance between the boxes of two masks; 0 where they overlap."""
    one, other = np.asarray(first.mask_box_px), np.asarray(second.mask_box_px)
    between = np.maximum(one[:2], other[:2]) - np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    return float(np.linalg.norm(np.maximum(between, 0)))


def _bend(joints_m: np.ndarray) -> float | None:
    """Cosine between the palm's normal and the way the fingers point; None for a hand without shape."""
    normal = np.cross(joints_m[_KNUCKLES[0]] - joints_m[_WRIST], joints_m[_KNUCKLES[-1]] - joints_m[_WRIST])
    fingers = (joints_m[list(_TIPS)] - joints_m[list(_KNUCKLES)]).mean(0)
    length = float(np.linalg.norm(normal) * np.linalg.norm(fingers))
    return float(np.clip(normal @ fingers / length, -1, 1)) if length > 0 else None


def lag(frames: Frames, stride: int) -> Columns:
    """`lag_frames`: by how many processed frames pose or box come after the mask, or the pose after the box; of a whole clip.

    Frozen poses tell nothing.
    """
    found: Columns = {}
    stuck = frozen(frames, stride)
    for track_id in sorted({track_id for things in frames.values() for track_id in things}):
        of_track = {
            index // stride: replace(things[track_id], pose=None) if (index, track_id) in stuck else things[track_id]
            for index, things in frames.items()
            if track_id in things
        }
        lags = [_lag(*pair) for pair in _paths(of_track)]
        known = [value for value in lags if value is not None]
        if known:
            said = max(known, key=abs)
            found |= {(n * stride, track_id): {"lag_frames": said} for n in of_track}
    return found


def _paths(of_track: Mapping[int, Thing]) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Paths (N, 2) of two of mask, box and pose; NaN where unknown; and the thing's size in pixels."""
    first, n = min(of_track), max(of_track) - min(of_track) + 1
    mask, pose, box = (np.full((n, 2), np.nan) for _ in range(3))
    sizes = []
    for index, thing in of_track.items():
        if thing.mask is not None and thing.mask["observed"]:
            mask[index - first] = _middle(thing.mask_box_px)
            sizes.append(thing.size_px or 0.0)
        if thing.found_px is not None:
            box[index - first] = _middle_of(thing.found_px)
        elif thing.box_px is not None:
            box[index - first] = _middle(thing.box_px)
        if thing.joints_px is not None:
            pose[index - first] = _middle_of(thing.joints_px)
        elif thing.projected_px is not None and (thing.pose or {}).get("converged"):
            pose[index - first] = _middle_of(thing.projected_px)
    size = float(np.median(sizes)) if sizes else 0.0
    yield from ((mask, box, size), (mask, pose, size), (box, pose, size))


def _middle_of(points_px: np.ndarray) -> np.ndarray:
    middle: np.ndarray = (points_px.min(0) + points_px.max(0)) / 2
    return middle


def _middle(box_px: np.ndarray | None) -> np.ndarray:
    box = np.asarray(box_px)
    middle: np.ndarray = box[:2] + box[2:] / 2
    return middle


def _lag(leading: np.ndarray, following: np.ndarray, size_px: float) -> int | None:
    """By how many frames the second path (N, 2) comes after the first; None where they are too short or too still to tell."""
    if not size_px or len(leading) < _MOST_LAG + _LEAST_FRAMES:
        return None
    misfits = {}
    for shift in range(-_MOST_LAG, _MOST_LAG + 1):
        a = leading[max(-shift, 0) : len(leading) - max(shift, 0)]
        b = following[max(shift, 0) : len(following) - max(-shift, 0)]
        away = a - b
        away = away[np.isfinite(away).all(1)]
        if len(away) < _LEAST_FRAMES:
            return None
        misfits[shift] = float(np.median(np.linalg.norm(away - np.median(away, 0), axis=1)) / size_px)
    # how far the thing moves within the most frames looked at: without that all lags fit alike
    if max(misfits.values()) < _LEAST_MISFIT:
        return None
    best = min(misfits, key=lambda shift: (misfits[shift], abs(shift)))
    return best if misfits[0] >= _LEAST_MISFIT and misfits[best] < _MISFIT_DROP * misfits[0] else 0
