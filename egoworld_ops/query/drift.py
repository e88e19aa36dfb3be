"""Whether the numbers of newer videos are those of older ones: each metric of table `metrics`, video by video, against a reference.

First it is found since which of the newer videos a metric may have changed: the change that explains them best, by the likelihood ratio of the
tenths of the reference they fall in (a GLR change-point, M. Basseville and I. Nikiforov: Detection of Abrupt Changes, 1993). It has changed where
three things hold of the videos since, so that neither chance, nor many videos, nor many metrics make an alarm:

- they and the reference are not of one distribution: two-sample Kolmogorov-Smirnov test; p is multiplied by the number of changes that were tried,
  and corrected for all metrics (Benjamini and Hochberg, 1995);
- many videos have moved: the test's D, the largest difference between the two cumulative shares, is at least `share`;
- they have moved far: the population stability index over tenths of the reference, less what chance alone makes it, is at least `psi`.

A video without a value (nothing was found) is a value of its own, below all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from egoworld_ops.contract.quality import DriftSettings

N_BINS = 10
_SMOOTHING = 0.5
"""Added to each bin's count: an empty bin is not an impossible one."""


@dataclass(frozen=True, slots=True)
class Values:
    """One metric of one stage over videos, in the order in which they were computed.

    Args:
        videos: their names.
        values: (N,) float64, NaN where a video has no value.
    """

    videos: Sequence[str] | np.ndarray
    values: np.ndarray


Metrics = Mapping[tuple[str, str], Values]
"""By stage and metric."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A metric that has drifted.

    Args:
        reference, current: medians, of the videos since the change; NaN where most videos have no value.
        share: D, the share of the videos since then that have moved.
        psi: population stability index, less what chance makes it.
        p: corrected.
        since: the first video after the change.
        videos: how many there are from it on.
    """

    stage: str
    metric: str
    reference: float
    current: float
    share: float
    psi: float
    p: float
    since: str
    videos: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, and what has drifted, the strongest first.

    Args:
        compared: metrics that both sides have, with enough videos.
        too_few: metrics of which a side has too few videos to say anything.
    """

    drifted: Sequence[Drift]
    compared: int
    too_few: Sequence[tuple[str, str]]


def compare(reference: Metrics, current: Metrics, settings: DriftSettings) -> Report:
    """Each metric that either side has."""
    from scipy.stats import false_discovery_control, ks_2samp

    keys = sorted({*reference, *current})
    few = [key for key in keys if min(_count(reference.get(key)), _count(current.get(key))) < settings.minimum_videos]
    found = []
    for key in (key for key in keys if key not in few):
        old, new = reference[key].values, current[key]
        bins = _Bins(old)
        at = bins.change(new.values, len(new.values) - settings.minimum_videos)
        since = new.values[at:]
        test = ks_2samp(_ranked(old), _ranked(since), method="asymp")
        p = min(1.0, float(test.pvalue) * (len(new.values) - settings.minimum_videos + 1))
        found.append(Drift(*key, _median(old), _median(since), float(test.statistic), bins.psi(since), p, new.videos[at], len(since)))
    corrected = false_discovery_control([drift.p for drift in found]) if found else []
    every = [replace(drift, p=float(p)) for drift, p in zip(found, corrected, strict=True)]
    drifted = [d for d in every if d.p <= settings.p and d.share >= settings.share and d.psi >= settings.psi]
    return Report(sorted(drifted, key=lambda d: (-d.share, -d.psi)), len(found), few)


class _Bins:
    """Tenths of a reference, one bin below all of it and one above, and one for videos without a value; equal values share a bin.

    Args:
        reference: (N,) float64, with NaN.
    """

    def __init__(self, reference: np.ndarray) -> None:
        known = reference[~np.isnan(reference)]
        at = np.quantile(known, np.linspace(0, 1, N_BINS + 1), method="higher") if len(known) else []
        ends = np.unique(at)
        self._edges = np.sort(np.concatenate([np.nextafter(ends, -np.inf), ends]))
        """Each end has a bin of its own, so that a metric with one value in most videos is told from all others."""
        self._counts = self._count(reference)
        self._n = len(reference)

    def psi(self, values: np.ndarray) -> float:
        """Population stability index of values against the reference, less its mean where both are of one distribution, (bins - 1)(1/n + 1/m)."""
        p, q = self._shares(self._counts), self._shares(self._count(values))
        filled = int(((self._counts > 0) | (self._count(values) > 0)).sum())
        return float(((q - p) * np.log(q / p)).sum()) - (filled - 1) * (1 / self._n + 1 / len(values))

    def change(self, values: np.ndarray, at_most: int) -> int:
        """Index of the first value after the change; no larger than `at_most`."""
        one_hot = np.eye(len(self._counts))[self._bin(values)]
        after = one_hot[::-1].cumsum(axis=0)[::-1][: at_most + 1]  # (N, bins): counts of the values from each index on
        gain = (after * np.log(self._shares(after) / self._shares(self._counts))).sum(axis=1)
        return int(np.argmax(gain))

    def _bin(self, values: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(values), 0, 1 + np.searchsorted(self._edges, values, side="left"))

    def _count(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self._bin(values), minlength=len(self._edges) + 2).astype(np.float64)

    def _shares(self, counts: np.ndarray) -> np.ndarray:
        smoothed = counts + _SMOOTHING
        return smoothed / smoothed.sum(axis=-1, keepdims=True)


def _count(values: Values | None) -> int:
    return 0 if values is None else len(values.videos)


def _ranked(values: np.ndarray) -> np.ndarray:
    """Values with those that are missing below all others, as the test takes them."""
    return np.where(np.isnan(values), -np.inf, values)


def _median(values: np.ndarray) -> float:
    return float(np.median(_ranked(values))) if np.isnan(values).mean() < 0.5 else float("nan")
