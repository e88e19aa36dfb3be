"""How the metrics of a run are distributed over its clips, and beside it those of another run: a page of bars, a stage at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    others = [each.run_id for each in shown.lake.runs() if each != run]
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
    known = [_ranges(stage, index) for index in indexes]
    ends = {metric.name: _ends([of_run[metric.name] for of_run in known if metric.name in of_run]) for metric in quality.metrics(stage)}
    counted = [_counts(stage, index, of_run, ends) for index, of_run in zip(indexes, known, strict=True)]
    made = []
    for metric in quality.metrics(stage):
        name, rows = metric.name, [of_run.get(metric.name) for of_run in known]
        if any(rows):
            bars = tuple(Bars(counts[name], row["n"], row["median"]) if row else None for counts, row in zip(counted, rows, strict=True))
            bounded = quality.bounded(metric, indexes[0].bounds.get(stage, {}).get(name))
            over = "clips" if any(row and row["of_clips"] for row in rows) else "videos"
            made.append(Distribution(name, metric.doc, over, *ends[name], bars, bounded.minimum, bounded.maximum))
    return made


def _ranges(stage: str, index: Index) -> dict[str, dict[str, Any]]:
    """Of each metric the ends of nearly all of its values, their median and number; of its clips where any has one, else of videos."""
    asked = f"""SELECT metric, clip_id <> '' AS of_clips, quantile_cont(value, [{_TAIL}, 0.5, {1 - _TAIL}]) AS at, count(*) AS n
        FROM metrics WHERE stage = $stage AND isfinite(value) GROUP BY ALL ORDER BY of_clips"""
    return {
        row["metric"]: row | dict(zip(("low", "median", "high"), row["at"], strict=True)) for row in index.rows(asked, {"stage": stage})
    }


def _ends(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The range of the bars: that of all runs, or around their one value."""
    low, high = min((row["low"] for row in rows), default=0.0), max((row["high"] for row in rows), default=0.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _counts(
    stage: str, index: Index, known: Mapping[str, Mapping[str, Any]], ends: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[int, ...]]:
    """How many values lie in each bar, by metric."""
    names = [name for name in known if name in ends]
    given = {"names": names, "clips": [known[name]["of_clips"] for name in names]}
    given |= {"lows": [ends[name][0] for name in names], "highs": [ends[name][1] for name in names]}
    asked = f"""SELECT metric, least(greatest(floor((value - low) / (high - low) * {N_BINS}), 0), {N_BINS - 1})::INT AS bin, count(*) AS n
        FROM metrics JOIN (SELECT unnest($names) AS metric, unnest($clips) AS of_clips, unnest($lows) AS low, unnest($highs) AS high) USING (metric)
        WHERE stage = $stage AND isfinite(value) AND (clip_id <> '') = of_clips GROUP BY ALL"""
    counted: dict[str, list[int]] = {name: [0] * N_BINS for name in names}
    for row in index.rows(asked, {"stage": stage, **given}) if names else ():
        counted[row["metric"]][row["bin"]] = row["n"]
    return {name: tuple(counts) for name, counts in counted.items()}
