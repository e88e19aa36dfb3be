"""How the metrics of a run are distributed over its clips, and beside it those of another run: a page of bars, a stage at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from egoworld_assets.review.asked import Asked, NotThere
from egoworld_assets.review.index import Index
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops import operators
from egoworld_ops.contract import quality
from egoworld_ops.errors import SetupError
from egoworld_ops.lake import reference, runs
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import MANIFEST

N_BINS = 32
_TAIL = 0.005
"""Share of the values at each end that may lie in the outermost bars, whose range is then wider."""
_UNIT = "CASE WHEN bool_or(clip_id <> '') OVER (PARTITION BY metric) THEN clip_id <> '' ELSE true END"
"""Which rows count: those of clips where a metric has any, else those of videos."""


@dataclass(frozen=True, slots=True)
class Bars:
    """One run's values of a metric.

    Args:
        counts: how many lie in each of the bars of the plot.
        n: how many there are.
        median: of all.
    """

    counts: tuple[int, ...]
    n: int
    median: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """A metric of a stage, over clips or videos.

    Args:
        low, high: range of the bars; the outermost take what lies beyond.
        of: the runs that are shown, in order; None for one that has no value.
        minimum, maximum: beyond which the metric warns.
    """

    name: str
    doc: str
    over: str
    low: float
    high: float
    of: tuple[Bars | None, ...]
    minimum: float | None
    maximum: float | None

    @property
    def most(self) -> float:
        """The largest share of its run's values that a bar has."""
        return max((max(bars.counts) / bars.n for bars in self.of if bars), default=1.0)

    def place(self, value: float | None) -> float | None:
        """Where a value stands between the ends of the plot, as a share; None where it is beyond, or there is none."""
        if value is None or not self.low <= value <= self.high:
            return None
        return (value - self.low) / (self.high - self.low)


def metrics_page(request: Request) -> Response:
    """Bars of each metric of a stage."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    asked = Asked(request.url.path, request.query_params)
    stages = [stage for stage in (MANIFEST, *operators.stages()) if quality.metrics(stage)]
    stage = asked.one_of("stage", tuple(stages), "hand_pose")
    other = _other(shown, run, asked)
    indexes = [index, *([shown.index(request, other)] if other else [])]
    others = [each.run_id for each in reversed(shown.lake.runs()) if each != run]
    values: dict[str, Any] = {"plots": of_stage(stage, indexes), "stages": stages, "stage": stage, "other": other, "others": others}
    return page("metrics", asked=asked, **values, **shown.common(request, run, index))


def _other(shown: Shown, run: Run, asked: Asked) -> Run | None:
    """The run to be shown beside one: that of the address, else the reference that a person chose for drift; none where that is the run itself."""
    if not (named := asked.text("against")):
        chosen = reference.read(shown.lake.root)
        return next((each for each in shown.lake.runs() if chosen and each.run_id == chosen.run_id and each != run), None)
    if named in ("none", run.run_id):
        return None
    try:
        return runs.find(shown.lake, named)
    except SetupError as error:
        raise NotThere(error.culprit, error.reason, error.cure) from error


def of_stage(stage: str, indexes: Sequence[Index]) -> list[Distribution]:
    """The distributions of a stage's metrics in some runs; metrics that none has are left out."""
    ranges = [_ranges(stage, index) for index in indexes]
    made = []
    for metric in quality.metrics(stage):
        found = [of_run[metric.name] for of_run in ranges if metric.name in of_run]
        if not found:
            continue
        low, high = min(row["low"] for row in found), max(row["high"] for row in found)
        low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
        bars = tuple(
            _bars(stage, metric.name, index, of_run.get(metric.name), low, high) for index, of_run in zip(indexes, ranges, strict=True)
        )
        bounded = quality.bounded(metric, indexes[0].bounds.get(stage, {}).get(metric.name))
        over = "clips" if any(row["of_clips"] for row in found) else "videos"
        made.append(Distribution(metric.name, metric.doc, over, low, high, bars, bounded.minimum, bounded.maximum))
    return made


def _ranges(stage: str, index: Index) -> dict[str, dict[str, Any]]:
    asked = f"""SELECT metric, quantile_cont(value, {_TAIL}) AS low, quantile_cont(value, {1 - _TAIL}) AS high, median(value) AS median,
        count(*) AS n, bool_or(clip_id <> '') AS of_clips
        FROM (SELECT * FROM metrics WHERE stage = $stage AND isfinite(value) QUALIFY {_UNIT}) GROUP BY metric"""
    return {row["metric"]: row for row in index.rows(asked, {"stage": stage})}


def _bars(stage: str, name: str, index: Index, known: dict[str, Any] | None, low: float, high: float) -> Bars | None:
    if known is None:
        return None
    asked = f"""SELECT least(greatest(floor((value - $low) / ($high - $low) * {N_BINS}), 0), {N_BINS - 1})::INT AS bin, count(*) AS n
        FROM (SELECT * FROM metrics WHERE stage = $stage AND metric = $name AND isfinite(value) QUALIFY {_UNIT}) GROUP BY bin"""
    counted = {row["bin"]: row["n"] for row in index.rows(asked, {"stage": stage, "name": name, "low": low, "high": high})}
    return Bars(tuple(counted.get(bin_, 0) for bin_ in range(N_BINS)), known["n"], known["median"])
