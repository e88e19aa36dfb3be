"""The rendered kitchen scene as input for operators, and its truth per frame."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision import rle
from tests.rows import PER_FRAME, detection_row

SHOTS = ((0, 56), (56, 112), (112, 168))
TRACKS = {"hand_left": 1, "hand_right": 2, "object": 10}
CAMERA = Camera(550.4, 550.4, 319.5, 239.5, 640, 480, "file")


@cache
def true_masks(mp4: Path) -> dict[tuple[int, str], np.ndarray]:
    """(H, W) bool of what is seen of each role in each frame."""
    rows = pq.read_table(mp4.with_suffix(".truth") / "masks.parquet").to_pylist()
    return {(r["frame_index"], r["role"]): rle.decode({"size": [r["height"], r["width"]], "counts": r["rle_counts"]}) for r in rows}


@cache
def true_points(mp4: Path) -> dict[tuple[int, str], np.ndarray]:
    """(21, 2) image points of each hand role in each frame."""
    rows = pq.read_table(mp4.with_suffix(".truth") / "hands.parquet").to_pylist()
    return {(r["frame_index"], f"hand_{r['hand']}"): np.asarray(r["joints_px"]) for r in rows}


def shot_input(mp4: Path, shot: tuple[int, int], tables: dict[str, pa.Table], sidecar: Sidecar) -> ClipInput:
    """One shot as a clip."""
    start, end = shot

    def frames() -> Iterator[Frame]:
        return decode(mp4, start, end)

    clip = Clip(
        PER_FRAME["video_id"], PER_FRAME["clip_id"], mp4, "0" * 64, start, end, start, end, start / 30, end / 30, Fraction(30), 640, 480
    )
    return ClipInput(clip, tables, sidecar, CAMERA, 1, frames)


def hand_rows(mp4: Path, shot: tuple[int, int], noise_px: float, seed: int) -> list[dict[str, Any]]:
    """Detections of both hands at their true points, each point moved by a random distance of `noise_px` on average."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(*shot):
        for role in ("hand_left", "hand_right"):
            points_px = true_points(mp4)[index, role] + rng.normal(0, noise_px / np.sqrt(np.pi / 2), (21, 2))
            low, high = points_px.min(0), points_px.max(0)
            box_px = np.concatenate([low, high - low])
            rows.append(detection_row(index, role=role, track_id=TRACKS[role], points_px=points_px, box_px=box_px, source="tracked"))
    return rows


def object_row(index: int, box_px: np.ndarray, track_id: int = 10, source: str = "sidecar") -> dict[str, Any]:
    """A prompt for an object."""
    return detection_row(index, role="object", track_id=track_id, box_px=box_px, points_px=None, landmarks_m=None, source=source)


def overlaps(mp4: Path, masks: pa.Table, shot: tuple[int, int], role: str) -> np.ndarray:
    """Intersection over union of the role's masks with the truth, in each frame in which the truth or the result shows the role."""
    claimed = {r["frame_index"]: r["rle"] for r in masks.to_pylist() if r["role"] == role}
    values = []
    for index in range(*shot):
        truth = true_masks(mp4)[index, role]
        if truth.any() or index in claimed:
            values.append(rle.iou(claimed[index], rle.encode(truth)) if index in claimed else 0.0)
    return np.array(values)


def detections(rows: list[dict[str, Any]]) -> pa.Table:
    """A detections table of the contract."""
    table = schema.from_rows("detections", rows)
    validation.validate("detections", table)
    return table
