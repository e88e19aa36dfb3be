"""Scores of `hand_pose` and `fusion`: coverage, joint errors in the image and in metres, hands that are not there, jitter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egoworld_ops.score.card import Measured, Score, calibrations, mean, median, share
from egoworld_ops.score.truth import HandTruth, Truth
from egoworld_ops.types import HANDS
from egoworld_ops.vision.geometry import align_similarity

STAGE, FUSED = "hand_pose", "fusion"

MAX_STEP_S = 0.1
"""Frames farther apart do not follow each other."""
MISSED_MM = 100.0
"""What a missed hand counts as in figures `missed as 100 mm`: about half a hand's length, so that leaving hands out never pays."""
RIGHT_SHARE = 0.1
"""A row is right if its joints are off by less than this share of the hand's extent in the image, on average."""


def measure(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> Measured | None:
    """Scores and calibrations of the hands; none where there is no table or no truth."""
    if truth.hands is None or "hand_pose" not in rows:
        return None
    found = {(row["frame_index"], row["hand"]): row for row in rows["hand_pose"]}
    pairs = [(hand, found.get((hand.frame_index, hand.hand))) for hand in truth.hands]
    n, n_found = len(pairs), sum(row is not None for _, row in pairs)
    solved = [(hand, row) for hand, row in pairs if row is not None and row["joints_m"] is not None]
    scores = [
        Score("hands: found, on the right side", share(n_found, n), "share", n),
        Score("hands: found with a 3D pose", share(len(solved), n), "share", n),
        Score("hands: on the wrong side", share(_swapped(truth.hands, found), n), "share", n),
    ]
    if truth.complete:
        true = {(hand.frame_index, hand.hand) for hand in truth.hands}
        scores.append(Score("hands: rows where no such hand is", share(len(found.keys() - true), len(found)), "share", len(found)))
    pixels = [_pixels(hand, row) for hand, row in pairs if row is not None and hand.joints_px is not None]
    scores += [
        Score("hands: joint error in the image, median", median(pixels), "px", len(pixels)),
        Score("hands: joint error in the image, p95", float(np.percentile(pixels, 95)) if pixels else None, "px", len(pixels)),
    ]
    scores += [*_metric("hands", solved, n), *_jitter("hands", rows["hand_pose"])]
    judged = [(row["score"], _is_right(hand, row)) for hand, row in pairs if row is not None and hand.joints_px is not None]
    if truth.complete:
        judged += [(row["score"], False) for key, row in found.items() if key not in true]
    return Measured(tuple(scores), calibrations(f"hand_pose.score: joints within {RIGHT_SHARE:.0%} of the hand", judged))


def measure_fused(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> Measured | None:
    """Scores of the hands of `fusion`, to be read beside those of `hand_pose`; none where there is no table or no truth."""
    if truth.hands is None or "fusion" not in rows:
        return None
    found = {(row["frame_index"], row["hand"]): row for row in rows["fusion"] if row["joints_m"] is not None}
    solved = [(hand, row) for hand in truth.hands if (row := found.get((hand.frame_index, hand.hand))) is not None]
    n = len(truth.hands)
    scores = [Score("fused hands: found with a 3D pose", share(len(solved), n), "share", n)]
    scores += [
        Score("fused hands: of these, filled in", share(sum(not row["observed"] for _, row in solved), len(solved)), "share", len(solved))
    ]
    if truth.complete:
        true = {(hand.frame_index, hand.hand) for hand in truth.hands}
        scores.append(Score("fused hands: poses where no such hand is", share(len(found.keys() - true), len(found)), "share", len(found)))
    scores += [*_metric("fused hands", solved, n), *_jitter("fused hands", rows["fusion"])]
    times_s = {row["frame_index"]: row["timestamp_s"] for row in rows["fusion"]}
    wrists = [
        {"hand": hand.hand, "clip_id": "", "timestamp_s": times_s[hand.frame_index], "joints_m": hand.joints_m}
        for hand in truth.hands
        if hand.frame_index in times_s and not np.isnan(hand.joints_m[0]).any()
    ]
    return Measured((*scores, *_jitter("true hands", wrists)))


def jitter_m_s2(times_s: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    """(K,) acceleration, m/s^2, of a point (T, 3) at (T,) increasing times, where three frames follow each other within `MAX_STEP_S` each."""
    steps_s = np.diff(times_s)
    velocity = np.diff(points_m, axis=0) / steps_s[:, None]
    acceleration = np.diff(velocity, axis=0) / ((steps_s[1:] + steps_s[:-1]) / 2)[:, None]
    whole = (steps_s[1:] < MAX_STEP_S) & (steps_s[:-1] < MAX_STEP_S)
    return np.asarray(np.linalg.norm(acceleration, axis=1)[whole])


def _jitter(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Score]:
    """How much the wrists shake: a smooth hand accelerates little, one that jumps from frame to frame does much."""
    found = [np.zeros(0)]
    for clip_id, hand in sorted({(row["clip_id"], row["hand"]) for row in rows}):
        own = [row for row in rows if (row["clip_id"], row["hand"]) == (clip_id, hand) and row["joints_m"] is not None]
        own.sort(key=lambda row: row["timestamp_s"])
        if len(own) > 2:
            wrists_m = np.array([row["joints_m"][0] for row in own], np.float64)
            found.append(jitter_m_s2(np.array([row["timestamp_s"] for row in own]), wrists_m))
    values = np.concatenate(found)
    p95 = float(np.percentile(values, 95)) if len(values) else None
    return [Score(f"{name}: jitter, acceleration of the wrist, p95", p95, "m/s2", len(values))]


def _metric(name: str, solved: Sequence[tuple[HandTruth, Mapping[str, Any]]], n: int) -> list[Score]:
    """MPJPE in millimetres: as it is, about the wrist, and after a similarity alignment."""
    errors: dict[str, list[float]] = {"in the camera frame": [], "relative to the wrist": [], "similarity-aligned": []}
    for hand, row in solved:
        known = ~np.isnan(hand.joints_m).any(1)
        said, true = np.asarray(row["joints_m"], np.float64), hand.joints_m
        errors["in the camera frame"].append(_mm(said[known], true[known]))
        if known[0]:
            errors["relative to the wrist"].append(_mm((said - said[0])[known], (true - true[0])[known]))
        if known.sum() >= 3:
            s, R, t_m = align_similarity(said[known], true[known])
            errors["similarity-aligned"].append(_mm(s * said[known] @ R.T + t_m, true[known]))
    scores = []
    for kind, values in errors.items():
        scores.append(Score(f"{name}: MPJPE {kind}", mean(values), "mm", len(values)))
        missed = n - len(values)
        scores.append(Score(f"{name}: MPJPE {kind}, missed as {MISSED_MM:g} mm", mean([*values, *[MISSED_MM] * missed]), "mm", n))
    return scores


def _mm(said_m: np.ndarray, true_m: np.ndarray) -> float:
    return float(np.linalg.norm(said_m - true_m, axis=1).mean() * 1000)


def _pixels(hand: HandTruth, row: Mapping[str, Any]) -> float:
    assert hand.joints_px is not None
    return float(np.nanmean(np.linalg.norm(np.asarray(row["joints_px"], np.float64) - hand.joints_px, axis=1)))


def _is_right(hand: HandTruth, row: Mapping[str, Any]) -> bool:
    assert hand.joints_px is not None
    extent_px = float((np.nanmax(hand.joints_px, 0) - np.nanmin(hand.joints_px, 0)).max())
    return _pixels(hand, row) < RIGHT_SHARE * extent_px


def _swapped(hands: Sequence[HandTruth], found: Mapping[tuple[int, str], Mapping[str, Any]]) -> int:
    """How many true hands lie under a row of the other side and under none of their own."""
    n = 0
    for hand in hands:
        other = found.get((hand.frame_index, HANDS[1 - HANDS.index(hand.hand)]))
        own = found.get((hand.frame_index, hand.hand))
        if hand.joints_px is not None and other is not None:
            n += _is_right(hand, other) and not (own is not None and _is_right(hand, own))
    return n
