"""Compares videos of a run with a reference by the metrics that were measured, as the lake's catalog has them. Nothing is measured or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from egoworld_ops.contract.quality import DriftSettings
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.reference import Reference
from egoworld_ops.query import drift
from egoworld_ops.query.drift import Report
from egoworld_ops.query.samples import Samples


@dataclass(frozen=True, slots=True)
class Seen:
    """What was compared, in words; what came of it; and by stage and metric the clips in which it moved most, with their values."""

    said: str
    report: Report
    worst: Mapping[tuple[str, str], Sequence[tuple[str, str, float | None]]]


def look(
    catalog: Path, run: Run, reference: Reference | None, settings: DriftSettings, last: int | None = None, source: Path | None = None
) -> Seen:
    """Compare videos of a run with a reference.

    Args:
        catalog: of the lake, up to date.
        reference: None, or the run itself, stands for the other videos of the run; then `last` is the setting's where nothing else chooses videos.
        last, source: which videos, as `Samples.sides`.

    Raises:
        SetupError: a side has no videos.
    """
    of_itself = reference is None or (reference.run_id == run.run_id and not reference.released)
    if last is None and source is None and of_itself:
        last = settings.last_videos
    with Samples(catalog, {run.run_id, reference.run_id if reference else run.run_id}) as samples:
        sides = samples.sides(run.run_id, reference, last or 0, source)
        report = drift.compare(samples.of(sides.reference), samples.of(sides.current), settings)
        worst = {(d.stage, d.metric): samples.worst(sides.current, d) for d in report.drifted}
    return Seen(sides.said, report, worst)
