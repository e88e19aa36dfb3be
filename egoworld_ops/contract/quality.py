"""Quality metrics of the data, per video and stage, in SQL, and whether they are within their bounds. Nothing about speed or state."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops.contract import gathered, schema
from egoworld_ops.contract.values import REASON, Values
from egoworld_ops.section import Section

if TYPE_CHECKING:
    import duckdb


class Bounds(Section):
    """Bounds of a quality metric: outside of them it warns. A bound that is not given keeps its default."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about the rows of a stage.

    Args:
        name: with its unit.
        sql: an aggregate over the rows of the stage; null where nothing can be said. It may read, in a subquery, relation `processed`: a row for each
            clip measured, also one without rows, with `clip_id` and `frames`, the number of its processed frames that no clip before it has.
        minimum, maximum: outside of these the metric warns.
        table: whose rows `sql` is over, where that is not the stage's own table.
        cure: what a person can do where it warns.
        beside: other stages whose rows of the same clips `sql` reads in a subquery, each by its name.
    """

    name: str
    sql: str
    doc: str
    minimum: float | None = None
    maximum: float | None = None
    table: str = ""
    cure: str = ""
    beside: tuple[str, ...] = ()

    def verdict(self, value: float | None) -> str | None:
        """What is wrong with the value, and the cure where there is one; None where nothing is."""
        if value is None:
            return None
        said = f"{self.doc}. {self.cure}" if self.cure else self.doc
        if self.minimum is not None and value < self.minimum:
            return f"{self.name} is {value:.3g}, want at least {self.minimum:g}: {said}"
        if self.maximum is not None and value > self.maximum:
            return f"{self.name} is {value:.3g}, want at most {self.maximum:g}: {said}"
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """The frames of a clip that were processed: those in [start, end) whose index is a multiple of the stride."""

    clip_id: str
    start: int
    end: int
    stride: int


METRIC_SHARE = Metric(
    "metric_share",
    "avg(metric::INT)",
    "rows whose lengths are metric: in the others the camera's focal length is an assumption, and so is every distance",
    minimum=1.0,
    cure=schema.INTRINSICS_CURE,
)
"""Of each stage that solves poses in the camera's frame."""


def answered_share(stage: str, where: str = "true") -> Metric:
    """Rows of a stage over those of an earlier one that want one; it warns of a table that is empty where it should not be.

    Args:
        where: condition on the earlier stage's rows, SQL.
    """
    return Metric(
        "answered_share",
        f"count(*) / nullif((SELECT count(*) FROM {stage} WHERE {where}), 0)",
        f"rows over those of {stage} that want one",
        minimum=0.9,
        cure=f"The stage lost them: process it again, or choose another backend; rows of {stage} without one have no answer here",
        beside=(stage,),
    )


_READ = "read_parquet(${}, hive_partitioning = false)"
_MANIFEST = (
    Metric(
        "clip_s_median",
        "median(end_s - start_s)",
        "length of the clips in seconds",
        minimum=0.25,
        table="clips",
        cure="Nothing to do where the video is as short; where it is cut too often, raise scenes.min_scene_s or scenes.threshold",
    ),
    Metric(
        "decoded_share",
        "min(decoded_share)",
        "share of what the file promises that decodes",
        minimum=0.99,
        table="videos",
        cure="What decodes is used; where more should, copy the file from its source again",
    ),
)


def metrics(stage: str) -> tuple[Metric, ...]:
    """The metrics of a stage, as it declares them; none where there is no such stage."""
    if stage == "manifest":
        return _MANIFEST
    known = gathered.stages().get(stage)
    return known.metrics if known else ()


def measure(
    connection: duckdb.DuckDBPyConnection, stage: str, files: Sequence[Path], table: str = "", spans: Sequence[Span] = ()
) -> dict[str, float | None]:
    """The metrics of a stage over the rows of `files`, by name; all None where there are no files.

    Args:
        table: that the files hold, where it is not the stage's own.
        spans: which frames of each file's clip were processed; without them a metric over frames is None.
    """
    wanted = [m for m in metrics(stage) if m.table == table]
    measured: dict[str, float | None] = dict.fromkeys(m.name for m in wanted)
    beside = {name: _there([f.with_name(f"{name}.parquet") for f in files]) for m in wanted for name in m.beside}
    able = [m for m in wanted if all(beside[name] for name in m.beside)]
    if not files or not able:
        return measured
    given = {"files": _there(files), "clips": [s.clip_id for s in spans], "frames": _new_frames(spans), **beside}
    select = ", ".join(f"{m.sql} AS {m.name}" for m in able)
    relations = [f"{name} AS (SELECT * FROM {_READ.format(name)})" for name in beside]
    relations.append("processed AS (SELECT unnest($clips::VARCHAR[]) AS clip_id, unnest($frames::BIGINT[]) AS frames)")
    query = f"WITH {', '.join(relations)} SELECT {select} FROM {_READ.format('files')}"
    row = connection.execute(query, given).fetchall()[0]
    return measured | {m.name: None if value is None else float(value) for m, value in zip(able, row, strict=True)}


def _there(files: Sequence[Path]) -> list[str]:
    """The files that exist, as DuckDB takes them."""
    return [glob.escape(str(f)) for f in files if f.exists()]


def _new_frames(spans: Sequence[Span]) -> list[int]:
    """How many processed frames of each clip are in none of an earlier place in the video."""
    found, done = {}, 0
    for span in sorted(spans, key=lambda s: s.start):
        found[span] = max(-(-span.end // span.stride) - -(-max(span.start, done) // span.stride), 0)
        done = max(done, span.end)
    return [found[span] for span in spans]


def count_values(connection: duckdb.DuckDBPyConnection, stage: str, files: Sequence[Path]) -> Values:
    """Rows of `files`, and why some have no value; all rows have one where the table has no column that says why not."""
    reason = REASON if any(c.name == REASON for c in schema.table(stage).columns) else "NULL"
    if not files:
        return Values()
    query = f"SELECT {reason}, count(*) FROM {_READ.format('files')} GROUP BY 1 ORDER BY 1"
    counted = dict(connection.execute(query, {"files": [glob.escape(str(f)) for f in files]}).fetchall())
    return Values(sum(counted.values()), Counter({why: n for why, n in counted.items() if why is not None}))


def verdicts(stage: str, measured: Mapping[str, float | None], bounds: Mapping[str, Bounds]) -> list[str]:
    """Everything that is wrong with the metrics of a stage, one sentence each.

    Args:
        bounds: of the settings, by metric; they win over the metric's own.
    """
    return [said for m in metrics(stage) if (said := _bounded(m, bounds.get(m.name)).verdict(measured[m.name]))]


def _bounded(metric: Metric, bounds: Bounds | None) -> Metric:
    given = {} if bounds is None else {name: value for name, value in bounds.model_dump().items() if value is not None}
    return replace(metric, **given)
