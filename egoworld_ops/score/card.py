"""The truth card of one video: its scores, and how often each confidence was right. Values and their text; `measuring` makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Edges of the bins of a confidence; the last includes 1."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number.

    Args:
        name: what it is about and what it is.
        value: None where there was nothing to measure.
        n: over how many things it was measured.
    """

    name: str
    value: float | None
    unit: str
    n: int

    def __str__(self) -> str:
        value = "none" if self.value is None else f"{self.value:.4g}"
        return f"{self.name:<52} {value:>9} {self.unit:<10} {self.n:>7}"


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose confidence lies in [low, high): how many, their mean confidence, and what share of them is right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often a confidence was right.

    Args:
        name: column of a table, and what counts as right.
        bins: those that hold rows.
        error: mean distance of confidence and share right, weighted by rows (expected calibration error, Naeini et al., 2015).
    """

    name: str
    bins: tuple[Bin, ...]
    error: float

    def __str__(self) -> str:
        shares = ", ".join(f"{b.low:g}-{b.high:g}: {b.right:.0%} of {b.n}" for b in self.bins)
        return f"{self.name:<52} {self.error:>9.3f} {'off':<10} {sum(b.n for b in self.bins):>7}  {shares}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one stage."""

    scores: tuple[Score, ...]
    calibrations: tuple[Calibration, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """All scores of a video against its truth.

    Args:
        source: where the truth is from.
        frames: of the video that the truth speaks of.
        stages: by the stage that is scored; those of which nothing could be measured are left out.
    """

    source: str
    frames: int
    stages: Mapping[str, Measured]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"{f'against the truth, {self.frames} frames':<52} {'value':>9} {'unit':<10} {'over':>7}"
        for measured in self.stages.values():
            yield from map(str, measured.scores)
        if judged := [c for measured in self.stages.values() for c in measured.calibrations]:
            yield f"{'what share is right at each confidence':<52} {'off by':>9}"
            yield from map(str, judged)


def calibrations(name: str, judged: Iterable[tuple[float | None, bool]]) -> tuple[Calibration, ...]:
    """The calibration of a confidence; none where no row has one.

    Args:
        judged: the confidence of each row, and whether the row is right; rows without a confidence are left out.
    """
    pairs = np.array([(confidence, right) for confidence, right in judged if confidence is not None], np.float64).reshape(-1, 2)
    if not len(pairs):
        return ()
    which = np.clip(np.searchsorted(BINS, pairs[:, 0], side="right") - 1, 0, len(BINS) - 2)
    bins = tuple(
        Bin(BINS[b], BINS[b + 1], int(inside.sum()), *(float(v) for v in pairs[inside].mean(0)))
        for b in range(len(BINS) - 1)
        if (inside := which == b).any()
    )
    return (Calibration(name, bins, sum(b.n * abs(b.confidence - b.right) for b in bins) / len(pairs)),)


def share(part: int, whole: int) -> float | None:
    """Part of a whole; None of nothing."""
    return part / whole if whole else None


def mean(values: Sequence[float] | np.ndarray) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None


def median(values: Sequence[float] | np.ndarray) -> float | None:
    """The median; None of nothing."""
    return float(np.median(values)) if len(values) else None
