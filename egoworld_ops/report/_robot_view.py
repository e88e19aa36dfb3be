"""A robot hand drawn from its joint angles: forward kinematics, in the camera's orientation, orthographic."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from egoworld_ops.errors import EgoworldError
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.report._overlay import Color, lines, text
from egoworld_ops.robots import find_robot
from egoworld_ops.vision.geometry import matrix_from_quaternion

R_VIEW_BASE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
"""Palm towards the viewer, fingers up: used where the wrist's orientation is not known."""
MARGIN_PX = 6
TITLE_PX = 16
SPREAD = 0.75
"""Largest extent of a spread hand without its wrist, over the hand's length."""


def draw(inset: np.ndarray, row: Mapping[str, Any], color: Color) -> None:
    """Draw the hand of one row of `mapping` into `inset` (H, W, 3) uint8, or say why there is none."""
    height, width = inset.shape[:2]
    if row["qpos_rad"] is None:
        text(inset, "not mapped", (4, height // 2), color)
        return
    model = _model(row["robot"], row["hand"])
    if model is None:
        text(inset, f"no model: {row['robot'][:8]}", (4, height // 2), color)
        return
    qpos = dict(zip(row["joint_names"], row["qpos_rad"], strict=True))
    segments_m = model.segments_m(np.array([qpos[name] for name in model.joint_names]))
    flat_m = (segments_m @ _view(row).T)[..., :2]
    centre_m = (flat_m.min((0, 1)) + flat_m.max((0, 1))) / 2
    px_per_m = (min(height - TITLE_PX, width) - 2 * MARGIN_PX) / (SPREAD * model.hand.hand_length_m)
    segments_px = (flat_m - centre_m) * px_per_m + [width / 2, TITLE_PX + (height - TITLE_PX) / 2]
    lines(inset, segments_px, color, 2)
    lines(inset, np.repeat(segments_px[:, 1:], 2, axis=1), (255, 255, 255), 2)


def _view(row: Mapping[str, Any]) -> np.ndarray:
    """(3, 3) rotation from the base frame to the view: the camera's, x right and y down."""
    q = [row[f"q{a}"] for a in "wxyz"]
    return R_VIEW_BASE if None in q else matrix_from_quaternion(np.array(q))


@cache
def _model(robot: str, hand: str) -> HandModel | None:
    """The kinematics of a robot known by name; None where it is described in the settings only."""
    try:
        described = getattr(find_robot(robot, {}), hand)
        return HandModel(described) if described else None
    except EgoworldError:
        return None
