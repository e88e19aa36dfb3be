"""What the quality metrics say of a video of a run. The one place that checks, commands and comparisons ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops import operators
from egoworld_ops.contract import quality, schema
from egoworld_ops.contract.quality import Group, Span
from egoworld_ops.contract.values import Values
from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.files.tables import provenance_at, read_table
from egoworld_ops.files.whole import matching, named_errors
from egoworld_ops.lake import counted, measured, metrics
from egoworld_ops.lake.lake import VIDEO_TABLES, Run
from egoworld_ops.lake.measured import Measured
from egoworld_ops.lake.metrics import Numbers
from egoworld_ops.lake.states import MANIFEST, video_ids

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from egoworld_ops.contract.quality import Bounds


VALUES = "rows with a value that stands"
"""The warning of a stage none of whose rows has one begins so."""
_TOGETHER = counted.REMEMBERED
"""Videos that are measured by one query: as many as are gone through stage by stage without reading what counts of one again."""


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


def judge_videos(
    connection: DuckDBPyConnection, run: Run, stage: str, videos: Sequence[str], bounds: Mapping[str, Bounds]
) -> dict[str, Judged]:
    """What the rows of one stage, `manifest` included, that count say of each of these videos.

    What was measured is kept, see `measured.py` and `metrics.py`; bounds are not.

    Args:
        bounds: of the settings, by metric.

    Raises:
        StorageUnavailable: a file cannot be read now.
    """
    known: dict[str, Measured] = {}
    unknown: dict[str, _Found] = {}
    for video_id in videos:
        found = files_that_count(run, stage, video_id)
        digest = measured.digest_of(stage, list(found))
        there = provenance_at(run.video_table(metrics.TABLE, video_id)) is not None
        if there and (recalled := measured.recall(run.video_folder(video_id), stage, digest)) is not None:
            known[video_id] = recalled
        else:
            unknown[video_id] = _Found(found, spans(list(found)), digest)
    for start in range(0, len(unknown), _TOGETHER):
        part = dict(islice(unknown.items(), start, start + _TOGETHER))
        known |= _measure_videos(connection, run, stage, part)
    return {
        v: Judged(m.metrics, [*quality.verdicts(stage, m.metrics, bounds), *m.odd], m.values, m.assumed)
        for v, m in ((v, known[v]) for v in videos)
    }


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
        videos, stages = video_ids(run), (MANIFEST, *operators.stages())
        for part in (videos[at : at + _TOGETHER] for at in range(0, len(videos), _TOGETHER)):
            by_stage = {stage: judge_videos(connection, run, stage, part, bounds.get(stage, {})) for stage in stages}
            for video_id in part:
                judged = {stage: by_stage[stage][video_id] for stage in stages}
                for stage, of_stage in judged.items():
                    for warning in without_lengths(of_stage.warnings):
                        said.setdefault((stage, warning.partition(" ")[0]), []).append((video_id, warning))
                if any(of_stage.assumed for of_stage in judged.values()):
                    assumed.append(video_id)
    warned = [Warned(stage, of_metric[0][1], [video_id for video_id, _ in of_metric]) for (stage, _), of_metric in said.items()]
    return RunJudged(warned, assumed)


@dataclass(frozen=True, slots=True)
class _Found:
    """The files of a stage of a video with the table each holds, the processed frames of its clips, and what all that depends on."""

    files: Mapping[Path, str]
    spans: Sequence[Span]
    digest: str

    @property
    def whole(self) -> Group:
        return Group(list(self.files), self.spans)

    @property
    def clips(self) -> dict[str, Group]:
        by_clip = {path.parent.name.removeprefix("clip_id="): path for path in self.files}
        return {span.clip_id: Group([by_clip[span.clip_id]], [span]) for span in self.spans}


def _measure_videos(connection: DuckDBPyConnection, run: Run, stage: str, found: Mapping[str, _Found]) -> dict[str, Measured]:
    """What the files of a stage say of each video, without any bounds; measured together and noted."""
    numbers, known = _numbers(connection, stage, found), {}
    valued = {} if stage == MANIFEST else quality.count_values(connection, stage, {v: of.whole for v, of in found.items()})
    for video_id, of in found.items():
        known[video_id] = _said(stage, of, numbers[video_id].whole, valued.get(video_id))
        if not run.video_folder(video_id).is_dir():
            continue
        with suppress(StorageUnavailable, PermissionError):  # of a lake that cannot be written to
            metrics.write(run, video_id, stage, list(of.files), of.spans, numbers[video_id])
            measured.keep(run.video_folder(video_id), stage, of.digest, known[video_id])
    return known


def _numbers(connection: DuckDBPyConnection, stage: str, found: Mapping[str, _Found]) -> dict[str, Numbers]:
    if stage == MANIFEST:
        of_tables = [
            quality.measure_groups(
                connection, stage, {v: Group([p for p, t in of.files.items() if t == table]) for v, of in found.items()}, table
            )
            for table in VIDEO_TABLES
        ]
        return {v: Numbers({name: value for of in of_tables for name, value in of[v].items()}, {}, {}) for v in found}
    whole = {v: of.whole for v, of in found.items()}
    clips = {f"{v}/{clip_id}": group for v, of in found.items() for clip_id, group in of.clips.items()}
    of_groups = quality.measure_groups(connection, stage, whole | clips)
    columns = quality.distributions(connection, stage, whole)
    return {v: Numbers(of_groups[v], {clip_id: of_groups[f"{v}/{clip_id}"] for clip_id in of.clips}, columns[v]) for v, of in found.items()}


def _said(stage: str, found: _Found, metrics: Mapping[str, float | None], valued: Values | None) -> Measured:
    from egoworld_ops.lake.assumed import has_assumed

    if valued is None:
        return Measured(metrics, _oddities(found.files), "", False)
    values = valued.said(stage)
    odd = [f"{VALUES}: {values}"] if valued.rows and not valued.with_value else []
    return Measured(metrics, odd, values, any(has_assumed(path, stage) for path in found.files))


def _oddities(found: Mapping[Path, str]) -> list[str]:
    """Those of a video that can be used, as its manifest names them."""
    [videos] = [read_table(path, table) for path, table in found.items() if table == "videos"] or [schema.empty("videos")]
    return [f"{video['path']}: {video['warning']}" for video in videos.to_pylist() if video["warning"]]
