"""Columns that rows of several stages share, and rows grouped by frame."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.operators.base import ClipInput
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, matrix_from_quaternion, quaternion_from_matrix

QUATERNION = ("qw", "qx", "qy", "qz")
POSITION = ("x_m", "y_m", "z_m")
PASSED_ON = ("video_id", "clip_id", "frame_index", "timestamp_s", "sample_stride")
"""The columns that say which clip and frame a row belongs to."""


def common(item: ClipInput, frame_index: int, timestamp_s: float, backend: str) -> dict[str, Any]:
    """Columns of every row: which clip, which frame, and which backend made it."""
    return {
        "video_id": item.clip.video_id,
        "clip_id": item.clip.clip_id,
        "frame_index": frame_index,
        "timestamp_s": timestamp_s,
        "sample_stride": item.sample_stride,
        "backend": backend,
    }


def passed_on(row: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """The same columns, taken from a row of another stage about the same frame."""
    return {name: row[name] for name in PASSED_ON} | {"backend": backend}


def intrinsics(camera: Camera) -> dict[str, Any]:
    """The intrinsics, lens included, that a pose was solved with."""
    return {
        "fx_px": camera.fx_px,
        "fy_px": camera.fy_px,
        "cx_px": camera.cx_px,
        "cy_px": camera.cy_px,
        "lens_model": camera.model,
        "distortion": list(camera.distortion),
        "intrinsics_source": camera.source,
        "focal_error_share": camera.focal_error_share,
        "metric": camera.metric,
    }


def depth_error_share(camera: Camera, size_error_share: float, image_error_share: float) -> float:
    """Standard error of a depth as a share of it: depth = focal length * size / size in the image, and the three errors are independent."""
    return math.sqrt(camera.focal_error_share**2 + size_error_share**2 + image_error_share**2)


def camera_of(row: Mapping[str, Any]) -> Camera:
    """The camera that a row's columns hold. They do not say the picture's size, which plays no part in projection: it is 1 by 1."""
    focal_and_centre = (row["fx_px"], row["fy_px"], row["cx_px"], row["cy_px"])
    return Camera(*focal_and_centre, 1, 1, row["intrinsics_source"], row["lens_model"], tuple(row["distortion"]))


def pose_columns(R: np.ndarray, position_m: np.ndarray) -> dict[str, float]:
    """The columns of a pose: rotation (3, 3) and position (3,) in the camera frame."""
    values = (*quaternion_from_matrix(R).tolist(), *np.asarray(position_m, np.float64).tolist())
    return dict(zip((*QUATERNION, *POSITION), values, strict=True))


def pose_of(row: Mapping[str, Any]) -> np.ndarray | None:
    """The pose (4, 4) that a row's columns hold; None where one of them is null or not finite."""
    values = [row[name] for name in (*QUATERNION, *POSITION)]
    if None in values or not np.isfinite(values).all():
        return None
    return make_transform(matrix_from_quaternion(np.array(values[:4])), np.array(values[4:]))


def standing_pose_of(row: Mapping[str, Any]) -> np.ndarray | None:
    """The pose (4, 4) of a row of `object_pose` if it stands, that is if it is verified. Others are there to be looked at, not to build on."""
    return pose_of(row) if row["converged"] else None


def by_frame(table: pa.Table, columns: Sequence[str]) -> dict[int, list[dict[str, Any]]]:
    """The rows of a table by `frame_index`, which is one of the columns; frames without rows are left out."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for batch in table.select(list(columns)).to_batches():
        for row in batch.to_pylist():
            found[row["frame_index"]].append(row)
    return dict(found)
