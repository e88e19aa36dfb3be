"""Scores of `camera`: absolute trajectory error (ATE) and relative pose error (RPE), after Sturm et al., 2012."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egoworld_ops.operators.rows import POSITION, pose_of
from egoworld_ops.score.card import Measured, Score, share
from egoworld_ops.score.truth import Truth
from egoworld_ops.vision.geometry import align_similarity, invert, rotation_angle_deg

STAGE = "camera"

RPE_S = 1.0
"""Time between the two poses that a relative pose error compares."""
LEAST_POSES = 3
"""Fewer of a clip cannot be aligned."""


def measure(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> Measured | None:
    """Scores of the camera's path, clip by clip: each clip has a world of its own. A path without metres is aligned by a similarity alone."""
    if truth.camera is None or "camera" not in rows:
        return None
    said = [(row, T) for row in rows["camera"] if row["frame_index"] in truth.camera and (T := _in_units(row)) is not None]
    scores = [Score("camera: frames with a pose", share(len(said), len(truth.camera)), "share", len(truth.camera))]
    rigid: list[np.ndarray] = []
    similar: list[np.ndarray] = []
    drift_m: list[float] = []
    drift_deg: list[float] = []
    for clip_id in sorted({row["clip_id"] for row, _ in said}):
        clip = sorted(((row, T) for row, T in said if row["clip_id"] == clip_id), key=lambda pair: pair[0]["frame_index"])
        if len(clip) < LEAST_POSES:
            continue
        true = np.array([truth.camera[row["frame_index"]] for row, _ in clip])
        similar.append(_offsets_m(np.array([T[:3, 3] for _, T in clip]), true[:, :3, 3], True))
        metric = [n for n, (row, _) in enumerate(clip) if row["x_m"] is not None]
        if len(metric) >= LEAST_POSES:
            poses = np.array([pose_of(clip[n][0]) for n in metric])
            rigid.append(_offsets_m(poses[:, :3, 3], true[metric, :3, 3], False))
            far_m, far_deg = _relative(poses, true[metric], np.array([clip[n][0]["timestamp_s"] for n in metric]))
            drift_m, drift_deg = drift_m + far_m, drift_deg + far_deg
    for name, found in (("a rigid motion", rigid), ("a similarity", similar)):
        pooled = np.concatenate(found) if found else np.zeros(0)
        scores.append(Score(f"camera: ATE aligned by {name}, RMSE", _rms(pooled), "m", len(pooled)))
    scores += [
        Score(f"camera: RPE over {RPE_S:g} s, translation, RMSE", _rms(drift_m), "m", len(drift_m)),
        Score(f"camera: RPE over {RPE_S:g} s, rotation, RMSE", _rms(drift_deg), "deg", len(drift_deg)),
    ]
    return Measured(tuple(scores))


def _in_units(row: Mapping[str, Any]) -> np.ndarray | None:
    """The pose (4, 4) in the units of the clip's reconstruction; None where there is none."""
    if row["position_units"] is None:
        return pose_of(row)
    return pose_of({**row, **dict(zip(POSITION, row["position_units"], strict=True))})


def _offsets_m(said: np.ndarray, true: np.ndarray, free_scale: bool) -> np.ndarray:
    """Distances (N,) of aligned positions (N, 3) from the true ones, metres."""
    s, R, t_m = align_similarity(said, true)
    if not free_scale:
        s, t_m = 1.0, true.mean(0) - R @ said.mean(0)
    return np.asarray(np.linalg.norm(s * said @ R.T + t_m - true, axis=1))


def _relative(said: np.ndarray, true: np.ndarray, times_s: np.ndarray) -> tuple[list[float], list[float]]:
    """Errors of the motion from each pose to the one `RPE_S` later: metres and degrees."""
    later = np.searchsorted(times_s, times_s + RPE_S - 1e-6)
    far_m, far_deg = [], []
    for i, j in enumerate(later):
        if j < len(times_s):
            off = invert(invert(true[i]) @ true[j]) @ invert(said[i]) @ said[j]
            far_m.append(float(np.linalg.norm(off[:3, 3])))
            far_deg.append(rotation_angle_deg(off[:3, :3], np.eye(3)))
    return far_m, far_deg


def _rms(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else None
