"""How a hand at rest at an object is shaped and placed: what a picture tells of a hold in which nothing moves."""

from __future__ import annotations

import cv2
import numpy as np

TIPS = (4, 8, 12, 16, 20)
_OUTER = (3, 4, 7, 8, 11, 12, 15, 16, 19, 20)
"""The last two joints of each finger, which go around what is held."""
_SHARES = np.linspace(0.0, 1.0, 17)
CUES = ("across", "behind", "above")
LEAST_LEFT = 0.3
"""Of an edge, however much of it the other hand borders."""


def cues(
    joints_px: np.ndarray,
    joints_m: np.ndarray | None,
    outline: np.ndarray,
    visible: np.ndarray,
    hand_mask: np.ndarray,
    depth_m: float | None,
) -> np.ndarray:
    """The CUES (3,) of one hand at one object, none of which depends on the resolution; NaN where one is not known.

    `across`: the most of the way from thumb tip to a fingertip that lies on the object. `behind`: share of the outer finger joints that the
    object hides. `above`: by how much of its distance the object is farther away than the fingertips. How bent the fingers are is no cue: in the
    rendered scenes it differs by 2 % between a grasp and a hand that hovers, ready to grasp.

    Args:
        joints_px: (21, 2).
        joints_m: (21, 3) in the camera frame, or None.
        outline: (H, W) bool, the object including its known part behind the hand.
        visible: (H, W) bool, what is seen of the object.
        hand_mask: (H, W) bool.
        depth_m: distance of the object's middle, or None.
    """
    ways = [joints_px[TIPS[0]] + _SHARES[:, None] * (joints_px[tip] - joints_px[TIPS[0]]) for tip in TIPS[1:]]
    across = max(float(np.mean(_at(outline, way))) for way in ways)
    outer = joints_px[list(_OUTER)]
    behind = float(np.mean(_at(visible, outer) & ~_at(hand_mask, outer)))
    if joints_m is None or depth_m is None:
        return np.array([across, behind, np.nan])
    return np.array([across, behind, float(np.clip(1 - joints_m[list(TIPS), 2].mean() / depth_m, -0.4, 0.4))])


def bordered(hand_mask: np.ndarray, visible: np.ndarray, reach_px: float) -> float:
    """Share of the edge of what is seen of an object, (h, w) bool and not empty, within reach of a hand (h, w) bool.

    Fingers that hold an object lie before it and behind it; a hand that hovers covers one part of it.
    """
    x, y, w, h = cv2.boundingRect(visible.astype(np.uint8))
    margin = int(np.ceil(reach_px)) + 1
    window = slice(max(y - margin, 0), y + h + margin), slice(max(x - margin, 0), x + w + margin)
    seen = visible[window]
    edge = seen & ~(cv2.erode(seen.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    away_px = cv2.distanceTransform((~hand_mask[window]).astype(np.uint8), cv2.DIST_L2, 5)
    return float(np.mean(away_px[edge] <= reach_px))


def left_to(bordered: np.ndarray, by_other: np.ndarray) -> np.ndarray:
    """(N,) the share that a hand borders of the edge that the other hand leaves to it, from those that each borders of all; NaN is none."""
    left = np.maximum(1 - np.nan_to_num(by_other), LEAST_LEFT)
    share: np.ndarray = np.minimum(bordered / left, 1.0)
    return share


def _at(mask: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """(N,) bool: whether points (N, 2) lie on a mask; false outside of the picture."""
    column, row = np.round(np.nan_to_num(np.clip(points_px, -1e6, 1e6), nan=-1.0)).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
    on = np.zeros(len(points_px), bool)
    on[inside] = mask[row[inside], column[inside]]
    return on
