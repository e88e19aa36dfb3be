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
        sql: an aggregate over the rows of the stage; null where nothing can be said.
        minimum, maximum: outside of these the metric warns.
        table: whose rows `sql` is over, where that is not the stage's own table.
        cure: what a person can do where it warns.
    """

    name: str
    sql: str
    doc: str
    minimum: float | None = None
    maximum: float | None = None
    table: str = ""
    cure: str = ""

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


METRIC_SHARE = Metric(
    "metric_share",
    "avg(metric::INT)",
    "rows whose lengths are metric: in the others the camera's focal length is an assumption, and so is every distance",
    minimum=1.0,
    cure=schema.INTRINSICS_CURE,
)
"""Of each stage that solves poses in the camera's frame."""

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


def measure(connection: duckdb.DuckDBPyConnection, stage: str, files: Sequence[Path], table: str = "") -> dict[str, float | None]:
    """The metrics of a stage over the rows of `files`, by name; all None where there are no rows.

    Args:
        table: that the files hold, where it is not the stage's own.
    """
    wanted = [m for m in metrics(stage) if m.table == table]
    if not files or not wanted:
        return {m.name: None for m in wanted}
    select = ", ".join(f"{m.sql} AS {m.name}" for m in wanted)
    query = f"SELECT {select} FROM read_parquet($files, hive_partitioning = false)"
    row = connection.execute(query, {"files": [glob.escape(str(f)) for f in files]}).fetchall()[0]
    return {m.name: None if value is None else float(value) for m, value in zip(wanted, row, strict=True)}


def count_values(connection: duckdb.DuckDBPyConnection, stage: str, files: Sequence[Path]) -> Values:
    """Rows of `files`, and why some have no value; all rows have one where the table has no column that says why not."""
    reason = REASON if any(c.name == REASON for c in schema.table(stage).columns) else "NULL"
    if not files:
        return Values()
    query = f"SELECT {reason}, count(*) FROM read_parquet($files, hive_partitioning = false) GROUP BY 1 ORDER BY 1"
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
