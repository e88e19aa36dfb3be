"""The wrist frame of a hand from its joints, as dex-retargeting's MANO convention has it. Used by every hand_pose backend.

Origin at the wrist (joint 0); z from the wrist to the middle finger's MCP (joint 9); y in the plane of wrist, index MCP (joint 5) and middle MCP,
across z, towards the index finger on a right hand and away from it on a left one; x = y cross z, out of the palm on both. This is the frame that
`estimate_frame_from_hand_points` followed by `OPERATOR2MANO_RIGHT` / `_LEFT` gives in dex-retargeting's `single_hand_detector.py`.
"""

from __future__ import annotations

import numpy as np

from egoworld_ops.types import Hand

_MIN_SINE = 0.05
"""Sine of the angle at the wrist between both knuckles below which their plane is not defined (about 3 degrees; a real hand has 15 to 25)."""


def wrist_rotation(joints_m: np.ndarray, hand: Hand) -> np.ndarray | None:
    """(3, 3) rotation R whose columns are the wrist frame's axes in the frame of `joints_m`; None where the knuckles do not define one.

    Args:
        joints_m: (21, 3) joints in the contract's order.
        hand: left or right.
    """
    R = wrist_rotations(joints_m[None], np.array([hand == "right"]))[0]
    return None if np.isnan(R).any() else R


def wrist_rotations(joints_m: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations as `wrist_rotation` gives for each of (N, 21, 3) hands; NaN where there is none. `is_right` is (N,) bool."""
    index, middle = joints_m[:, 5] - joints_m[:, 0], joints_m[:, 9] - joints_m[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        z = middle / np.linalg.norm(middle, axis=1, keepdims=True)
        across = index - (index * z).sum(1, keepdims=True) * z
        width = np.linalg.norm(across, axis=1, keepdims=True)
        y = np.where(is_right[:, None], across, -across) / width
        defined = width > _MIN_SINE * np.linalg.norm(index, axis=1, keepdims=True)
    return np.where(defined[..., None], np.stack([np.cross(y, z), y, z], axis=-1), np.nan)


def in_wrist_frame(joints_m: np.ndarray, R_frame_wrist: np.ndarray) -> np.ndarray:
    """(21, 3) joints about the wrist, along the axes of `wrist_rotation`'s result."""
    return (joints_m - joints_m[0]) @ R_frame_wrist
