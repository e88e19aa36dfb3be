"""Smooth motion from noisy values: the least sum of squared acceleration and squared deviation, each integrated over time.

    integral of  sum over seen frames of |x - measured|^2 / noise^2  +  |x''|^2 / acceleration^2

A Kalman (Rauch-Tung-Striebel) smoother whose acceleration is white noise has the same solution; here all frames are solved at once. Frame rate
and stride change the sampling of the solution, not the solution. The noise is measured on each track, so that clean values stay as they are.
Deviations are weighed by Huber's (1964) and then by Tukey's loss, so that frames that contradict those around them end without any weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.banded import Banded

ROUNDS = 5
"""Solutions with each of the two losses."""
HUBER = 1.5
"""Standard errors beyond which a deviation's pull no longer grows."""
REJECTED = 0.05
"""A frame with less of Tukey's weight, of 1, is an outlier."""
LEAST_WEIGHT = 1e-4
"""Of each seen frame: keeps a track solvable in which few frames agree."""
FEW = 6
"""Frames with a neighbour on either side, below which the noise of a track is not measured."""
MEDIAN_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True)
class Range:
    """Least and most noise that is believed, in the unit of the values."""

    least: float
    most: float

    @property
    def middle(self) -> float:
        """For tracks too short to measure it."""
        return float(np.sqrt(self.least * self.most))


def noise(tracks: Tracks, values: np.ndarray, seen: np.ndarray, believed: Range) -> np.ndarray:
    """(T,) standard error of each frame's (T, n) value: that of its track, the root of the mean over its n directions.

    Measured as the median distance of a value from the straight line between its two neighbours in time.
    """
    before = tracks.step_s[1:] / (tracks.step_s[1:] + tracks.step_s[:-1])
    spread = np.sqrt(1 + before**2 + (1 - before) ** 2)
    off = values[1:-1] - before[:, None] * values[:-2] - (1 - before)[:, None] * values[2:]
    off_sigma = np.linalg.norm(off, axis=1) / (spread * np.sqrt(_typical(values.shape[1])))
    whole = tracks.joined[1:] & tracks.joined[:-1] & seen[1:-1] & seen[:-2] & seen[2:]
    found = np.full(len(values), believed.middle)
    for track in range(tracks.track[-1] + 1):
        own = off_sigma[whole & (tracks.track[1:-1] == track)]
        if len(own) >= FEW:
            found[tracks.track == track] = np.clip(np.median(own), believed.least, believed.most)
    return found


def _typical(n: int) -> float:
    """The median of a chi-squared variable of n degrees of freedom, by Wilson and Hilferty (1931)."""
    return float(n * (1 - 2 / (9 * n)) ** 3)


def smooth(
    tracks: Tracks, values: np.ndarray, seen: np.ndarray, noise: np.ndarray, acceleration: float, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth values of equal noise in all their directions.

    Args:
        values: (T, n); those not seen are not looked at.
        seen: (T,) bool.
        noise: (T,) standard error of a value in each direction.
        acceleration: usual acceleration, units of the values a second squared.
        limit: standard errors beyond which a value has no weight.

    Returns:
        (T, n) values, and (T,) their weights, 0 to 1.
    """
    bands = tracks.smoothness(0.0, 1 / acceleration**2)
    measured = np.where(seen[:, None], values, 0.0)

    def solve(weights: np.ndarray) -> np.ndarray:
        pull = weights * tracks.share_s / noise**2
        matrix = bands.copy()
        matrix[0] += pull
        solved: np.ndarray = solveh_banded(matrix[: len(values)], pull[:, None] * measured, lower=True, check_finite=False)
        return solved

    def away(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x - measured, axis=1) / (noise * np.sqrt(values.shape[1]))

    return _robustly(solve, away, seen, limit)


def smooth_positions(
    tracks: Tracks, positions_m: np.ndarray, seen: np.ndarray, shares: np.ndarray, acceleration: float, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth (T, 3) positions in the camera's frame whose distance is less sure than their direction.

    Args:
        shares: (T, 2) standard errors across the line of sight and along it, as shares of the distance.
        acceleration: usual acceleration, m/s^2.

    Returns:
        As `smooth`.
    """
    measured = np.where(seen[:, None], positions_m, 0.0)
    distance_m = np.where(seen, np.linalg.norm(measured, axis=1), 1.0)
    sight = measured / distance_m[:, None]
    along = sight[:, :, None] * sight[:, None, :]
    across_m, along_m = (shares * distance_m[:, None]).T
    precision = (np.eye(3) - along) / across_m[:, None, None] ** 2 + along / along_m[:, None, None] ** 2
    links = np.repeat(tracks.smoothness(0.0, 1 / acceleration**2)[..., None], 3, axis=2)
    free = np.ones(positions_m.shape, bool)

    def solve(weights: np.ndarray) -> np.ndarray:
        pull = (weights * tracks.share_s)[:, None, None] * precision
        return Banded(pull, links).solve((pull @ measured[..., None])[..., 0], free)

    def away(x: np.ndarray) -> np.ndarray:
        off = x - measured
        squares: np.ndarray = np.einsum("ti,tij,tj->t", off, precision, off)
        return np.sqrt(squares / 3)

    return _robustly(solve, away, seen, limit)


def _robustly(
    solve: Callable[[np.ndarray], np.ndarray], away: Callable[[np.ndarray], np.ndarray], seen: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Iteratively reweighted least squares: by Huber's loss first, which has one minimum, and from there by Tukey's."""
    weights = seen.astype(np.float64)
    for number in range(2 * ROUNDS):
        x = solve(np.where(seen, np.maximum(weights, LEAST_WEIGHT), 0.0))
        off = away(x)
        weights = np.minimum(1, HUBER / np.maximum(off, HUBER)) if number < ROUNDS else np.maximum(1 - (off / limit) ** 2, 0) ** 2
    return x, np.where(seen, weights, 0.0)
