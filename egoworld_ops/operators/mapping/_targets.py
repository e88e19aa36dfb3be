"""Where a robot's fingertips and middle joints should be: the human hand's, in the frame of the robot's base link. No solver belongs here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from egoworld_ops.robots import FINGERS
from egoworld_ops.vision.geometry import invert, transform

if TYPE_CHECKING:
    from egoworld_ops.operators.along_time import Tracks
    from egoworld_ops.operators.mapping._kinematics import HandModel

WRIST, THUMB_MCP, THUMB_IP, THUMB_TIP, INDEX_MCP, INDEX_DIP, INDEX_TIP = 0, 2, 3, 4, 5, 7, 8
SMALL_PINCH_M = 0.02
"""Below this distance of the tips their direction is noise, and fades into that of the joints before them."""


@dataclass(frozen=True)
class Targets:
    """What a robot hand should reach in T frames.

    Attributes:
        tips_m, middles_m: (T, n_fingers, 3) in the base frame, in the order of the model's fingers.
        T_wrist_base: (T, 4, 4) pose of the base link in the human wrist frame; of a hand with fingers after scaling.
    """

    tips_m: np.ndarray
    middles_m: np.ndarray
    T_wrist_base: np.ndarray

    def fastest(self, tracks: Tracks, has_middle: np.ndarray) -> np.ndarray:
        """(T,) speed of the fastest target since the frame before, m/s; NaN in the first frame of a track."""
        points_m = np.concatenate([self.tips_m, self.middles_m[:, has_middle]], axis=1)
        moved_m = np.linalg.norm(np.diff(points_m, axis=0), axis=-1).max(1)
        return np.r_[np.nan, np.where(tracks.joined, moved_m / tracks.step_s, np.nan)]


def of(model: HandModel, joints_m: np.ndarray, scaling: float) -> Targets:
    """The targets for (T, 21, 3) human joints in the wrist frame."""
    scaled_m = scaling * (joints_m - joints_m[:, :1])
    if model.hand.hangs_on == "pinch":
        T_wrist_base = pinch_frames(scaled_m) @ model.T_wrist_base
    else:
        T_wrist_base = np.tile(model.T_wrist_base, (len(joints_m), 1, 1))
    points_m = np.array([transform(invert(T), points) for T, points in zip(T_wrist_base, scaled_m, strict=True)])
    fingers = np.array([FINGERS.index(f) for f in model.fingers])
    return Targets(points_m[:, 4 + 4 * fingers], points_m[:, 2 + 4 * fingers], T_wrist_base)


def pinch_frames(joints_m: np.ndarray) -> np.ndarray:
    """(T, 4, 4) pose of the pinch frame in the frame of the (T, 21, 3) joints.

    Its origin is half-way between the tips of thumb and index; y points from the index to the thumb; z is the direction from their knuckles to
    the origin, at right angles to y: that of approach.
    """
    tips_m = joints_m[:, THUMB_TIP] - joints_m[:, INDEX_TIP]
    distance_m = np.linalg.norm(tips_m, axis=1, keepdims=True)
    sure = np.clip(distance_m / SMALL_PINCH_M, 0, 1)
    y = _unit(sure * tips_m / np.maximum(distance_m, 1e-9) + (1 - sure) * _unit(joints_m[:, THUMB_IP] - joints_m[:, INDEX_DIP]))
    origin_m = (joints_m[:, THUMB_TIP] + joints_m[:, INDEX_TIP]) / 2
    approach = _unit(origin_m - (joints_m[:, THUMB_MCP] + joints_m[:, INDEX_MCP]) / 2)
    z = _unit(approach - (approach * y).sum(1, keepdims=True) * y)
    frames = np.tile(np.eye(4), (len(joints_m), 1, 1))
    frames[:, :3, :3] = np.stack([np.cross(y, z), y, z], -1)
    frames[:, :3, 3] = origin_m
    return frames


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
