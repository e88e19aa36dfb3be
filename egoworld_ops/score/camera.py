"""Scores of `camera`: absolute trajectory error (ATE) and relative pose error (RPE), after Sturm et al., 2012."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egoworld_ops.operators.rows import pose_of
from egoworld_ops.score.card import Measured, Score, share
from egoworld_ops.score.truth import Truth
from egoworld_ops.vision.geometry import align_similarity, invert, rotation_angle_deg

STAGE = "camera"

RPE_S = 1.0
"""Time between the two poses that a relative pose error compares."""


def measure(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> Measured | None:
    """Scores of the camera's path, clip by clip: each clip has a world of its own."""
    if truth.camera is None or "camera" not in rows:
        return None
    said = [(row, T) for row in rows["camera"] if row["frame_index"] in truth.camera and (T := pose_of(row)) is not None]
    scores = [Score("camera: frames with a pose", share(len(said), len(truth.camera)), "share", len(truth.camera))]
    errors: dict[str, list[np.ndarray]] = {"aligned by a rigid motion": [], "aligned by a similarity": []}
    drift_m: list[float] = []
    drift_deg: list[float] = []
    for clip_id in sorted({row["clip_id"] for row, _ in said}):
        clip = sorted(((row, T) for row, T in said if row["clip_id"] == clip_id), key=lambda pair: pair[0]["frame_index"])
        poses = np.array([T for _, T in clip])
        true = np.array([truth.camera[row["frame_index"]] for row, _ in clip])
        if len(clip) < 3:
            continue
        for found, free in zip(errors.values(), (False, True), strict=True):
            found.append(_offsets_m(poses[:, :3, 3], true[:, :3, 3], free))
        far_m, far_deg = _relative(poses, true, np.array([row["timestamp_s"] for row, _ in clip]))
        drift_m, drift_deg = drift_m + far_m, drift_deg + far_deg
    for name, found in errors.items():
        pooled = np.concatenate(found) if found else np.zeros(0)
        scores.append(Score(f"camera: ATE {name}, RMSE", float(np.sqrt((pooled**2).mean())) if len(pooled) else None, "m", len(pooled)))
    scores += [
        Score(f"camera: RPE over {RPE_S:g} s, translation, RMSE", _rms(drift_m), "m", len(drift_m)),
        Score(f"camera: RPE over {RPE_S:g} s, rotation, RMSE", _rms(drift_deg), "deg", len(drift_deg)),
    ]
    return Measured(tuple(scores))


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


def _rms(values: Sequence[float]) -> float | None:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else None
