"""Trajectories of the camera that stand in a file beside the video: reading four formats, and the pose at a time between two of theirs.

Positions are in the file's own unit: metres, but where the sidecar says otherwise, and in reconstructions by COLMAP, whose unit is any length.

- `tum`: lines `timestamp tx ty tz qx qy qz qw`, the pose of the camera in the world, as the TUM RGB-D benchmark has it.
- `colmap`: `images.txt`, the world in the camera; the last number in each image's name is the frame of the video.
- `aria`: `closed_loop_trajectory.csv` of Project Aria's machine perception services: the pose of the device in the world, in microseconds.
- `arkit`: JSON `{"frames": [{"timestamp": s, "transform": 4 x 4 rows}]}`, ARKit's camera: x right, y up, z backward; turned to OpenCV's here.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from egoworld_ops.errors import BadSidecar
from egoworld_ops.video.sidecar_trajectory import SidecarTrajectory
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, rotations

_ROTATED_BY = 1e-3
"""How far a rotation matrix in a file may be from one; more is a mistake, not rounding."""
_GL = np.diag([1.0, -1.0, -1.0, 1.0])
_ARIA = ("tracking_timestamp_us", *(f"{a}_world_device" for a in ("tx", "ty", "tz", "qw", "qx", "qy", "qz")))
_CURE = "Give the file in the format that the sidecar names; docs/data_contract.md, section Sidecar, has them"


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Poses of the camera: `T_world_camera` (N, 4, 4), in the file's unit; `at` (N,), ascending, seconds or, where `by_frame`, frames of it."""

    at: np.ndarray
    T_world_camera: np.ndarray
    by_frame: bool

    def pose(self, frame_index: int, timestamp_s: float, longest_gap_s: float) -> tuple[np.ndarray, bool] | None:
        """`T_world_camera` (4, 4) at a frame, and whether it stands in the file; None outside of the file's times, or in a longer gap.

        Between two poses the position is linear and the rotation about one axis (SLERP). By frame there is no interpolation.
        """
        now = float(frame_index) if self.by_frame else timestamp_s
        after = int(np.searchsorted(self.at, now - _SAME_S))
        if after < len(self.at) and abs(self.at[after] - now) <= _SAME_S:
            return self.T_world_camera[after], True
        if self.by_frame or not 0 < after < len(self.at) or self.at[after] - self.at[after - 1] > longest_gap_s:
            return None
        share = (now - self.at[after - 1]) / (self.at[after] - self.at[after - 1])
        return _between(self.T_world_camera[after - 1], self.T_world_camera[after], float(share)), False


_SAME_S = 1e-4
MAX_SPEED_M_S = 100.0
"""Faster than a camera on a head in a car or a train. It tells millimetres where one step in twenty is faster than 0.1 m/s: those of a head that
hardly moves pass."""


def read_trajectory(folder: Path, given: SidecarTrajectory) -> Trajectory:
    """The trajectory that a sidecar names, in `folder`, its times moved to those of the video.

    Raises:
        BadSidecar: the file is not there, is not of its format, or holds what is no pose.
        StorageUnavailable: it cannot be read now.
    """
    path = folder / given.file
    try:
        text = given.content(folder).decode("utf-8-sig")
        made = list(_READERS[given.format](text))
    except BadSidecar:
        raise
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, csv.Error) as error:
        raise BadSidecar(path, f"is no trajectory of format {given.format}: {error}", _CURE) from error
    if not made:
        raise BadSidecar(path, f"holds no pose of format {given.format}", _CURE)
    at, T = np.array([time for time, _ in made]), np.stack([pose for _, pose in made])
    if not np.isfinite(at).all() or not np.isfinite(T).all():
        raise BadSidecar(path, "holds values that are not finite", _CURE)
    if (np.diff(at) <= 0).any():
        where = int(np.flatnonzero(np.diff(at) <= 0)[0])
        raise BadSidecar(
            path, f"its times do not ascend: {at[where]:.6f} is followed by {at[where + 1]:.6f}", "Sort its poses by time, each once"
        )
    by_frame, unit_m = given.format == "colmap", given.unit_m
    if unit_m is not None and not by_frame and (fast := unit_m * _speed(at, T)) > MAX_SPEED_M_S:
        raise BadSidecar(
            path, f"moves at {fast:.4g} m/s, as no camera does", "Give positions in metres, or `metres_per_unit`, and times in seconds"
        )
    if given.T_device_camera is not None:
        T = T @ _on_device(given.T_device_camera, unit_m, path)
    return Trajectory(at if by_frame else at - given.starts_at_s, T, by_frame)


def _speed(at_s: np.ndarray, T: np.ndarray) -> float:
    """The speed of a path that one step in twenty exceeds, units a second: where it is found anew it may jump."""
    steps = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
    return float(np.percentile(steps / np.diff(at_s), 95)) if len(steps) else 0.0


def _on_device(values: Sequence[float], unit_m: float | None, path: Path) -> np.ndarray:
    """`T_device_camera` (4, 4) in the file's unit, from metres.

    Raises:
        BadSidecar: that unit is not known, and the camera is not where the device is.
    """
    T = np.array(values).reshape(4, 4)
    if unit_m is None and T[:3, 3].any():
        cure = "Give the trajectory's `metres_per_unit`, or a T_device_camera that only turns"
        raise BadSidecar(path, "is of unknown scale, and its T_device_camera is in metres", cure)
    return make_transform(T[:3, :3], T[:3, 3] / (unit_m or 1.0))


def _between(T_a: np.ndarray, T_b: np.ndarray, share: float) -> np.ndarray:
    turn = T_a[:3, :3].T @ T_b[:3, :3]
    angle = math.acos(float(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    size = np.linalg.norm(axis)
    vector = axis / size * angle * share if size > 1e-12 else np.zeros(3)
    return make_transform(T_a[:3, :3] @ rotations(vector[None])[0], (1 - share) * T_a[:3, 3] + share * T_b[:3, 3])


def _pose(position_m: list[float], q_wxyz: list[float]) -> np.ndarray:
    norm = math.sqrt(sum(part * part for part in q_wxyz))
    if not 0.99 < norm < 1.01:
        raise ValueError(f"a quaternion has norm {norm:.3g}, want 1")
    return make_transform(matrix_from_quaternion(np.array(q_wxyz)), np.array(position_m))


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.split()


def _tum(text: str) -> Iterator[tuple[float, np.ndarray]]:
    for number, parts in _lines(text):
        if len(parts) != 8:
            raise ValueError(f"line {number} has {len(parts)} numbers, want 8: timestamp tx ty tz qx qy qz qw")
        time, *rest = (float(part) for part in parts)
        yield time, _pose(rest[:3], [rest[6], *rest[3:6]])


def _colmap(text: str) -> Iterator[tuple[float, np.ndarray]]:
    """Two lines an image; the second, its points, may be empty, so that lines are counted, not skipped."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    poses = {}
    for line in lines[::2]:
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 10:
            raise ValueError(f"{line[:60]!r} is no image: want IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
        numbers = re.findall(r"\d+", Path(parts[9]).stem)
        if not numbers:
            raise ValueError(f"the image's name {parts[9]!r} holds no number of a frame")
        if int(numbers[-1]) in poses:
            raise ValueError(f"two images are of frame {int(numbers[-1])}")
        poses[int(numbers[-1])] = invert(_pose([float(part) for part in parts[5:8]], [float(part) for part in parts[1:5]]))
    yield from ((float(frame), poses[frame]) for frame in sorted(poses))


def _aria(text: str) -> Iterator[tuple[float, np.ndarray]]:
    for row in csv.DictReader(io.StringIO(text)):
        time, *position, qw, qx, qy, qz = (float(row[name]) for name in _ARIA)
        yield time / 1e6, _pose(position, [qw, qx, qy, qz])


def _arkit(text: str) -> Iterator[tuple[float, np.ndarray]]:
    for number, frame in enumerate(json.loads(text)["frames"]):
        T = np.array(frame["transform"], np.float64)
        if T.shape != (4, 4) or np.abs(T[3] - [0, 0, 0, 1]).max() > 1e-6:
            raise ValueError(f"frame {number}: transform is no 4 x 4 pose in rows (is it in columns?)")
        if np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() > _ROTATED_BY or np.linalg.det(T[:3, :3]) < 0:
            raise ValueError(f"frame {number}: transform is no rotation and translation")
        yield float(frame["timestamp"]), T @ _GL


_READERS = {"tum": _tum, "colmap": _colmap, "aria": _aria, "arkit": _arkit}
