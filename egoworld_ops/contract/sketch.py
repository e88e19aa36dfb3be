"""Distributions as counts in buckets that grow by a fixed ratio, so that they add up over videos and any quantile is right within 1 %.

The buckets are those of DDSketch (C. Masson, J. E. Rim, H. K. Lee: DDSketch, PVLDB 12(12), 2019) with a relative accuracy of 0.01; they are never
merged, as there are at most a few hundred in practice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

ACCURACY = 0.01
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_OFFSET = 40_000
"""Added to the exponent, so that it is positive for every double (|ln x| < 745) and the sign of a bucket is that of its values."""
BUCKET = f"CASE WHEN {{0}} = 0 THEN 0 ELSE (sign({{0}}) * ({_OFFSET} + ceil(ln(abs({{0}})) / {float(np.log(_GAMMA))!r})))::INT END"
"""The bucket of a number, in SQL; to be formatted with its expression."""


def add(sketches: Sequence[Mapping[int, int]]) -> dict[int, int]:
    """The sketch of all values of some sketches, each as counts by bucket."""
    total: dict[int, int] = {}
    for sketch in sketches:
        for bucket, n in sketch.items():
            total[bucket] = total.get(bucket, 0) + n
    return total


def values(buckets: Sequence[int]) -> np.ndarray:
    """What stands for the values of each bucket, within 1 % of every one of them; (N,) float64."""
    k = np.asarray(buckets, np.float64)
    return np.where(k == 0, 0.0, np.sign(k) * 2 * _GAMMA ** (np.abs(k) - _OFFSET) / (_GAMMA + 1))


def quantiles(sketch: Mapping[int, int], shares: Sequence[float]) -> list[float]:
    """The values below which these shares of the values lie (nearest rank); NaN of an empty sketch."""
    if not sketch:
        return [float("nan")] * len(shares)
    buckets = sorted(sketch)
    counts = np.cumsum([sketch[b] for b in buckets])
    at = np.searchsorted(counts, np.maximum(np.asarray(shares, np.float64) * counts[-1], 1) - 1e-9)
    return [float(v) for v in values([buckets[min(int(i), len(buckets) - 1)] for i in at])]
