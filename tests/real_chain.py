"""The kitchen scene through the real chain, from pixels to movement, once for all tests that look at its end; and its true object poses."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops import operators
from egoworld_ops.contract import validation
from egoworld_ops.video.sidecar import read_sidecar
from tests.boxes import pose_of
from tests.kitchen import SHOTS, shot_input

CHAIN = (
    ("detections", "mediapipe"),
    ("masks", "classical"),
    ("hand_pose", "mediapipe"),
    ("object_pose", "classical"),
    ("movement", "classical"),
)


@cache
def shot_tables(mp4: Path, shot: tuple[int, int]) -> dict[str, pa.Table]:
    """All tables of one shot."""
    tables: dict[str, pa.Table] = {}
    for stage, backend in CHAIN:
        operator = operators.load(stage, backend)
        tables[stage] = operator(operator.Settings(), 2).run(shot_input(mp4, shot, dict(tables), read_sidecar(mp4)))
        validation.validate(stage, tables[stage])
    return tables


def all_shots(mp4: Path) -> list[dict[str, pa.Table]]:
    """Tables of the three shots."""
    return [shot_tables(mp4, shot) for shot in SHOTS]


@cache
def true_objects(mp4: Path) -> dict[int, dict[str, Any]]:
    """What is true of the object in each frame; its pose as `T_camera_object`."""
    rows = pq.read_table(mp4.with_suffix(".truth") / "objects.parquet").to_pylist()
    return {r["frame_index"]: r | {"T_camera_object": pose_of(r)} for r in rows}


def pose_errors(rows: list[dict[str, Any]], truth: dict[int, np.ndarray], symmetries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row with a pose, degrees of rotation and percent of depth off the truth; one element of the symmetry group for all rows."""
    found = [(T, truth[r["frame_index"]]) for r in rows if (T := pose_of(r)) is not None]
    turns = np.array([[np.trace((T[:3, :3] @ S).T @ true[:3, :3]) for T, true in found] for S in symmetries])
    angles = np.degrees(np.arccos(np.clip((turns - 1) / 2, -1, 1)))
    best = angles[np.median(angles, axis=1).argmin()]
    shifts = np.array([100 * np.linalg.norm(T[:3, 3] - true[:3, 3]) / true[2, 3] for T, true in found])
    return best, shifts
