"""What the quality metrics say of a video of a run. The one place that checks, commands and comparisons ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops import operators
from egoworld_ops.contract import quality, schema
from egoworld_ops.contract.quality import Span
from egoworld_ops.files.tables import provenance_at, read_table
from egoworld_ops.files.whole import named_errors
from egoworld_ops.lake.lake import VIDEO_TABLES, Run
from egoworld_ops.lake.states import MANIFEST, video_ids

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from egoworld_ops.contract.quality import Bounds


@dataclass(frozen=True, slots=True)
class Judged:
    """The metrics of one stage of a video, by name, and what is wrong with them, one sentence each."""

    measured: Mapping[str, float | None]
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True)
class Warned:
    """A metric that warns of videos of a run: the sentence on one of them, and all of them."""

    stage: str
    said: str
    videos: Sequence[str]


def files(run: Run, stage: str, video_id: str) -> dict[Path, str]:
    """The files of a stage for a video, and the table each holds.

    Raises:
        StorageUnavailable: the folder cannot be read now.
    """
    with named_errors(run.video_folder(video_id)):
        if stage == MANIFEST:
            return {path: t for t in VIDEO_TABLES if (path := run.video_table(t, video_id)).exists()}
        return dict.fromkeys(sorted(run.video_folder(video_id).glob(f"clip_id=*/{stage}.parquet")), stage)


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
    """What one stage, `manifest` included, says of a video.

    Args:
        bounds: of the settings, by metric.

    Raises:
        StorageUnavailable: a file cannot be read now.
    """
    found = files(run, stage, video_id)
    if stage != MANIFEST:
        measured = measure(connection, stage, list(found))
        return Judged(measured, quality.verdicts(stage, measured, bounds))
    measured = {}
    for table in VIDEO_TABLES:
        measured |= quality.measure(connection, stage, [p for p, t in found.items() if t == table], table)
    return Judged(measured, [*quality.verdicts(stage, measured, bounds), *_oddities(found)])


def of_run(run: Run, bounds: Mapping[str, Mapping[str, Bounds]]) -> Iterator[Warned]:
    """The warnings of all videos of a run, those of one metric together.

    Args:
        bounds: of the settings, by stage and metric.

    Raises:
        StorageUnavailable: a file cannot be read now.
    """
    import duckdb

    said: dict[tuple[str, str], list[tuple[str, str]]] = {}
    with duckdb.connect(":memory:") as connection:
        for video_id in video_ids(run):
            for stage in (MANIFEST, *operators.stages()):
                for warning in judge(connection, run, stage, video_id, bounds.get(stage, {})).warnings:
                    said.setdefault((stage, warning.partition(" ")[0]), []).append((video_id, warning))
    for (stage, _), of_metric in said.items():
        yield Warned(stage, of_metric[0][1], [video_id for video_id, _ in of_metric])


def _oddities(found: Mapping[Path, str]) -> list[str]:
    """Those of a video that can be used, as its manifest names them."""
    [videos] = [read_table(path, table) for path, table in found.items() if table == "videos"] or [schema.empty("videos")]
    return [f"{video['path']}: {video['warning']}" for video in videos.to_pylist() if video["warning"]]
