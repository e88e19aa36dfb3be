"""Scores of `object_pose`: ADD and ADD-S with recall over thresholds (Hinterstoisser et al., 2012; Xiang et al., 2018), angle and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from egoworld_ops.operators.rows import pose_of
from egoworld_ops.score.card import Measured, Score, calibrations, median, share
from egoworld_ops.score.tracks import assigned, track_of
from egoworld_ops.score.truth import ObjectTruth, ShapeTruth, Truth
from egoworld_ops.vision.geometry import rotation_angle_deg, transform

STAGE = "object_pose"

THRESHOLDS = (0.02, 0.05, 0.10, 0.20)
"""Of recall, in shares of the object's diameter."""
RIGHT_DEG, RIGHT_DEPTH = 10.0, 0.10
"""A pose is right within this angle, symmetry counted, and this share of the depth."""


@dataclass(frozen=True, slots=True)
class _Errors:
    """Of one pose: ADD and ADD-S in shares of the diameter (NaN without a shape), angle, share of the depth."""

    add: float
    adds: float
    angle_deg: float
    depth: float

    @property
    def is_right(self) -> bool:
        return self.angle_deg <= RIGHT_DEG and self.depth <= RIGHT_DEPTH


def measure(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> Measured | None:
    """Scores and calibrations of the poses; an object without a pose counts as beyond every threshold."""
    if truth.objects is None or "object_pose" not in rows:
        return None
    labels = assigned(rows, truth)
    said = {(row["frame_index"], labels[track_of(row)]): row for row in rows["object_pose"] if track_of(row) in labels}
    wanted = [thing for thing in truth.objects if thing.visible]
    pairs = [(thing, said.get((thing.frame_index, thing.label))) for thing in wanted]
    errors = {
        (t.frame_index, t.label): _errors(t, T, truth.shapes.get(t.label)) for t, row in pairs if row and (T := pose_of(row)) is not None
    }
    converged = [(key, said[key]["converged"]) for key in errors]
    sure = [key for key, yes in converged if yes]
    n = len(wanted)
    scores = [
        Score("objects: found with a pose", share(len(errors), n), "share", n),
        Score("objects: converged", share(len(sure), n), "share", n),
        Score("objects: of the converged, right", share(sum(errors[key].is_right for key in sure), len(sure)), "share", len(sure)),
        Score("objects: rotation off, symmetry counted, median", median([e.angle_deg for e in errors.values()]), "deg", len(errors)),
        Score("objects: translation off, median", median([100 * e.depth for e in errors.values()]), "% depth", len(errors)),
    ]
    with_shape = [thing for thing in wanted if thing.label in truth.shapes]
    for name in ("ADD", "ADD-S") if with_shape else ():
        values = [
            getattr(errors[key], "add" if name == "ADD" else "adds") for t in with_shape if (key := (t.frame_index, t.label)) in errors
        ]
        scores.append(Score(f"objects: {name}, median", median(values), "diameters", len(values)))
        for limit in THRESHOLDS:
            recalled = sum(value < limit for value in values)
            scores.append(
                Score(
                    f"objects: {name} recall within {limit:.0%} of the diameter", share(recalled, len(with_shape)), "share", len(with_shape)
                )
            )
    right = f"within {RIGHT_DEG:g} deg and {RIGHT_DEPTH:.0%} of depth"
    judged = [(said[key]["score"], e.is_right) for key, e in errors.items()]
    return Measured(tuple(scores), calibrations(f"object_pose.score: {right}", judged))


def _errors(thing: ObjectTruth, T_said: np.ndarray, shape: ShapeTruth | None) -> _Errors:
    from scipy.spatial import cKDTree

    T_true = thing.T_camera_object
    symmetries = shape.symmetries if shape else np.eye(3)[None]
    angle_deg = min(rotation_angle_deg(T_said[:3, :3] @ S, T_true[:3, :3]) for S in symmetries)
    depth = float(np.linalg.norm(T_said[:3, 3] - T_true[:3, 3]) / T_true[2, 3])
    if shape is None:
        return _Errors(np.nan, np.nan, angle_deg, depth)
    there, true = transform(T_said, shape.points_m), transform(T_true, shape.points_m)
    add = float(np.linalg.norm(there - true, axis=1).mean() / shape.diameter_m)
    adds = float(cKDTree(there).query(true)[0].mean() / shape.diameter_m)
    return _Errors(add, adds, angle_deg, depth)
