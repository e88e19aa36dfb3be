"""What the quality metrics say of a video of a run. The one place that checks, commands and comparisons ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops import operators
from egoworld_ops.contract import quality, schema
from egoworld_ops.contract.quality import Span
from egoworld_ops.files.tables import provenance_at, read_table
from egoworld_ops.files.whole import matching, named_errors
from egoworld_ops.lake import counted, measured
from egoworld_ops.lake.lake import VIDEO_TABLES, Run
from egoworld_ops.lake.measured import Measured
from egoworld_ops.lake.states import MANIFEST, video_ids

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from egoworld_ops.contract.quality import Bounds


@dataclass(frozen=True, slots=True)
class Judged:
    """The metrics of one stage of a video, by name, and what is wrong with them, one sentence each.

    Args:
        values: how many rows have a value that stands, in words; empty for stage `manifest`.
        assumed: whether lengths in its rows rest on an assumed focal length.
    """

    measured: Mapping[str, float | None]
    warnings: Sequence[str]
    values: str
    assumed: bool


@dataclass(frozen=True, slots=True)
class Warned:
    """A metric that warns of videos of a run: the sentence on one of them, and all of them."""

    stage: str
    said: str
    videos: Sequence[str]


@dataclass(frozen=True, slots=True)
class RunJudged:
    """What there is to say of a run.

    Args:
        warned: a metric each; none for lengths that are not metric.
        assumed: the videos with lengths that rest on an assumed focal length.
    """

    warned: Sequence[Warned]
    assumed: Sequence[str]


def without_lengths(warnings: Sequence[str]) -> list[str]:
    """Warnings but those of lengths that are not metric: people are told of these once, for all stages."""
    return [said for said in warnings if not said.startswith(f"{quality.METRIC_SHARE.name} ")]


def files(run: Run, stage: str, video_id: str) -> dict[Path, str]:
    """The files of a stage for a video, whether they count or not, and the table each holds.

    Raises:
        StorageUnavailable: the folder cannot be read now.
    """
    with named_errors(run.video_folder(video_id)):
        if stage == MANIFEST:
            return {path: t for t in VIDEO_TABLES if (path := run.video_table(t, video_id)).exists()}
        return dict.fromkeys(matching(run.video_folder(video_id), f"clip_id=*/{stage}.parquet"), stage)


def files_that_count(run: Run, stage: str, video_id: str) -> dict[Path, str]:
    """Those whose rows the views show.

    Raises:
        StorageUnavailable: what counts cannot be told now.
    """
    clip_ids = sorted(clip_id for clip_id, name in counted.that_count(run, video_id) if name == stage)
    if stage == MANIFEST:
        return files(run, stage, video_id) if clip_ids else {}
    return {run.clip_table(stage, video_id, clip_id): stage for clip_id in clip_ids}


def spans(paths: Sequence[Path]) -> list[Span]:
    """Which frames were processed for each of these files of clips, as its footer says; a file that does not say is left out."""
    found = []
    for path in paths:
        identity = (provenance_at(path) or {}).get("identity", {})
        if "frames" in identity and "sample_stride" in identity:
            start, end = identity["frames"]
            found.append(Span(path.parent.name.removeprefix("clip_id="), start, end, identity["sample_stride"]))
    return found


def measure(connection: DuckDBPyConnection, stage: str, paths: Sequence[Path]) -> dict[str, float | None]:
    """The metrics of a stage over some of its clips."""
    return quality.measure(connection, stage, paths, spans=spans(paths))


def judge(connection: DuckDBPyConnection, run: Run, stage: str, video_id: str, bounds: Mapping[str, Bounds]) -> Judged:
    """What the rows of one stage, `manifest` included, that count say of a video. What was measured is kept, see `measured.py`; bounds are not.

    Args:
        bounds: of the settings, by metric.

    Raises:
        StorageUnavailable: a file cannot be read now.
    """
    folder, found = run.video_folder(video_id), files_that_count(run, stage, video_id)
    digest = measured.digest_of(stage, list(found))
    known = measured.recall(folder, stage, digest)
    if known is None:
        known = _looked_at(connection, stage, found)
        measured.keep(folder, stage, digest, known)
    return Judged(known.metrics, [*quality.verdicts(stage, known.metrics, bounds), *known.odd], known.values, known.assumed)


def of_run(run: Run, bounds: Mapping[str, Mapping[str, Bounds]]) -> RunJudged:
    """What all videos of a run warn of, the warnings of one metric together.

    Args:
        bounds: of the settings, by stage and metric.

    Raises:
        StorageUnavailable: a file cannot be read now.
    """
    import duckdb

    said: dict[tuple[str, str], list[tuple[str, str]]] = {}
    assumed = []
    with duckdb.connect(":memory:") as connection:
        for video_id in video_ids(run):
            judged = {s: judge(connection, run, s, video_id, bounds.get(s, {})) for s in (MANIFEST, *operators.stages())}
            for stage, of_stage in judged.items():
                for warning in without_lengths(of_stage.warnings):
                    said.setdefault((stage, warning.partition(" ")[0]), []).append((video_id, warning))
            if any(of_stage.assumed for of_stage in judged.values()):
                assumed.append(video_id)
    warned = [Warned(stage, of_metric[0][1], [video_id for video_id, _ in of_metric]) for (stage, _), of_metric in said.items()]
    return RunJudged(warned, assumed)


def _looked_at(connection: DuckDBPyConnection, stage: str, found: Mapping[Path, str]) -> Measured:
    """What the files of a stage say, without any bounds."""
    from egoworld_ops.lake.assumed import has_assumed

    if stage == MANIFEST:
        metrics: dict[str, float | None] = {}
        for table in VIDEO_TABLES:
            metrics |= quality.measure(connection, stage, [p for p, t in found.items() if t == table], table)
        return Measured(metrics, _oddities(found), "", False)
    valued = quality.count_values(connection, stage, list(found))
    values = valued.said(stage)
    odd = [f"rows with a value that stands: {values}"] if valued.rows and not valued.with_value else []
    return Measured(measure(connection, stage, list(found)), odd, values, any(has_assumed(path, stage) for path in found))


def _oddities(found: Mapping[Path, str]) -> list[str]:
    """Those of a video that can be used, as its manifest names them."""
    [videos] = [read_table(path, table) for path, table in found.items() if table == "videos"] or [schema.empty("videos")]
    return [f"{video['path']}: {video['warning']}" for video in videos.to_pylist() if video["warning"]]
