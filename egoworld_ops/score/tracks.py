"""Which track of the results is which object of the truth: one assignment for a whole video, by the pixels they share, or by position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egoworld_ops.score.truth import Truth
from egoworld_ops.vision import rle

Track = tuple[str, int]
"""Identifier of the clip, and of the track in it: tracks are numbered anew in each clip."""


def track_of(row: Mapping[str, Any]) -> Track:
    """The track a row belongs to."""
    return row["clip_id"], row["track_id"]


def assigned(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> dict[Track, str]:
    """The true label of each track of objects; tracks that are of none are left out.

    A clip's tracks and the labels are matched one to one (Hungarian method) by the sum over frames of mask IoU where the truth has masks, else by
    the share of frames in which the object's position is within its own radius.
    """
    votes = _by_masks(rows, truth) if truth.masks is not None else _by_position(rows, truth)
    found: dict[Track, str] = {}
    for clip_id in {clip for clip, _ in votes}:
        found |= _matched({track: counted for track, counted in votes.items() if track[0] == clip_id})
    return found


def _matched(votes: Mapping[Track, Mapping[str, float]]) -> dict[Track, str]:
    from scipy.optimize import linear_sum_assignment

    tracks = sorted(votes)
    labels = sorted({label for counted in votes.values() for label in counted})
    gain = np.array([[votes[track].get(label, 0.0) for label in labels] for track in tracks])
    return {tracks[i]: labels[j] for i, j in zip(*linear_sum_assignment(-gain), strict=True) if gain[i, j] > 0}


def _by_masks(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> dict[Track, dict[str, float]]:
    assert truth.masks is not None
    true = defaultdict(list)
    for mask in truth.masks:
        if mask.role == "object":
            true[mask.frame_index].append(mask)
    votes: dict[Track, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows.get("masks", ()):
        if row["role"] == "object":
            for mask in true[row["frame_index"]]:
                votes[track_of(row)][mask.label or ""] += iou_at(row["rle"], mask.rle)
    return votes


def _by_position(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> dict[Track, dict[str, float]]:
    true = defaultdict(list)
    for thing in truth.objects or ():
        true[thing.frame_index].append(thing)
    votes: dict[Track, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows.get("object_pose", ()):
        if row["x_m"] is None:
            continue
        said = np.array([row["x_m"], row["y_m"], row["z_m"]])
        for thing in true[row["frame_index"]]:
            shape = truth.shapes.get(thing.label)
            radius_m = shape.diameter_m / 2 if shape else 0.1
            votes[track_of(row)][thing.label] += float(np.linalg.norm(said - thing.T_camera_object[:3, 3]) < radius_m)
    return votes


def iou_at(said: Mapping[str, Any], true: Mapping[str, Any]) -> float:
    """Intersection over union at the resolution of the truth."""
    if list(said["size"]) != list(true["size"]):
        height, width = true["size"]
        said = rle.encode(rle.decode_at(said, (height, width)))
    return rle.iou(said, true)
