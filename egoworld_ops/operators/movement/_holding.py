"""Which hand holds an object: one whose fingertips lie on it while both move together, until they part."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.geometry import invert, project, transform
from egoworld_ops.types import Camera, Hand

TIPS = (4, 8, 12, 16, 20)
PALM = (0, 5, 9, 13, 17)
MAX_SLIP_SHARE = 0.5
"""A hand that slips against an object by more than this share of the object's own speed does not carry it."""
MUCH_LESS = 0.4
MIN_CONFIDENCE = 0.2
MIN_FRAMES = 3


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
        mask: (H, W) bool, the object, with what is known of it behind the hand.
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


def held(
    touches: dict[Hand, np.ndarray],
    slips_m_s: dict[Hand, np.ndarray],
    speeds_m_s: np.ndarray,
    moving: np.ndarray,
    window: int,
    max_slip_m_s: float,
) -> dict[Hand, np.ndarray]:
    """Confidence (N,) per frame and hand that it holds the object; 0 where it does not.

    A hold shows where a hand touches the object while it moves, and slips little against it, on average over a window: a hand that only passes by
    slips as fast as the object moves. Where one hand slips much less than the other, it alone holds. A hold lasts, forwards and backwards, while
    the hand touches and does not slip, also when both rest.

    Args:
        touches: (N,) from 0 to 1.
        slips_m_s: (N,) speed of the hand relative to the object; NaN where unknown.
        speeds_m_s: (N,) speed of the object relative to the background; NaN where unknown.
        moving: (N,) bool.
        window: frames to average over.
        max_slip_m_s: a hand that slips faster against an object at rest has let go of it.
    """
    speed = _smooth(np.where(moving, speeds_m_s, np.nan), window)
    slip = {hand: _smooth(np.where(moving, values, np.nan), window) for hand, values in slips_m_s.items()}
    out = {}
    for hand in touches:
        rivals = [np.where(touches[other] > 0, slip[other], np.inf) for other in touches if other != hand]
        rival = np.min(rivals, axis=0) if rivals else np.full(len(moving), np.inf)
        with np.errstate(invalid="ignore", divide="ignore"):
            firm = np.clip(1.5 - slip[hand] / (MAX_SLIP_SHARE * speed), 0, 1)
            firm = np.where(rival < MUCH_LESS * slip[hand], 0, firm)
            resting = np.clip(1.5 - slips_m_s[hand] / max_slip_m_s, 0, 1)
        confidence = np.nan_to_num(touches[hand] * np.where(moving, firm, resting))
        out[hand] = _lasting(confidence, moving)
    return out


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centred window, of what is known in it; NaN where nothing is."""
    kernel = np.ones(2 * (window // 2) + 1)
    known = ~np.isnan(values)
    total = np.convolve(np.where(known, values, 0), kernel, "same") if len(values) >= len(kernel) else np.full(len(values), np.nansum(values))
    count = np.convolve(known, kernel, "same") if len(values) >= len(kernel) else np.full(len(values), known.sum())
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _lasting(confidence: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Only the unbroken stretches of some confidence in which the object is seen to move along."""
    possible = np.concatenate([[False], confidence > MIN_CONFIDENCE, [False]])
    change = np.flatnonzero(np.diff(possible.astype(int)))
    kept = np.zeros(len(confidence), bool)
    for start, end in zip(change[::2], change[1::2], strict=True):
        kept[start:end] = moving[start:end].sum() >= MIN_FRAMES
    return np.where(kept, confidence, 0.0)
