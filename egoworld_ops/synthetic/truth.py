"""The truth of one frame, and the truth of a whole scene as tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.errors import InputError
from egoworld_ops.synthetic.config import SceneConfig
from egoworld_ops.synthetic.hand import N_JOINTS, joint_radii_m, skeleton
from egoworld_ops.synthetic.render import HAND_IDS, OBJECT, Picture, render
from egoworld_ops.synthetic.rigid import Array
from egoworld_ops.synthetic.script import SceneState, state_at
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert, project, transform

_SEEN_WITHIN_M = 0.006


def _joints(width: int, kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.list_(kind, width), N_JOINTS)


_TIME = [("frame_index", pa.int64()), ("timestamp_s", pa.float64())]
_POSE = [(name, pa.float64()) for name in ("qw", "qx", "qy", "qz", "x_m", "y_m", "z_m")]
SCHEMAS = {
    "hands": pa.schema(
        [
            *_TIME,
            ("hand", pa.string()),
            ("joints_px", _joints(2, pa.float32())),
            ("joints_m", _joints(3, pa.float32())),
            ("visible", pa.list_(pa.bool_(), N_JOINTS)),
        ]
    ),
    "objects": pa.schema(
        [*_TIME, ("label", pa.string()), *_POSE, ("held_by", pa.string()), ("moving", pa.bool_()), ("speed_m_s", pa.float64())]
    ),
    "masks": pa.schema(
        [
            *_TIME,
            ("role", pa.string()),
            ("rle_counts", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("area_px", pa.int64()),
        ]
    ),
    "camera": pa.schema(
        [
            *_TIME,
            *((name, pa.float64()) for name in ("fx", "fy", "cx", "cy")),
            ("T_world_camera", pa.list_(pa.float64(), 16)),
        ]
    ),
}


@dataclass(frozen=True, slots=True)
class HandTruth:
    """Joints of one hand: `joints_px` (21, 2), `joints_m` (21, 3) in the camera frame, `visible` (21,)."""

    hand: str
    joints_px: Array
    joints_m: Array
    visible: np.ndarray


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """All that is true in one frame; `masks` maps roles to (H, W) bool, empty roles left out. `hands` are those of the person who sees it."""

    frame_index: int
    timestamp_s: float
    hands: tuple[HandTruth, ...]
    masks: dict[str, np.ndarray]
    T_camera_object: Array
    held_by: str
    moving: bool
    speed_m_s: float
    camera: Camera
    T_world_camera: Array


@dataclass(frozen=True, slots=True)
class SceneTruth:
    """The truth of a scene as read from its folder; columns as in `SCHEMAS`. `cuts` are the first frames of new shots."""

    hands: pa.Table
    objects: pa.Table
    masks: pa.Table
    camera: pa.Table
    cuts: tuple[int, ...]
    scene: dict[str, Any]


def load_truth(truth_dir: Path) -> SceneTruth:
    """Read `<name>.truth`.

    Raises:
        InputError: a file is missing or is not what the generator writes.
    """
    try:
        scene = json.loads((truth_dir / "scene.json").read_text("utf-8"))
        tables = {name: pq.read_table(truth_dir / f"{name}.parquet", schema=schema) for name, schema in SCHEMAS.items()}
        return SceneTruth(**tables, cuts=tuple(scene["cuts"]), scene=scene)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(truth_dir, str(error), "Restore the folder, or install egoworld anew where it is the shipped example") from error


def render_frame(config: SceneConfig, frame_index: int) -> tuple[np.ndarray, FrameTruth]:
    """Render one frame: RGB (H, W, 3) uint8 and its truth. Raises IndexError outside of the video."""
    state = state_at(config, frame_index)
    picture = render(config, state, frame_index)
    T_camera_world = invert(state.T_world_camera)
    own = [number for number, pose in enumerate(state.hands) if pose.hand not in state.strangers]
    hands = (_hand_truth(config, state, number, T_camera_world, picture) for number in own)
    roles = {number: "hand_other" if hand in state.strangers else f"hand_{hand}" for hand, number in HAND_IDS.items()}
    masks = {role: picture.ids == number for number, role in (roles | {OBJECT: "object"}).items()}
    return picture.rgb, FrameTruth(
        frame_index=frame_index,
        timestamp_s=frame_index / config.fps,
        hands=tuple(hand for hand in hands if _in_image(config, hand) or masks[f"hand_{hand.hand}"].any()),
        masks={role: mask for role, mask in masks.items() if mask.any()},
        T_camera_object=T_camera_world @ state.T_world_object,
        held_by=state.held_by,
        moving=state.moving,
        speed_m_s=state.speed_m_s,
        camera=config.camera,
        T_world_camera=state.T_world_camera,
    )


def _hand_truth(config: SceneConfig, state: SceneState, number: int, T_camera_world: Array, picture: Picture) -> HandTruth:
    """A joint is visible where the surface seen at its pixel is this hand's, and no deeper finger hides behind another."""
    pose = state.hands[number]
    joints_m = transform(T_camera_world, skeleton(pose).joints_m)
    joints_px = project(config.camera, joints_m)
    visible = np.zeros(N_JOINTS, bool)
    for joint, (u, v) in enumerate(np.rint(joints_px)):
        if 0 <= u < config.width and 0 <= v < config.height:
            row, column = int(v), int(u)
            own = picture.ids[row, column] == HAND_IDS[pose.hand]
            before_m = joints_m[joint, 2] - picture.depth_m[row, column]
            visible[joint] = own and before_m < joint_radii_m(pose.scale)[joint] + _SEEN_WITHIN_M
    return HandTruth(pose.hand, joints_px, joints_m, visible)


def _in_image(config: SceneConfig, hand: HandTruth) -> bool:
    u, v = hand.joints_px.T
    return bool(((u > -0.5) & (u < config.width - 0.5) & (v > -0.5) & (v < config.height - 0.5)).any())
