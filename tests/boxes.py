"""A textured box in front of a textured wall, drawn exactly from poses: pictures with known truth, made in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import make_transform, matrix_from_quaternion, project, transform
from tests.rows import PER_FRAME

SIZE_M = (0.16, 0.11, 0.06)
CAMERA = Camera(300.0, 300.0, 159.5, 119.5, 320, 240, "file")
FPS = 30
_TEXELS_PER_M = 1500
_FACES = [(axis, sign) for axis in range(3) for sign in (-1, 1)]


@cache
def texture_of(seed: int, width: int, height: int, low: int, high: int, blob: int) -> np.ndarray:
    """Blobs of random colours, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, high, (max(height // blob, 2), max(width // blob, 2), 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def pose(yaw_deg: float, pitch_deg: float, roll_deg: float, position_m: Sequence[float]) -> np.ndarray:
    """T_camera_object, turned about the camera's y, then x, then z."""
    turns = [cv2.Rodrigues(np.radians(a) * np.eye(3)[i])[0] for a, i in ((yaw_deg, 1), (pitch_deg, 0), (roll_deg, 2))]
    return make_transform(turns[0] @ turns[1] @ turns[2], np.asarray(position_m, float))


def draw(T_camera_object: np.ndarray | None, T_camera_wall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H, W, 3) uint8, and the box's mask (H, W) bool. The wall is the plane z = 0 of its frame."""
    wall = texture_of(99, 1200, 1000, 60, 200, 9)
    rgb = _project_plane(wall, np.array([[-1.2, -1.0, 0], [1.2, -1.0, 0], [1.2, 1.0, 0], [-1.2, 1.0, 0]]), T_camera_wall)
    mask = np.zeros((CAMERA.height, CAMERA.width), bool)
    if T_camera_object is None:
        return rgb, mask
    for texture, corners in faces(T_camera_object):
        face = _project_plane(texture, corners, T_camera_object)
        covered = _project_plane(np.full_like(texture, 255), corners, T_camera_object)[..., 0] > 127
        rgb[covered] = face[covered]
        mask |= covered
    return rgb, mask


def faces(T_camera_object: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The faces of the box that the camera sees: texture (h, w, 3) uint8 and corners (4, 3), object frame, m, in the order of the texture's."""
    eye_m = -T_camera_object[:3, :3].T @ T_camera_object[:3, 3]
    for number, (axis, sign) in enumerate(_FACES):
        if sign * eye_m[axis] <= SIZE_M[axis] / 2:
            continue
        u, v = (i for i in range(3) if i != axis)
        corners = np.zeros((4, 3))
        corners[:, axis] = sign * SIZE_M[axis] / 2
        corners[:, u] = np.array([-1, 1, 1, -1]) * SIZE_M[u] / 2
        corners[:, v] = np.array([-1, -1, 1, 1]) * SIZE_M[v] / 2
        yield texture_of(number, int(SIZE_M[u] * _TEXELS_PER_M), int(SIZE_M[v] * _TEXELS_PER_M), 0, 90 + 33 * number, 8), corners


def _project_plane(texture: np.ndarray, corners_m: np.ndarray, T_camera_plane: np.ndarray) -> np.ndarray:
    height, width = texture.shape[:2]
    texels = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    pixels = project(CAMERA, transform(T_camera_plane, corners_m)).astype(np.float32)
    return cv2.warpPerspective(texture, cv2.getPerspectiveTransform(texels, pixels), (CAMERA.width, CAMERA.height), flags=cv2.INTER_AREA)


def clip_of(
    poses: Sequence[np.ndarray | None],
    T_camera_wall: Sequence[np.ndarray],
    objects: Sequence[SidecarObject],
    folder: Path = Path(),
    hand_pose: pa.Table | None = None,
) -> ClipInput:
    """A clip in which the box has these poses; without a mask where it has none."""
    frames, rows = [], []
    for i, (T, wall) in enumerate(zip(poses, T_camera_wall, strict=True)):
        rgb, mask = draw(T, wall)
        frames.append(Frame(i, i / FPS, rgb))
        if mask.any():
            rows.append(mask_row(i, 10, "object", mask))
    masks = schema.from_rows("masks", rows) if rows else schema.empty("masks")
    clip = Clip(
        PER_FRAME["video_id"], PER_FRAME["clip_id"], folder / "box.mp4", "0" * 64, 0, len(poses), 0, len(poses), 0.0, len(poses) / FPS,
        Fraction(FPS), CAMERA.width, CAMERA.height,
    )  # fmt: skip
    tables = {"masks": masks, "hand_pose": hand_pose or schema.empty("hand_pose"), "camera": schema.empty("camera")}
    tables["depth"] = schema.empty("depth")
    return ClipInput(clip, tables, Sidecar(objects=tuple(objects)), CAMERA, 1, lambda: iter(frames))


def mask_row(frame_index: int, track_id: int, role: str, mask: np.ndarray, label: str = "box") -> dict[str, Any]:
    """A row of `masks`."""
    return PER_FRAME | {
        "frame_index": frame_index,
        "timestamp_s": frame_index / FPS,
        "track_id": track_id,
        "role": role,
        "label": label if role == "object" else None,
        "rle": rle.encode(mask),
        "mask_scale": 1.0,
        "bbox_px": rle.mask_bbox(mask),
        "area_px": int(mask.sum()),
        "score": 1.0,
        "observed": True,
    }


def pose_of(row: dict[str, Any]) -> np.ndarray | None:
    """T_camera_object of a row of `object_pose`."""
    if row["qw"] is None:
        return None
    return make_transform(matrix_from_quaternion(np.array([row[f"q{a}"] for a in "wxyz"])), np.array([row[f"{a}_m"] for a in "xyz"]))
