"""Which hand holds an object: one that covers or borders it in the picture while both move together, until they part; and one whose fingers
are around it while nothing moves.

Where hand and object move, joints are not used: a hand closed around an object hides its own fingers, and its joints are then least certain.
"""

from __future__ import annotations

import cv2
import numpy as np

from egoworld_ops.operators.movement._flow import AGREE_SHARE
from egoworld_ops.types import Camera, Hand
from egoworld_ops.vision.geometry import invert, project, transform

MIN_POINTS = 4
DEPTH_SHARES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05)
FULL_TOUCH = 0.15
"""A hand that covers or borders this share of an object's outline surely touches it."""
MAX_SLIP_SHARE = 0.5
"""A hand that slips against an object by more than this share of the object's own speed does not carry it."""
MUCH_LESS = 0.4
MIN_CONFIDENCE = 0.2
MIN_FRAMES = 3
_ROUNDING_S = 1e-6


def touch(hand_mask: np.ndarray, outline: np.ndarray, reach_px: float) -> float:
    """Confidence, from 0 to 1, that a hand touches an object: from the share of the object's outline that the hand covers or borders.

    Args:
        hand_mask: (h, w) bool.
        outline: (h, w) bool, the object including its known part behind the hand.
        reach_px: maximum distance to the outline at which a hand borders it.
    """
    area = float(np.count_nonzero(outline))
    if not area or not hand_mask.any():
        return 0.0
    x, y, w, h = cv2.boundingRect(outline.astype(np.uint8))
    margin = int(np.ceil(reach_px))
    part = np.s_[max(y - margin, 0) : y + h + margin, max(x - margin, 0) : x + w + margin]
    near = cv2.distanceTransform((~outline[part]).astype(np.uint8), cv2.DIST_L2, 5) <= reach_px
    return float(np.clip(np.count_nonzero(near & hand_mask[part]) / area / FULL_TOUCH, 0, 1))


def slip_m_s(
    camera: Camera, was_px: np.ndarray, now_px: np.ndarray, T_before: np.ndarray, T_after: np.ndarray, elapsed_s: float
) -> float | None:
    """Speed of a hand relative to an object, across the line of sight: from where the hand's points are, and where the object would carry them.

    A hand that holds an object is about as far away as the object's middle: of the DEPTH_SHARES of that distance, the one that explains the
    hand's points (N, 2) best is used. None if there are too few points.
    """
    if len(was_px) < MIN_POINTS:
        return None
    x = (was_px[:, 0] - camera.cx_px) / camera.fx_px
    y = (was_px[:, 1] - camera.cy_px) / camera.fy_px
    sight = np.column_stack([x, y, np.ones(len(x))])
    T_after_before = T_after @ invert(T_before)
    carried = [project(camera, transform(T_after_before, sight * share * float(T_before[2, 3]))) for share in DEPTH_SHARES]
    off_px = min(float(np.median(np.linalg.norm(now_px - c, axis=1))) for c in carried)
    return off_px * float(T_after[2, 3]) / camera.fx_px / elapsed_s if np.isfinite(off_px) else None


def slip_in_picture_px(
    object_was: np.ndarray, object_now: np.ndarray, was: np.ndarray, now: np.ndarray, diagonal_px: float
) -> float | None:
    """How far a hand's points (N, 2) and an object's (M, 2) went from where the motion of the other would have carried them, pixels.

    Either moves in the picture by a shift, a turn and a change of size, found from its own points. The less of the two medians counts: the motion
    of a thing of which little is seen is uncertain where the hand is, and that of a hand that bends where the thing is. None if there are too few
    points of either.
    """
    if min(len(was), len(object_was)) < MIN_POINTS:
        return None
    of_hand = _off_px(object_was, object_now, was, now, diagonal_px)
    of_object = _off_px(was, now, object_was, object_now, diagonal_px)
    least = float(np.fmin(of_hand, of_object))
    return least if np.isfinite(least) else None


def _off_px(was: np.ndarray, now: np.ndarray, others_was: np.ndarray, others_now: np.ndarray, diagonal_px: float) -> float:
    """Median distance of other points (M, 2) from where the motion of points (N, 2) carries them; NaN where that is not found."""
    cv2.setRNGSeed(0)
    A, _ = cv2.estimateAffinePartial2D(was, now, method=cv2.RANSAC, ransacReprojThreshold=AGREE_SHARE * diagonal_px)
    return np.nan if A is None else float(np.median(np.linalg.norm(others_now - (others_was @ A[:, :2].T + A[:, 2]), axis=1)))


def held(
    touches: dict[Hand, np.ndarray],
    slips_m_s: dict[Hand, np.ndarray],
    speeds_m_s: np.ndarray,
    moving: np.ndarray,
    times_s: np.ndarray,
    window_s: float,
    max_slip_m_s: float,
) -> dict[Hand, np.ndarray]:
    """Confidence (N,) per frame and hand that it holds the object; 0 where it does not.

    A hold is found where a hand touches the object while it moves, and slips little against it, on average over a window: a hand that only passes
    by slips as fast as the object moves. If one hand slips much less than the other, it alone holds. A hold extends, forwards and backwards, while
    the hand touches and does not slip, also when both rest.

    Args:
        touches: (N,) from 0 to 1.
        slips_m_s: (N,) speed of the hand relative to the object; NaN where unknown.
        speeds_m_s: (N,) speed of the object relative to the background; NaN where unknown.
        moving: (N,) bool.
        times_s: (N,) of the frames, increasing.
        window_s: time to average over, centred on the frame.
        max_slip_m_s: a hand that slips faster against an object at rest has let go of it.
    """
    speed = _smooth(np.where(moving, speeds_m_s, np.nan), times_s, window_s)
    slip = {hand: _smooth(np.where(moving, values, np.nan), times_s, window_s) for hand, values in slips_m_s.items()}
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


def _smooth(values: np.ndarray, times_s: np.ndarray, window_s: float) -> np.ndarray:
    """Mean (N,) of the known values in a centred window of time; NaN where none is known."""
    known = ~np.isnan(values)
    first = np.searchsorted(times_s, times_s - window_s / 2 - _ROUNDING_S, side="left")
    end = np.searchsorted(times_s, times_s + window_s / 2 + _ROUNDING_S, side="right")
    total, count = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, values, 0.0), known))
    n_known = count[end] - count[first]
    return np.where(n_known > 0, (total[end] - total[first]) / np.maximum(n_known, 1), np.nan)


def _lasting(confidence: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Only the unbroken stretches of confidence above MIN_CONFIDENCE in which the object moves at some time."""
    possible = np.concatenate([[False], confidence > MIN_CONFIDENCE, [False]])
    change = np.flatnonzero(np.diff(possible.astype(int)))
    kept = np.zeros(len(confidence), bool)
    for start, end in zip(change[::2], change[1::2], strict=True):
        kept[start:end] = moving[start:end].sum() >= MIN_FRAMES
    return np.where(kept, confidence, 0.0)
