"""The outcome of a Dagster run over one video as a table for a terminal: a line per stage, also for stages that did not run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from egoworld_assets.chain import pipeline
from egoworld_assets.console import was_interrupted
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import CURES
from egoworld_ops.lake import judging
from egoworld_ops.lake.assumed import has_assumed
from egoworld_ops.lake.judging import without_lengths
from egoworld_ops.lake.lake import Lake, Run

ERROR = dg.AssetCheckSeverity.ERROR


def table(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """A line for each stage, in order, one for each quality metric that warns, and one where lengths rest on an assumed focal length."""
    done = {name: metadata for event in result.get_asset_materialization_events() for name, metadata in [_metadata(event)]}
    warned = {check.check_name: _findings(check) for check in result.get_asset_check_evaluations() if not check.passed}
    stopped = {str(event.step_key) for event in result.all_events if event.is_step_failure}
    for stage in (pipeline.MANIFEST, *operators.stages()):
        if stage in done:
            yield f"  {stage:<12} {_line(stage, done[stage])}"
            yield from (f"  {'':<12} {line}" for line in _without_value(stage, done[stage]))
            yield from (f"  {'':<12} warning: {said}" for said in warned.get(f"{stage}_quality", ()))
        elif stage in stopped:
            yield f"  {stage:<12} stopped: see above"
        else:
            yield f"  {stage:<12} not run: {'what it needs is not there' if done or stopped else 'the run did not start, see above'}"
    yield from not_metric(done)


def _findings(check: dg.AssetCheckEvaluation) -> list[str]:
    """What a check says is wrong, but for lengths that are not metric and rows without a value, which have lines of their own."""
    said: Any = check.metadata["findings"].value if "findings" in check.metadata else []
    return [line for line in without_lengths(said) if not line.startswith(judging.VALUES)]


def interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether somebody interrupted the run."""
    return any(map(was_interrupted, result.all_events))


def lacks(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a clip, or the video itself, failed or was blocked in some stage, or a check says that something is wrong."""
    said = (metadata.get("status") for _, metadata in map(_metadata, result.get_asset_materialization_events()))
    checks = result.get_asset_check_evaluations()
    return bool({"failed", "incomplete"}.intersection(said)) or any(c.severity == ERROR and not c.passed for c in checks)


def _metadata(event: dg.DagsterEvent) -> tuple[str, dict[str, Any]]:
    done = event.step_materialization_data.materialization
    return done.asset_key.to_user_string(), {name: entry.value for name, entry in done.metadata.items()}


def _line(stage: str, metadata: Mapping[str, Any]) -> str:
    unit = "videos" if stage == pipeline.MANIFEST else "clips"
    counts = re.sub(r"(\d+) ", rf"\1 {unit} ", metadata[unit])
    return f"{metadata['dagster/row_count']:>7} rows  {metadata['seconds']:>8} s  {counts}"


def _without_value(stage: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    """A note on rows without a value: how many rows have one, and the cure of the most frequent kind of reason."""
    rows, missing = _reasons(_that_count(metadata, stage), stage)
    if missing:
        kinds: Counter[str] = Counter()
        for (kind, _), n in missing.items():
            kinds[kind] += n
        kind, n = kinds.most_common(1)[0]
        reason = next(text for (k, text), _ in missing.most_common() if k == kind)
        yield f"{rows - missing.total()} of {rows} rows with a value that stands; {n} {kind}: {reason}. {CURES.get(kind, '')}".rstrip()


def not_metric(done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A warning where lengths of the video rest on an assumed focal length."""
    stages = [stage for stage in operators.stages() if stage in done]
    found = {stage: share for stage in stages if (share := _assumed(_that_count(done[stage], stage), stage)) is not None}
    if found:
        error = max(found.values())
        how_far = f", which may be wrong by {error:.0%} (standard error)" if error else ""
        yield f"  not metric   lengths in {', '.join(found)} rest on an assumed focal length{how_far}. {schema.INTRINSICS_CURE}"


def _that_count(metadata: Mapping[str, Any], stage: str) -> list[Path]:
    """The tables of a stage, in the folder of a video that the metadata names, whose rows count."""
    if "folder" not in metadata or stage == pipeline.MANIFEST:
        return []
    folder = Path(metadata["folder"])
    run = Run(Lake(folder.parent.parent), metadata["run"])
    return list(judging.files_that_count(run, stage, folder.name.removeprefix("video_id=")))


def _assumed(paths: Sequence[Path], stage: str) -> float | None:
    """The standard error of the assumed focal length, as a share of it, 0 where the stage's table does not say; None where none is assumed."""
    import pyarrow.parquet as pq

    if not schema.table(stage).assumed_lengths:
        return None
    errors = []
    for path in paths:
        if has_assumed(path, stage):
            with pq.ParquetFile(path) as file:
                known = "focal_error_share" in file.schema_arrow.names
                errors.append(max(file.read(columns=["focal_error_share"])["focal_error_share"].to_pylist()) if known else 0.0)
    return max(errors, default=None)


def _reasons(paths: Sequence[Path], stage: str) -> tuple[int, Counter[tuple[str, str]]]:
    """Rows in tables of a stage, and how many lack a value, by kind of reason, with an example."""
    import pyarrow.parquet as pq

    found: Counter[tuple[str, str]] = Counter()
    wanted = ["reason", "reason_class"]
    rows = 0
    if paths and set(wanted) <= {column.name for column in schema.table(stage).columns}:
        for path in paths:
            with pq.ParquetFile(path) as file:
                given = file.read(columns=wanted).to_pylist()
            rows += len(given)
            found.update((row["reason_class"], row["reason"]) for row in given if row["reason"])
    return rows, found
