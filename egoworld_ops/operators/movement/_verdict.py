"""From touch, slip, motion and grip of each hand to who holds an object in each frame, how probably that is right, or why it is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.movement._grip import CUES
from egoworld_ops.operators.movement._holding import held
from egoworld_ops.types import HANDS, Hand

MIN_TOUCH = 0.2
MIN_STILL_S = 0.4
"""A hand at an object at rest is judged by its grip from this time on; a shorter touch is none."""
MAX_BRIDGED_S = 0.3
"""A hand that stays at an object, or is not seen, for this time between two parts of a hold holds on: it does not let go and grasp again so soon."""
MAX_LOST_S = 1.0
"""A hand that is not seen may still, or already, be where it was or will be seen at an object within this time."""
_SLIPS, _PASSES = 1.5, 5.0
"""A hand moves against an object at rest from so many times `max_slip_m_s` on; and passes by it, however that moves."""
MOST_UNKNOWN = 0.5
"""Where it is not known in more than this share of frames whether an object moves, a hand at it is not judged as one at an object at rest."""
UNDECIDED = (0.35, 0.65)
"""A probability of a hold at rest between these says nothing."""
NOT_HELD = 0.02
"""Probability that a hand holds an object that it does not touch, or slips against."""
_MOVING = (-0.94, 3.99)
"""Probability of a hold in motion from the confidence of `held`: intercept and slope of a logistic curve."""
FEATURES = ("bordered", "log_seen_slip", "touch", "log_slip", *CUES)
N_BY_MASKS = 3
_RESTS_M_S = 0.004
"""Slips below this are alike: points are not followed more exactly. Slips are compared by their ratio, hence the logarithm of their sum with it."""
_NEED_JOINTS = slice(FEATURES.index(CUES[0]), None)
_BY_GRIP = (
    -1.16,
    np.array([0.502, -4.419, 0.864, -4.255, 0.766, 0.083, 0.057]),
    np.array([5.22, -1.3, 1.79, -0.86, 5.02, 5.83, -1.24]),
)
_BY_MASKS = (-1.31, np.array([0.502, -4.419, 0.864]), np.array([6.66, -2.69, 1.38]))
"""Logistic regressions of holds at rest, on all FEATURES and, where the hand has no joints, on the first N_BY_MASKS: intercept, means, weights.
Fitted by `benchmarks.fit_holding`."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one hand at one object, in N frames.

    Args:
        seen: (N,) bool, whether the hand has a mask.
        touches: (N,) from 0 to 1, see `touch`.
        slips_m_s: (N,) speed against the object; NaN where unknown.
        cues: (N, 3) of `_grip.CUES`; NaN where unknown.
        bordered: (N,) see `_grip.left_to`; NaN where unknown.
        seen_slips_m_s: (N,) as slips_m_s, by the picture alone.
    """

    seen: np.ndarray
    touches: np.ndarray
    slips_m_s: np.ndarray
    cues: np.ndarray
    bordered: np.ndarray
    seen_slips_m_s: np.ndarray


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who holds an object in one frame: `score` is the probability that it is right, None where `held_by` is unknown, and `why` then says why."""

    held_by: str
    score: float | None
    why: str | None


def judge(
    hands: Mapping[Hand, Evidence],
    speeds_m_s: np.ndarray,
    moving: np.ndarray,
    times_s: np.ndarray,
    window_s: float,
    max_slip_m_s: float,
) -> list[Verdict]:
    """Who holds the object in each of N frames in which it is seen without a gap; the arguments are those of `held`."""
    touches, slips = {h: e.touches for h, e in hands.items()}, {h: e.slips_m_s for h, e in hands.items()}
    confidence = held(touches, slips, speeds_m_s, moving, times_s, window_s, max_slip_m_s)
    judged = {hand: _one_hand(e, confidence[hand], moving, np.isnan(speeds_m_s), times_s, max_slip_m_s) for hand, e in hands.items()}
    alone = np.max([e.touches for e in hands.values()], axis=0) <= MIN_TOUCH
    unseen = ~np.all([e.seen for e in hands.values()], axis=0)
    lost = alone & unseen & moving
    return [_verdict({hand: (p[i], why[i]) for hand, (p, why) in judged.items()}, bool(lost[i])) for i in range(len(moving))]


def _verdict(hands: Mapping[Hand, tuple[float, str | None]], lost: bool) -> Verdict:
    holders = [hand for hand in HANDS if hands[hand][1] is None and hands[hand][0] > 0.5]
    whys = [why for _, why in hands.values() if why is not None]
    if not holders and lost:
        return Verdict("unknown", None, "moves_without_hand")
    if not holders and whys:
        return Verdict("unknown", None, whys[0])
    right = [p if hand in holders else 1 - p for hand, (p, _) in hands.items()]
    return Verdict("both" if len(holders) == 2 else holders[0] if holders else "none", float(np.prod(right)), None)


def _one_hand(
    e: Evidence, confidence: np.ndarray, moving: np.ndarray, unknown: np.ndarray, times_s: np.ndarray, max_slip_m_s: float
) -> tuple[np.ndarray, list[str | None]]:
    """Probability (N,) that the hand holds the object, and why it is not known."""
    p = np.full(len(moving), NOT_HELD)
    why: list[str | None] = [None] * len(moving)
    in_motion = confidence > 0
    p[in_motion] = np.maximum(_sigmoid(_MOVING[0] + _MOVING[1] * confidence[in_motion]), 0.51)
    touching = e.touches > MIN_TOUCH
    for i in np.flatnonzero(touching & moving & np.isnan(e.slips_m_s) & ~in_motion).tolist():
        why[i] = "hand_without_points"
    for i in np.flatnonzero(touching & unknown & ~in_motion & ~_slips(e, _PASSES * max_slip_m_s)).tolist():
        why[i] = "motion_unknown"
    for i in np.flatnonzero(_lost(e, times_s)).tolist():
        why[i] = "hand_lost"
    for start, end in rests(e, in_motion, moving, times_s, max_slip_m_s):
        if unknown[start:end].mean() > MOST_UNKNOWN:
            continue
        chance = at_rest(e, slice(start, end))
        if chance is None or UNDECIDED[0] < chance < UNDECIDED[1]:
            why[start:end] = ["hand_without_joints" if chance is None else "undecided"] * (end - start)
        else:
            p[start:end], why[start:end] = chance, [None] * (end - start)
    holds = np.array([w is None for w in why]) & (p > 0.5)
    for start, end in runs((touching | ~e.seen) & ~holds):
        if start > 0 and end < len(p) and holds[start - 1] and holds[end] and times_s[end] - times_s[start - 1] <= MAX_BRIDGED_S:
            p[start:end], why[start:end] = min(p[start - 1], p[end]), [None] * (end - start)
    return p, why


def _lost(e: Evidence, times_s: np.ndarray) -> np.ndarray:
    """(N,) bool: the hand is not seen, and was or will be next seen at the object, at most MAX_LOST_S away in time."""
    lost = np.zeros(len(times_s), bool)
    for start, end in runs(~e.seen):
        for at in (start - 1, end):
            if 0 <= at < len(times_s) and e.touches[at] > MIN_TOUCH:
                lost[start:end] |= np.abs(times_s[start:end] - times_s[at]) <= MAX_LOST_S
    return lost


def rests(e: Evidence, held: np.ndarray, moving: np.ndarray, times_s: np.ndarray, max_slip_m_s: float) -> Iterator[tuple[int, int]]:
    """Start and end of each stretch in which the hand is at the object, nothing moves, and no hold in motion says why."""
    for start, end in runs((e.touches > MIN_TOUCH) & ~held & ~moving & ~_slips(e, _SLIPS * max_slip_m_s)):
        if times_s[end - 1] - times_s[start] >= MIN_STILL_S:
            yield start, end


def _slips(e: Evidence, least_m_s: float) -> np.ndarray:
    """(N,) bool, whether the hand is known to move against the object by more than that."""
    return np.asarray(np.nan_to_num(e.slips_m_s) > least_m_s)


def features_at_rest(e: Evidence, part: slice) -> np.ndarray:
    """(7,) the medians of FEATURES; NaN where one is not known in any frame, or the joints in less than half of them."""
    slips = [np.log(slips_m_s[part] + _RESTS_M_S) for slips_m_s in (e.seen_slips_m_s, e.slips_m_s)]
    columns = np.column_stack([e.bordered[part], slips[0], e.touches[part], slips[1], e.cues[part]])
    if np.isnan(e.cues[part, 0]).mean() > 0.5:
        columns[:, _NEED_JOINTS] = np.nan
    known = ~np.isnan(columns).all(0)
    return np.array([np.nanmedian(column) if k else np.nan for column, k in zip(columns.T, known, strict=True)])


def at_rest(e: Evidence, part: slice) -> float | None:
    """Probability that a hand that touches an object while nothing moves holds it; None where neither its joints nor its points are known."""
    x = features_at_rest(e, part)
    if not np.isnan(x[_NEED_JOINTS.start]):
        return _logistic(x, _BY_GRIP)
    by_masks = x[:N_BY_MASKS]
    return None if np.isnan(by_masks).any() else _logistic(by_masks, _BY_MASKS)


def _logistic(x: np.ndarray, fitted: tuple[float, np.ndarray, np.ndarray]) -> float:
    intercept, mean, weights = fitted
    return float(_sigmoid(intercept + np.nan_to_num(x - mean) @ weights))


def runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and end of each unbroken stretch of true values of (N,) bool."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    yield from zip(change[::2].tolist(), change[1::2].tolist(), strict=True)


def _sigmoid(x: np.ndarray | float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.asarray(x))))
