"""What makes values move as a body does: penalties on speed and acceleration along tracks, in seconds, and exact limits of speed.

A track is a run of frames of one hand without a gap longer than a set time. Nothing here knows of kinematics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_STEP_S = 1e-3
"""Frames that are nearer in time count as this far apart."""
MAX_SHARE_S = 0.1
"""The longest time that one frame stands for: one before a gap knows no more than others."""


@dataclass(frozen=True)
class Tracks:
    """The frames of one hand, cut into tracks.

    Attributes:
        step_s: (T - 1,) time from each frame to the next.
        joined: (T - 1,) True where the next frame is of the same track.
        track: (T,) int, the track of each frame, from 0.
        share_s: (T,) time that each frame stands for: half of the steps to its neighbours.
    """

    step_s: np.ndarray
    joined: np.ndarray
    track: np.ndarray
    share_s: np.ndarray

    @classmethod
    def of(cls, times_s: np.ndarray, gap_s: float) -> Tracks:
        """The tracks of frames at these (T,) times, in order; a gap longer than `gap_s` ends one."""
        step_s = np.maximum(np.diff(times_s), MIN_STEP_S)
        joined = step_s <= gap_s
        inside_s = np.where(joined, step_s, np.nan)
        around_s = np.stack([np.r_[np.nan, inside_s], np.r_[inside_s, np.nan]])
        n_around = np.isfinite(around_s).sum(0)
        share_s = np.nansum(around_s, 0) / np.maximum(n_around, 1)
        share_s = np.minimum(np.where(n_around > 0, share_s, MAX_SHARE_S), MAX_SHARE_S)
        return cls(step_s, joined, np.r_[0, np.cumsum(~joined)], share_s)

    def select(self, chosen: np.ndarray) -> Tracks:
        """Some of the tracks: (T,) True for all frames of those."""
        kept = np.flatnonzero(chosen)
        steps = kept[:-1]
        joined = self.joined[steps] & (np.diff(kept) == 1)
        return Tracks(self.step_s[steps], joined, np.unique(self.track[kept], return_inverse=True)[1], self.share_s[kept])

    def smoothness(self, speed: float, acceleration: float) -> np.ndarray:
        """(3, T) bands of the symmetric matrix S of `x @ S @ x / 2`: the integral over time of the penalties of one joint.

        `speed / 2 * x'^2 + acceleration / 2 * x''^2`; band k holds the elements that link a frame with the k-th after it.
        """
        n = len(self.track)
        bands = np.zeros((3, n))
        if n > 1:
            stiff = np.where(self.joined, speed / self.step_s, 0.0)
            bands[0, :-1] += stiff
            bands[0, 1:] += stiff
            bands[1, :-1] -= stiff
        if n > 2:
            before, after = 1 / self.step_s[:-1], 1 / self.step_s[1:]
            span_s = (self.step_s[:-1] + self.step_s[1:]) / 2
            weight = np.where(self.joined[:-1] & self.joined[1:], acceleration * span_s, 0.0)
            first, middle, last = before / span_s, -(before + after) / span_s, after / span_s
            bands[0, :-2] += weight * first**2
            bands[0, 1:-1] += weight * middle**2
            bands[0, 2:] += weight * last**2
            bands[1, :-2] += weight * first * middle
            bands[1, 1:-1] += weight * middle * last
            bands[2, :-2] += weight * first * last
        return bands

    @staticmethod
    def times(bands: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(T, n) product of the matrix of `smoothness` and (T, n) values."""
        product = bands[0, :, None] * x
        for k in (1, 2):
            link = bands[k, :-k, None]
            product[:-k] += link * x[k:]
            product[k:] += link * x[:-k]
        return product

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(T,) the sum of (T,) values over the track of each frame."""
        sums: np.ndarray = np.bincount(self.track, values)[self.track]
        return sums

    def greatest(self, values: np.ndarray) -> np.ndarray:
        """(T,) the greatest of (T,) values in the track of each frame."""
        greatest = np.full(self.track[-1] + 1, -np.inf)
        np.maximum.at(greatest, self.track, values)
        found: np.ndarray = greatest[self.track]
        return found

    def speeds(self, x: np.ndarray) -> np.ndarray:
        """(T, n) speed of (T, n) values since the frame before, 1/s, without sign; NaN in the first frame of a track."""
        speeds = np.full(x.shape, np.nan)
        speeds[1:] = np.where(self.joined[:, None], np.abs(np.diff(x, axis=0)) / self.step_s[:, None], np.nan)
        return speeds

    def excess(self, x: np.ndarray, fastest: np.ndarray) -> np.ndarray:
        """(T - 1, n) by how much each step is faster than the (n,) limits, with its sign, 1/s; 0 within them and between tracks."""
        speed = np.diff(x, axis=0) / self.step_s[:, None]
        return np.where(self.joined[:, None], speed - np.clip(speed, -fastest, fastest), 0.0)

    def limit_speed(self, x: np.ndarray, fastest: np.ndarray) -> np.ndarray:
        """(T, n) values that keep to the (n,) speed limits: those given, where they do, and else the mean of the tightest bounds around them.

        The least function of that slope above the values and the greatest below (McShane 1934) both keep to it, and so does their mean: no
        other stays nearer to the values in the greatest deviation. It leaves no range that the values are in.
        """
        reach = np.where(self.joined[:, None], fastest * self.step_s[:, None], np.inf)
        above, below = x.copy(), x.copy()
        for t in range(1, len(x)):
            above[t] = np.maximum(above[t], above[t - 1] - reach[t - 1])
            below[t] = np.minimum(below[t], below[t - 1] + reach[t - 1])
        for t in range(len(x) - 2, -1, -1):
            above[t] = np.maximum(above[t], above[t + 1] - reach[t])
            below[t] = np.minimum(below[t], below[t + 1] + reach[t])
        return (above + below) / 2
