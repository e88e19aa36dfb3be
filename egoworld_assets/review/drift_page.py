"""Which metrics of a run have moved against a reference: what `egoworld drift` says, of what was measured."""

from __future__ import annotations

import threading
from typing import Any

import duckdb
from starlette.requests import Request
from starlette.responses import Response

from egoworld_assets.review.asked import Asked, NotThere
from egoworld_assets.review.clip_list import clip_address
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops.errors import SetupError, StorageUnavailable
from egoworld_ops.lake import reference, runs
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.reference import Reference
from egoworld_ops.query import looking
from egoworld_ops.query.looking import Seen
from egoworld_ops.query.views import FILE_NAME

ITSELF, KEPT = "the other videos of this run", "the reference"
MOST_VIDEOS = 100_000
_OUTDATED = ("No files found that match", "not a valid DuckDB database")
"""How DuckDB words what a new catalog mends among its errors of input and output."""
_alone = threading.Lock()
"""One comparison at a time: each reads the metrics of two runs."""


def drift_page(request: Request) -> Response:
    """Metrics that have drifted, the strongest first, with the clips in which most."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    asked = Asked(request.url.path, request.query_params)
    kept = reference.read(shown.lake.root)
    against = asked.text("against")
    chosen = _chosen(shown.lake, against, kept)
    last = asked.number("last", 0, 0, MOST_VIDEOS)
    seen, trouble = None, ""
    try:
        seen = _look(shown, run, chosen, last)
    except SetupError as error:
        trouble = str(error)
    values: dict[str, Any] = {
        "seen": seen,
        "trouble": trouble,
        "last": last,
        "kept": kept,
        "chosen": chosen,
        "against": against if against not in ("", KEPT) else KEPT if kept else ITSELF,
        "sides": [*([KEPT] if kept else []), ITSELF],
        "drift": shown.drift,
    }
    others = [each.run_id for each in shown.lake.runs() if each != run]
    return page("drift", address=clip_address, others=others, asked=asked, **values, **shown.common(request, run, index))


def _chosen(lake: Lake, named: str, kept: Reference | None) -> Reference | None:
    """What is compared with: the run that is named, else what a person chose, else the other videos of the run."""
    if named in ("", KEPT, ITSELF):
        return None if named == ITSELF else kept
    try:
        return Reference(runs.find(lake, named).run_id)
    except SetupError as error:
        raise NotThere(error.culprit, error.reason, error.cure) from error


def _look(shown: Shown, run: Run, chosen: Reference | None, last: int) -> Seen:
    """The comparison.

    Raises:
        SetupError: there is nothing to compare, or no catalog to read it from.
        StorageUnavailable: the catalog, or a file that it names, cannot be read now.
    """
    place = shown.lake.root / FILE_NAME
    if not place.is_file():
        raise SetupError(place, "is not there yet", f"`egoworld drift {run.run_id}` measures what is not measured, and makes it")
    try:
        with _alone:
            return looking.look(place, run, chosen, shown.drift, last or None)
    except duckdb.Error as error:
        reason = " ".join(str(error).partition("LINE 1:")[0].split())
        if isinstance(error, duckdb.IOException) and not any(words in reason for words in _OUTDATED):
            raise StorageUnavailable(
                place, f"cannot be read: {reason}", "Free or restore the storage, then load this page again"
            ) from error
        raise SetupError(place, f"cannot be asked: {reason}", f"`egoworld drift {run.run_id}` makes it anew") from error
