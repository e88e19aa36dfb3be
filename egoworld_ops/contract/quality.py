"""Quality metrics of the data, per video and stage, in SQL, and whether they are within their bounds. Nothing about speed or state."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import gathered, grouped, schema, sketch
from egoworld_ops.contract.values import REASON, Values
from egoworld_ops.section import Section

if TYPE_CHECKING:
    import duckdb


class Bounds(Section):
    """Bounds of a quality metric: outside of them it warns. A bound that is not given keeps its default."""

    minimum: float | None = None
    maximum: float | None = None


HOLD_GAP_S = 0.5
"""A hold ends where its object has no row for longer: in view `holds` as in what is plotted."""
_SUBQUERY = re.compile(r"\bselect\b", re.IGNORECASE)


class DriftSettings(Section):
    """When a metric of newer videos has drifted from older ones. Part of no digest."""

    p: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Largest p, corrected for the number of metrics."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Smallest share of the videos that must have moved."""
    psi: Annotated[float, Field(ge=0)] = 0.2
    """Smallest population stability index; 0.2 is the usual mark of a real change."""
    minimum_videos: Annotated[int, Field(ge=5)] = 20
    """On each side; with fewer nothing is said."""
    last_videos: Annotated[int, Field(ge=1)] = 200
    """How many of the last videos of a run are compared with those before them, where nobody chose a reference."""


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

    @property
    def frames(self) -> int:
        """How many they are."""
        return -(-self.end // self.stride) - -(-self.start // self.stride)


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


@dataclass(frozen=True, slots=True)
class Group:
    """Files of a stage that are measured together: those of a video, or that of one clip.

    Args:
        files: one a clip.
        spans: which frames of each clip were processed; without them a metric over frames is None.
    """

    files: Sequence[Path]
    spans: Sequence[Span] = ()


Groups = Mapping[str, Group]
"""By a name of the caller's choice. A file may be in several."""


def measure(
    connection: duckdb.DuckDBPyConnection, stage: str, files: Sequence[Path], table: str = "", spans: Sequence[Span] = ()
) -> dict[str, float | None]:
    """The metrics of a stage over the rows of `files`, by name; all None where there are no files. As `measure_groups` of one group."""
    return measure_groups(connection, stage, {"": Group(files, spans)}, table)[""]


def measure_groups(
    connection: duckdb.DuckDBPyConnection, stage: str, groups: Groups, table: str = ""
) -> dict[str, dict[str, float | None]]:
    """The metrics of a stage over the rows of each group, by group and name, in one query; all None where a group has no files.

    Args:
        table: that the files hold, where it is not the stage's own.
    """
    wanted = [m for m in metrics(stage) if m.table == table]
    measured: dict[str, dict[str, float | None]] = {key: dict.fromkeys(m.name for m in wanted) for key in groups}
    alone = [m for m in wanted if not m.beside and not _SUBQUERY.search(m.sql)]
    there = {key: _there(group.files) for key, group in groups.items()}
    if alone and any(there.values()):
        for key, values in grouped.aggregated(connection, [f"({m.sql})::DOUBLE" for m in alone], there).items():
            measured[key] |= dict(zip((m.name for m in alone), values, strict=True))
    _measure_with_others(connection, [m for m in wanted if m not in alone], groups, there, measured)
    return measured


def _measure_with_others(
    connection: duckdb.DuckDBPyConnection,
    wanted: Sequence[Metric],
    groups: Groups,
    there: Mapping[str, Sequence[str]],
    measured: dict[str, dict[str, float | None]],
) -> None:
    """Note the metrics that read other relations of the same group than its rows: what was processed, and tables beside."""
    beside = {
        name: {key: _there([f.with_name(f"{name}.parquet") for f in group.files]) for key, group in groups.items()}
        for name in sorted({name for m in wanted for name in m.beside})
    }
    able = [m for m in wanted if all(any(beside[name].values()) for name in m.beside)]
    if not able or not any(there.values()):
        return
    query = grouped.Grouped({"files": there, **beside})
    of_group = [f"{name} AS (SELECT * FROM all_{name} AS f WHERE f.group_key = g.group_key)" for name in beside]
    of_group.append("processed AS (SELECT * FROM all_processed AS f WHERE f.group_key = g.group_key)")
    asked_for = ", ".join(["count(*)", *(f"({m.sql})::DOUBLE" for m in able)])  # one row, also where no metric is an aggregate
    one = f"WITH {', '.join(of_group)} SELECT {asked_for} FROM all_files AS r WHERE r.group_key = g.group_key"
    spans = [(key, span.clip_id, frames) for key, group in groups.items() for span, frames in _new_frames(group.spans)]
    keys, clips, frames = (list(column) for column in zip(*spans, strict=True)) if spans else ([], [], [])
    processed = (
        "SELECT unnest($processed_keys::INT[]) AS group_key, unnest($clips::VARCHAR[]) AS clip_id, unnest($frames::BIGINT[]) AS frames"
    )
    number = query.number
    asked = {"asked": [number[key] for key, files in there.items() if files], "processed_keys": [number[key] for key in keys]}
    asked |= {"clips": clips, "frames": frames}
    found = query.run(
        connection,
        f"SELECT g.group_key, l.* FROM (SELECT unnest($asked::INT[]) AS group_key) AS g, LATERAL ({one}) AS l",
        asked,
        [f"all_processed AS ({processed})"],
    )
    for key, _, *values in found:
        for metric, value in zip(able, values, strict=True):
            if all(beside[name][key] for name in metric.beside):
                measured[key][metric.name] = value


def columns(stage: str) -> tuple[str, ...]:
    """The columns of a stage's table whose distributions are kept: its own numbers, without times, quaternions and the camera's."""
    common = {c.name for c in (*schema.INTRINSICS, *schema.pose("", ""))} - {"z_m"}
    known = gathered.stages().get(stage)
    own = known.table.columns if known else ()
    return tuple(c.name for c in own if pa.types.is_floating(c.type) and c.name != "timestamp_s" and c.name not in common)


def distributions(connection: duckdb.DuckDBPyConnection, stage: str, groups: Groups) -> dict[str, dict[str, tuple[float, dict[int, int]]]]:
    """By group and column, of those in which a row has a number: the mean of the numbers, and their sketch."""
    names, there = columns(stage), {key: _there(group.files) for key, group in groups.items()}
    found: dict[str, dict[str, tuple[float, dict[int, int]]]] = {key: {} for key in groups}
    if not names or not any(there.values()):
        return found
    pairs = ", ".join(f"{{'column': {n}, 'value': {name}::DOUBLE}}" for n, name in enumerate(names))
    numbers = f"SELECT group_key, unnest([{pairs}], recursive := true) FROM all_files"
    bucket = sketch.BUCKET.format("value")
    counted = (
        f'SELECT group_key, "column", {bucket} AS bucket, count(*) AS n, sum(value) AS total '
        f"FROM ({numbers}) WHERE isfinite(value) GROUP BY ALL"
    )
    of_bucket = "map(list(bucket ORDER BY bucket), list(n ORDER BY bucket))"
    query = f'SELECT group_key, "column", sum(total) / sum(n), {of_bucket} FROM ({counted}) GROUP BY ALL'
    for key, column, mean, buckets in grouped.Grouped({"files": there}).run(connection, query):
        found[key][names[column]] = mean, buckets
    return found


def _there(files: Sequence[Path]) -> list[str]:
    """The files that exist."""
    return [str(f) for f in files if f.exists()]


def _new_frames(spans: Sequence[Span]) -> list[tuple[Span, int]]:
    """How many processed frames of each clip are in none of an earlier place in the video."""
    found, done = [], 0
    for span in sorted(spans, key=lambda s: s.start):
        found.append((span, max(replace(span, start=max(span.start, done)).frames, 0)))
        done = max(done, span.end)
    return found


def count_values(connection: duckdb.DuckDBPyConnection, stage: str, groups: Groups) -> dict[str, Values]:
    """By group its rows, and why some have no value; all rows have one where the table has no column that says why not."""
    reason = REASON if any(c.name == REASON for c in schema.table(stage).columns) else "NULL"
    there = {key: _there(group.files) for key, group in groups.items()}
    counted = dict.fromkeys(groups, Values())
    if any(there.values()):
        query = f"SELECT group_key, {reason}, count(*) FROM all_files GROUP BY ALL ORDER BY ALL"
        for key, why, n in grouped.Grouped({"files": there}).run(connection, query):
            counted[key] += Values(n, Counter({} if why is None else {why: n}))
    return counted


def verdicts(stage: str, measured: Mapping[str, float | None], bounds: Mapping[str, Bounds]) -> list[str]:
    """Everything that is wrong with the metrics of a stage, one sentence each.

    Args:
        bounds: of the settings, by metric; they win over the metric's own.
    """
    return [said for m in metrics(stage) if (said := bounded(m, bounds.get(m.name)).verdict(measured[m.name]))]


def bounded(metric: Metric, bounds: Bounds | None) -> Metric:
    """The metric with the bounds of the settings in the place of its own, where they have any."""
    given = {} if bounds is None else {name: value for name, value in bounds.model_dump().items() if value is not None}
    return replace(metric, **given)
