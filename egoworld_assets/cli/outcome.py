"""What a Dagster run over one video came to, as a table for a terminal: a line a stage, also for those that did not get to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from egoworld_assets.chain import pipeline
from egoworld_ops import operators
from egoworld_ops.contract import schema


def table(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """A line for each stage, in order."""
    done = {name: metadata for event in result.get_asset_materialization_events() for name, metadata in [_metadata(event)]}
    stopped = {str(event.step_key) for event in result.all_events if event.is_step_failure}
    for stage in (pipeline.MANIFEST, *operators.stages()):
        if stage in done:
            yield f"  {stage:<12} {_line(stage, done[stage])}"
            yield from (f"  {'':<12} {line}" for line in _without_value(stage, done[stage]))
        elif stage in stopped:
            yield f"  {stage:<12} stopped: see above"
        else:
            yield f"  {stage:<12} not run: what it needs is not there"


def lacks(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a clip, or the video itself, failed or was blocked in some stage."""
    states = [f"{unit} {state}" for unit in ("videos", "clips") for state in ("failed", "blocked")]
    return any(metadata.get(state) for _, metadata in map(_metadata, result.get_asset_materialization_events()) for state in states)


def _metadata(event: dg.DagsterEvent) -> tuple[str, dict[str, Any]]:
    done = event.step_materialization_data.materialization
    return done.asset_key.to_user_string(), {name: entry.value for name, entry in done.metadata.items()}


def _line(stage: str, metadata: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{n} {name}" for name, n in metadata.items() if name.startswith(("clips ", "videos ")) and n)
    return f"{metadata['dagster/row_count']:>7} rows  {metadata['seconds']:>8.2f} s  {counts}"


def _without_value(stage: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    """What is to be said of rows without a value: how many there are, why, and the cure of the most frequent reason."""
    rows, missing = _reasons(Path(metadata["folder"]), stage)
    if missing:
        reason, n = missing.most_common(1)[0]
        yield f"{rows - missing.total()} of {rows} rows with a value; {n} without: {reason}"


def _reasons(folder: Path, stage: str) -> tuple[int, Counter[str]]:
    """Rows of a stage in a video's folder, and why values are missing in how many."""
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    rows = 0
    if "reason" in (column.name for column in schema.table(stage).columns) if stage != pipeline.MANIFEST else False:
        for path in sorted(folder.glob(f"clip_id=*/{stage}.parquet")):
            reasons = pq.read_table(path, columns=["reason"])["reason"].to_pylist()
            rows += len(reasons)
            found.update(reason for reason in reasons if reason)
    return rows, found
