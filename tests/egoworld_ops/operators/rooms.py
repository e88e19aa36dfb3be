"""Clip inputs of the synthetic room, with the path that is true."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.camera import colmap
from egoworld_ops.synthetic.room import Patch, looking, render_room, room
from egoworld_ops.types import Camera, Frame
from egoworld_ops.vision.geometry import align_similarity, matrix_from_quaternion
from tests.egoworld_ops.operators.clips import clip_input

CAMERA = Camera(220.0, 220.0, 159.5, 119.5, 320, 240, "file")
Path_ = Callable[[float], np.ndarray]


def walk(share: float) -> np.ndarray:
    """Half a metre past the table, looking at it."""
    return looking(
        (-0.25 + 0.5 * share, -0.5 + 0.1 * np.sin(3 * share), 0.45 + 0.06 * np.sin(5 * share)), (0.1 * np.sin(2 * share), 0.15, 0.02)
    )


def turn(share: float) -> np.ndarray:
    """Looking around from one place."""
    return looking((0, -0.5, 0.45), (-0.2 + 0.4 * share, 0.15, 0.02 + 0.1 * np.sin(4 * share)))


def still(share: float) -> np.ndarray:
    """Not moving at all."""
    return looking((0, -0.5, 0.45), (0, 0.15, 0.02))


def filmed(path: Path_, count: int, patches: Sequence[Patch] = room(), seed: int = 3) -> tuple[ClipInput, list[np.ndarray]]:
    """So many frames along a path, and `T_world_camera` (4, 4) of each."""
    poses = [path(i / (count - 1)) for i in range(count)]
    frames = [Frame(i, i / 30, render_room(CAMERA, T, patches, seed, i)[0]) for i, T in enumerate(poses)]
    return taken(frames), poses


def taken(frames: Sequence[Frame]) -> ClipInput:
    """A clip of these frames in which no hand and no object was found."""
    item = clip_input(Path("room.mp4"), 0, len(frames), CAMERA.width, CAMERA.height, lambda: iter(frames))
    return replace(item, camera=CAMERA, tables={name: schema.empty(name) for name in ("masks", "hand_pose", "object_pose")})


def solved(item: ClipInput) -> pa.Table:
    """Table `camera` of the backend `colmap`."""
    rows = colmap.Backend(colmap.ColmapSettings(), 1).run(item)
    validation.validate("camera", rows)
    return rows


@cache
def walked() -> tuple[ClipInput, list[np.ndarray], pa.Table]:
    """The walk, filmed and solved once for all tests."""
    item, poses = filmed(walk, 36)
    return item, poses, solved(item)


def errors_m(rows: pa.Table, poses: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Distance (N,) of each posed frame from its true place after alignment (ATE), and the metres in a unit by that alignment."""
    posed = [row for row in rows.to_pylist() if row["qw"] is not None]
    units, true = np.array([row["position_units"] for row in posed]), np.array([poses[row["frame_index"]][:3, 3] for row in posed])
    s, R, t = align_similarity(units, true)
    return np.linalg.norm(s * units @ R.T + t - true, axis=1), s


def turns_deg(rows: pa.Table, poses: Sequence[np.ndarray]) -> np.ndarray:
    """Error of the rotation of each posed frame relative to the first, (N,) degrees."""
    posed = [row for row in rows.to_pylist() if row["qw"] is not None]
    R = matrix_from_quaternion(np.array([[row[f"q{a}"] for a in "wxyz"] for row in posed]))
    true = np.array([poses[row["frame_index"]][:3, :3] for row in posed])
    relative, wanted = R[0].T @ R, true[0].T @ true
    traces = np.trace(np.swapaxes(relative, 1, 2) @ wanted, axis1=1, axis2=2)
    return np.asarray(np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1))))
