"""The kitchen scene through the real chain, once for all tests that check its results (fixture `kitchen_chain`); and its true object poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.tables import tables_of
from egoworld_ops import operators
from egoworld_ops.files.tables import read_table
from egoworld_ops.raw import register
from egoworld_ops.settings import load_settings
from gpu_workers.inline import InlinePool
from tests.boxes import pose_of
from tests.kitchen import SHOTS


@dataclass(frozen=True, slots=True)
class Kitchen:
    """The results of the profile `laptop` on the scene.

    Args:
        tables: of the whole video, the clips of each stage one after the other.
        shots: tables of each of `SHOTS`, which are its clips.
    """

    mp4: Path
    tables: Mapping[str, pa.Table]
    shots: Sequence[Mapping[str, pa.Table]]


def process(mp4: Path, lake: Path) -> Kitchen:
    """Run the chain, from pixels to robot joints, in this process."""
    settings = load_settings("laptop").model_copy(update={"lake": lake})
    [video_id] = register.register(settings.lake, [mp4]).video_ids
    run = configuration.open_run(settings)
    for _, result in pipeline.process(run, [video_id], settings, InlinePool(threads=2)):
        assert result.state == "computed", result
    clips = read_table(run.video_table("clips", video_id), "clips").to_pylist()
    assert tuple((clip["frame_start"], clip["frame_end"]) for clip in clips) == SHOTS
    shots = [{stage: read_table(run.clip_table(stage, video_id, c["clip_id"]), stage) for stage in operators.stages()} for c in clips]
    return Kitchen(mp4, tables_of(run, video_id), shots)


@cache
def true_objects(mp4: Path) -> dict[int, dict[str, Any]]:
    """The ground truth of the object in each frame; its pose as `T_camera_object`."""
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
