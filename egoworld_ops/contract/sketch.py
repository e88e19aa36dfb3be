"""Distributions as counts in buckets that grow by a fixed ratio, so that they add up over videos and any quantile is right within 1 %.

The buckets are those of DDSketch (C. Masson, J. E. Rim, H. K. Lee: DDSketch, PVLDB 12(12), 2019) with a relative accuracy of 0.01; they are never
merged, as there are at most a few hundred in practice.
"""

from __future__ import annotations

import math

ACCURACY = 0.01
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_OFFSET = 40_000
"""Added to the exponent, so that it is positive for every double (|ln x| < 745) and the sign of a bucket is that of its values."""
BUCKET = f"CASE WHEN {{0}} = 0 THEN 0 ELSE (sign({{0}}) * ({_OFFSET} + ceil(ln(abs({{0}})) / {math.log(_GAMMA)!r})))::INT END"
"""The bucket of a number, in SQL; to be formatted with its expression."""
