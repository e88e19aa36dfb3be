"""One hand over a clip: one set of bone lengths, and joints that move smoothly. numpy in, numpy out; no tables belong here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.fusion import _palm, _smooth
from egoworld_ops.operators.fusion._smooth import Range

PARENTS = np.array([0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19])
"""The joint before each of the 21, towards the wrist, which has none."""
SCALE_ROUNDS = 3
LEAST_SEEN = 2
"""Frames of a track that must agree; where fewer do, none of it is an outlier."""
DIRECTION, DEPTH, BONE = Range(0.001, 0.02), Range(0.003, 0.08), Range(0.01, 0.3)
"""Noise of the wrist across and along the line of sight, as shares of its distance, and of a bone's direction, rad."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How a hand usually moves, and how far a value may be off.

    Args:
        acceleration_m_s2: of the wrist.
        turning_rad_s2: angular acceleration of a finger's bone.
        palm_rad_s2: that of the palm as a whole.
        bending_rad_s2: that of its bones in it.
        limit: standard errors beyond which a value is an outlier.
    """

    acceleration_m_s2: float
    turning_rad_s2: float
    palm_rad_s2: float
    bending_rad_s2: float
    limit: float


@dataclass(frozen=True, slots=True)
class Fused:
    """A hand in T frames.

    Args:
        joints_m: (T, 21, 3) in the camera frame.
        scaling: (T,) what size and distance of the hand as measured were multiplied by; NaN where it was not seen.
        outlier: (T,) bool: it was seen, and has no weight.
        used: (T,) bool: it was seen, and has weight.
    """

    joints_m: np.ndarray
    scaling: np.ndarray
    outlier: np.ndarray
    used: np.ndarray

    def within(self, times_s: np.ndarray, track: np.ndarray, gap_s: float) -> np.ndarray:
        """(T,) bool: used, or between two used frames of the same track that are no more than `gap_s` apart, at (T,) times."""
        known = np.flatnonzero(self.used)
        after = np.searchsorted(known, np.arange(len(times_s)))
        has_both = (after > 0) & (after < len(known))
        first, last = known[np.clip(after - 1, 0, None)], known[np.clip(after, None, len(known) - 1)]
        near = (times_s[last] - times_s[first] <= gap_s) & (track[first] == track[last])
        between: np.ndarray = has_both & near
        return self.used | between


def person_lengths(hands: Sequence[np.ndarray]) -> np.ndarray:
    """(20,) lengths of the bones of a person, from (T, 21, 3) joints of each hand: the geometric mean of the hands, weighted by frames.

    Those of a hand are medians over its frames, each brought to the size that all bones together say.
    """
    logarithms, weights = [], []
    for joints_m in hands:
        directions, lengths_m = bones(joints_m)
        median_m = np.median(lengths_m, 0)
        for _ in range(SCALE_ROUNDS):
            size = scaling(joints_m, directions, median_m)
            median_m = np.median(lengths_m * (size / np.median(size))[:, None], 0)
        logarithms.append(np.log(np.maximum(median_m, 1e-9)))
        weights.append(len(joints_m))
    mean: np.ndarray = np.exp(np.average(logarithms, axis=0, weights=weights))
    return mean


def bones(joints_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions (T, 20, 3) and lengths (T, 20) of the bones of (T, 21, 3) joints: bone k ends at joint k + 1. One without length has none."""
    along_m = joints_m[:, 1:] - joints_m[:, PARENTS[1:]]
    lengths_m = np.linalg.norm(along_m, axis=-1)
    return along_m / np.maximum(lengths_m, 1e-9)[..., None], lengths_m


def chained(directions: np.ndarray, lengths_m: np.ndarray) -> np.ndarray:
    """(T, 21, 3) joints about the wrist, from the directions (T, 20, 3) and lengths (20,) of the bones."""
    joints_m = np.zeros((len(directions), 21, 3))
    for joint in range(1, 21):
        joints_m[:, joint] = joints_m[:, PARENTS[joint]] + directions[:, joint - 1] * lengths_m[joint - 1]
    return joints_m


def scaling(joints_m: np.ndarray, directions: np.ndarray, lengths_m: np.ndarray) -> np.ndarray:
    """(T,) size of the hand with these bone lengths over its size in (T, 21, 3) joints: the scale of the least squared distance of joints."""
    about_m = joints_m - joints_m[:, :1]
    size = (about_m**2).sum((1, 2))
    ratio = (chained(directions, lengths_m) * about_m).sum((1, 2)) / np.where(size > 0, size, 1.0)
    return np.where(ratio > 0, ratio, 1.0)


def fuse(tracks: Tracks, joints_m: np.ndarray, seen: np.ndarray, lengths_m: np.ndarray, motion: Motion) -> Fused:
    """Smooth joints with the given bone lengths (20,) from measured ones (T, 21, 3), which are not looked at where the hand is not seen.

    One picture tells size and distance of a hand only together: one that was taken for too large was taken for too far away by the same
    factor. So it is scaled about the camera, which changes nothing in the picture. Then the directions of the bones and the
    wrist's position are smoothed. A frame in which the wrist or most of the bones are outliers is left out altogether.
    """
    measured_m = np.where(seen[:, None, None], joints_m, 0.0)
    directions, _ = bones(measured_m)
    factor = scaling(measured_m, directions, lengths_m)
    wrist_m = measured_m[:, 0] * factor[:, None]
    used = seen
    for _ in range(2):
        smoothed, weights = _smooth_bones(tracks, directions, used, lengths_m, motion)
        position_m, trust = _smooth_wrist(tracks, wrist_m, used, motion)
        agrees = (trust >= _smooth.REJECTED) & (np.median(weights, axis=1) >= _smooth.REJECTED)
        if agrees[used].all():
            break
        agreeing = used & agrees
        used = np.where(tracks.sums(agreeing) >= LEAST_SEEN, agreeing, used)
    return Fused(position_m[:, None] + chained(smoothed, lengths_m), np.where(seen, factor, np.nan), seen & ~used, used)


def _smooth_bones(
    tracks: Tracks, directions: np.ndarray, seen: np.ndarray, lengths_m: np.ndarray, motion: Motion
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (T, 20, 3), and (T, 20) weights."""
    smoothed, weights = np.empty_like(directions), np.empty(directions.shape[:2])
    accelerations = motion.palm_rad_s2, motion.bending_rad_s2
    palm, palm_weights = _palm.smooth(tracks, directions, seen, lengths_m, BONE, accelerations, motion.limit)
    smoothed[:, _palm.BONES], weights[:, _palm.BONES] = palm, palm_weights[:, None]
    for bone in np.setdiff1d(np.arange(directions.shape[1]), _palm.BONES):
        values = directions[:, bone]
        error = _smooth.noise(tracks, values, seen, BONE)
        smoothed[:, bone], weights[:, bone] = _smooth.smooth(tracks, values, seen, error, motion.turning_rad_s2, motion.limit)
    return smoothed / np.maximum(np.linalg.norm(smoothed, axis=-1, keepdims=True), 1e-9), weights


def _smooth_wrist(tracks: Tracks, wrist_m: np.ndarray, seen: np.ndarray, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    distance_m = np.where(seen, np.linalg.norm(wrist_m, axis=1), 1.0)[:, None]
    shares = [
        _smooth.noise(tracks, wrist_m / distance_m, seen, DIRECTION),
        _smooth.noise(tracks, np.log(distance_m), seen, DEPTH),
    ]
    return _smooth.smooth_positions(tracks, wrist_m, seen, np.stack(shares, 1), motion.acceleration_m_s2, motion.limit)
