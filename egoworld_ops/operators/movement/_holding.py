"""Which hand holds an object: one whose fingertips lie on it while both move together, until they part."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.geometry import invert, project, transform
from egoworld_ops.types import Camera

TIPS = (4, 8, 12, 16, 20)
PALM = (0, 5, 9, 13, 17)


@dataclass(frozen=True, slots=True)
class HandSighting:
    """One hand in one frame: joints in the picture (21, 2) and, where solved, in the camera frame (21, 3) metres."""

    joints_px: np.ndarray
    joints_m: np.ndarray | None


def touch(camera: Camera, hand: HandSighting, mask: np.ndarray, depth_m: float | None, reach_m: float, depth_slack_m: float) -> float:
    """From 0 to 1, how surely thumb and another finger touch the object.

    Args:
        camera: the intrinsics.
        hand: one hand.
        mask: (H, W) bool, the object.
        depth_m: the object's distance, where known; else the hand's own is taken.
        reach_m: a tip touches where it is seen this near to the object, metres at the object's distance.
        depth_slack_m: a hand whose tips are farther than that before or behind the object does not touch it.
    """
    tips_px = hand.joints_px[list(TIPS)]
    tips_depth = None if hand.joints_m is None else float(np.median(hand.joints_m[list(TIPS), 2]))
    distance_m = depth_m if depth_m is not None else tips_depth
    if distance_m is None or not np.isfinite(tips_px).all():
        return 0.0
    if depth_m is not None and tips_depth is not None and abs(tips_depth - depth_m) > depth_slack_m:
        return 0.0
    reach_px = max(reach_m * camera.fx_px / distance_m, 2.0)
    gaps = _distances(mask, tips_px, 2 * reach_px) / reach_px
    thumb, other = gaps[0], gaps[1:].min()
    return float(np.clip(2 - max(thumb, other), 0, 1))


def _distances(mask: np.ndarray, points_px: np.ndarray, limit_px: float) -> np.ndarray:
    """Distance (N,) in pixels of points to the mask, 0 inside, at most `limit_px`."""
    margin = int(limit_px) + 2
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    padded = cv2.copyMakeBorder(mask[y : y + h, x : x + w].astype(np.uint8), margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 3)
    column, row = np.round(points_px - (x - margin, y - margin)).astype(int).T
    inside = (row >= 0) & (column >= 0) & (row < distance.shape[0]) & (column < distance.shape[1])
    out = np.full(len(points_px), limit_px)
    out[inside] = np.minimum(distance[row[inside], column[inside]], limit_px)
    return out


def slip_m_s(
    camera: Camera, before: HandSighting, after: HandSighting, T_before: np.ndarray, T_after: np.ndarray, elapsed_s: float
) -> float | None:
    """Speed of the palm relative to the object, across the line of sight: where the palm is seen against where the object would carry it."""
    if before.joints_m is None:
        return None
    carried = project(camera, transform(T_after @ invert(T_before), before.joints_m[list(PALM)]))
    off_px = np.median(after.joints_px[list(PALM)] - carried, axis=0)
    if not np.isfinite(off_px).all():
        return None
    return float(np.linalg.norm(off_px)) * float(T_after[2, 3]) / camera.fx_px / elapsed_s


def held(touches: np.ndarray, slips_m_s: np.ndarray, speeds_m_s: np.ndarray, moving: np.ndarray, max_slip_m_s: float) -> np.ndarray:
    """Confidence (N,) per frame that one hand holds one object; 0 where it does not.

    A hold is seen where the hand touches the object while it moves, and slips little against it. It lasts, forwards and backwards, while the hand
    touches and does not slip, also when both rest.

    Args:
        touches: (N,) from 0 to 1.
        slips_m_s: (N,) speed of the hand relative to the object; NaN where unknown.
        speeds_m_s: (N,) speed of the object relative to the background; NaN where unknown.
        moving: (N,) bool.
        max_slip_m_s: more than this, and more than half of the object's own speed, is no hold.
    """
    limit = np.maximum(max_slip_m_s, 0.5 * np.nan_to_num(speeds_m_s))
    firm = np.where(np.isnan(slips_m_s), 0.5, np.clip(1.5 - slips_m_s / limit, 0, 1))
    confidence = touches * firm
    possible = confidence > 0.25
    sure = possible & moving & ~np.isnan(slips_m_s)
    kept = np.zeros(len(touches), bool)
    start = None
    for i in range(len(touches) + 1):
        if i < len(touches) and possible[i]:
            start = i if start is None else start
        elif start is not None:
            kept[start:i] = sure[start:i].sum() >= 3
            start = None
    return np.where(kept, confidence, 0.0)
