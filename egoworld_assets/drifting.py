"""Compares newer videos of a run with a reference: what the command `drift` prints and the asset `drift` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops.lake import judging
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.reference import Reference

if TYPE_CHECKING:
    from egoworld_ops.query.drift import Report
    from egoworld_ops.settings import Settings


@dataclass(frozen=True, slots=True)
class Seen:
    """What was compared, in words; what came of it; and by stage and metric the clips in which it moved most, with their values."""

    said: str
    report: Report
    worst: Mapping[tuple[str, str], Sequence[tuple[str, str, float | None]]]


def look(run: Run, reference: Reference | None, settings: Settings, last: int | None = None, source: Path | None = None) -> Seen:
    """Compare videos of a run with a reference. What was not measured yet is measured first.

    Args:
        reference: None, or the run itself, stands for the other videos of the run; then `last` is the setting's where nothing else chooses videos.
        last, source: which videos, as `Samples.sides`.

    Raises:
        SetupError: the reference is gone, or a side has no videos.
        StorageUnavailable: a file cannot be read now.
    """
    from egoworld_ops.lake import runs
    from egoworld_ops.query import catalog, drift
    from egoworld_ops.query.samples import Samples

    both = {run, runs.find(run.lake, reference.run_id) if reference else run}
    for each in both:
        judging.of_run(each, {})
    of_itself = reference is None or (reference.run_id == run.run_id and not reference.released)
    if last is None and source is None and of_itself:
        last = settings.drift.last_videos
    with Samples(catalog.write_catalog(run.lake), [each.run_id for each in both]) as samples:
        sides = samples.sides(run.run_id, reference, last or 0, source)
        report = drift.compare(samples.of(sides.reference), samples.of(sides.current), settings.drift)
        worst = {(d.stage, d.metric): samples.worst(sides.current, d) for d in report.drifted}
    return Seen(sides.said, report, worst)
