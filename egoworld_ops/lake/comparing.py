"""Two runs compared over all their clips: each quality metric's medians, and the clips in which the second is most worse than the first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from statistics import median

from egoworld_ops.contract.quality import metrics
from egoworld_ops.lake.runs import ClipDifference

MOST_WORST = 10


@dataclass(frozen=True, slots=True)
class Worse:
    """A clip in which a metric is worse in the second run."""

    video_id: str
    clip_id: str
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """A metric over the clips in which it differs and both runs have it: how many, the median of each side, and where it got most worse."""

    stage: str
    name: str
    clips: int
    a: float
    b: float
    worst: list[Worse]


@dataclass(slots=True)
class Comparison:
    """Gathers the clips that differ; memory is two numbers a clip and metric.

    Args:
        results: clips and stages whose results differ.
        alone: by stage, how many clips only the first and only the second run has.
    """

    results: int = 0
    alone: dict[str, tuple[int, int]] = field(default_factory=dict)
    _values: dict[tuple[str, str], tuple[list[float], list[float]]] = field(default_factory=dict)
    _worst: dict[tuple[str, str], list[tuple[float, int, Worse]]] = field(default_factory=dict)
    _order: Iterator[int] = field(default_factory=count)

    def add(self, clip: ClipDifference) -> None:
        """One clip whose result is not the same."""
        self.results += 1
        sides = [any(getattr(m, side) is not None for m in clip.metrics) for side in ("a", "b")]
        if sides in ([True, False], [False, True]):
            in_a, in_b = self.alone.get(clip.stage, (0, 0))
            self.alone[clip.stage] = in_a + sides[0], in_b + sides[1]
            return
        for metric in clip.metrics:
            if metric.a is not None and metric.b is not None:
                self._measure(clip, metric.name, float(metric.a), float(metric.b))

    def _measure(self, clip: ClipDifference, name: str, a: float, b: float) -> None:
        of_a, of_b = self._values.setdefault((clip.stage, name), ([], []))
        of_a.append(a)
        of_b.append(b)
        direction = _direction(clip.stage, name)
        worse = (b - a) * direction if direction else abs(b - a)
        if worse > 0:
            kept = self._worst.setdefault((clip.stage, name), [])
            heapq.heappush(kept, (worse, next(self._order), Worse(clip.video_id, clip.clip_id, a, b)))
            if len(kept) > MOST_WORST:
                heapq.heappop(kept)

    def metrics(self) -> Iterator[MetricDifference]:
        """The metrics that differ, by stage."""
        for (stage, name), (of_a, of_b) in self._values.items():
            worst = [clip for _, _, clip in sorted(self._worst.get((stage, name), []), reverse=True)]
            yield MetricDifference(stage, name, len(of_a), median(of_a), median(of_b), worst)


def _direction(stage: str, name: str) -> int:
    """1 where a higher value of a metric is worse, -1 where a lower one is; 0 where any change may be."""
    bounds = next((m for m in metrics(stage) if m.name == name), None)
    if bounds is None or (bounds.minimum is None) == (bounds.maximum is None):
        return 0
    return 1 if bounds.maximum is not None else -1
