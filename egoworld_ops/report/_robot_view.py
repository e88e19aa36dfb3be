"""The links of a robot hand, drawn in a small picture of their own: orthographic, as the camera sees them."""

from __future__ import annotations

import numpy as np

from egoworld_ops.report._overlay import Color, lines, text
from egoworld_ops.report.layer_values import Robot

MARGIN_PX = 6
TITLE_PX = 16
SPREAD = 0.75
"""Largest extent of a spread hand without its wrist, over the hand's length."""


def draw(inset: np.ndarray, robot: Robot, color: Color, pen_px: int = 1) -> None:
    """Draw a robot hand into `inset` (H, W, 3) uint8, or say why there is none."""
    height, width = inset.shape[:2]
    if not robot.flat:
        text(inset, (robot.reason or "not mapped")[: width // (7 * pen_px)], (4, height // 2), color, pen_px)
        return
    title_px = TITLE_PX * pen_px
    size_px = (min(height - title_px, width) - 2 * MARGIN_PX * pen_px) / SPREAD
    links_px = np.array(robot.flat) * size_px + [width / 2, title_px + (height - title_px) / 2]
    lines(inset, links_px.tolist(), 1.0, color, 2 * pen_px)
    lines(inset, np.repeat(links_px[:, 1:], 2, axis=1).tolist(), 1.0, (255, 255, 255), 2 * pen_px)
