"""Compares newer videos of a run with a reference: what the command `drift` prints and the asset `drift` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops.lake import judging
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.reference import Reference

if TYPE_CHECKING:
    from egoworld_ops.query.looking import Seen
    from egoworld_ops.settings import Settings


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
    from egoworld_ops.query import catalog, looking

    for each in {run, runs.find(run.lake, reference.run_id) if reference else run}:
        judging.of_run(each, {})
    return looking.look(catalog.write_catalog(run.lake), run, reference, settings.drift, last, source)
