"""The pages that list: runs and releases, one run, what failed, and what warns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from egoworld_assets.review.asked import Asked, Paging
from egoworld_assets.review.clip_list import STATES
from egoworld_assets.review.index import ENDED, Index
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import EgoworldError
from egoworld_ops.lake import latest, runs
from egoworld_ops.lake.failures import DeadLetter
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import MANIFEST
from egoworld_ops.release import place

_COUNT_STATES = "SELECT stage, state, count(*) AS n FROM states GROUP BY ALL"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: results that count, of all that there should be; seconds to the end at the present rate, None where nothing moves."""

    done: int
    total: int
    eta_s: float | None

    @classmethod
    def of(cls, index: Index) -> Progress:
        """That of the videos gone through so far. A failure is an end too."""
        [row] = index.rows(f"SELECT count(*) FILTER ({ENDED}) AS done, count(*) AS total FROM states")
        rate = index.rate()
        return cls(row["done"], row["total"], (row["total"] - row["done"]) / rate if rate else None)


def home(request: Request) -> Response:
    """Runs and releases; a clear page where there are none."""
    shown: Shown = request.app.state.shown
    store = shown.lake
    known, releases = [], []
    meant = store.latest_run()
    for run in store.runs():
        said, released, trouble = {}, None, ""
        try:
            said, released = runs.described(run), place.read(run)
        except EgoworldError as error:
            trouble = str(error)
        if released is not None:
            releases.append({"run": run, "said": released, "shown": place.shown(store).resolve() == place.folder(run).resolve()})
        known.append({"run": run, "trouble": trouble, "latest": run == meant, "about": About.of(said)})
    pinned = meant is not None and latest.is_pinned(store)
    return page("home", runs=known, releases=releases, pinned=pinned, **shown.common(request))


def run_page(request: Request) -> Response:
    """One run: progress, states by stage, warnings and failures by kind."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    if request.path_params["run_id"] == "latest":
        return RedirectResponse(f"/run/{run.run_id}", 307)
    counted: dict[str, dict[str, int]] = {stage: {} for stage in (MANIFEST, *operators.stages())}
    for row in index.rows(_COUNT_STATES):
        counted.setdefault(row["stage"], {})[row["state"]] = row["n"]
    warnings = index.rows(
        "SELECT stage, metric, count(DISTINCT video_id) AS videos, min(said) AS said FROM warnings GROUP BY ALL ORDER BY videos DESC, stage, metric"
    )
    failures = index.rows(
        "SELECT stage, error_class, count(*) AS n, count(*) FILTER (dead_letter) AS dead, min(reason) AS reason FROM failures "
        "GROUP BY stage, error_class UNION ALL BY NAME SELECT 'manifest' AS stage, error_class, count(*) AS n, count(*) AS dead, "
        "min(reason) AS reason FROM videos WHERE status = 'rejected' GROUP BY error_class ORDER BY n DESC"
    )
    unreadable = index.rows("SELECT * FROM unreadable ORDER BY ALL LIMIT 20")
    said = runs.described(run)
    [n] = index.rows("SELECT (SELECT count(*) FROM videos) AS videos, (SELECT count(*) FROM clips) AS clips")
    states = [state for state in STATES if any(state in of_stage for of_stage in counted.values())]
    values: dict[str, Any] = {
        "counted": counted,
        "states": states,
        "warnings": warnings,
        "failures": failures,
        "unreadable": unreadable,
        "n": n,
        "said": said,
    }
    return page("run", progress=Progress.of(index), about=About.of(said), **values, **shown.common(request, run, index))


def failures_page(request: Request) -> Response:
    """Dead letters, and failures that the next materialization tries again, each with its commands."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    asked = Asked(request.url.path, request.query_params)
    paging = Paging.of(asked)
    kind, stage, error_class = asked.one_of("kind", ("dead", "all"), "dead"), asked.text("stage"), asked.text("class")
    both = (
        "SELECT * FROM failures UNION ALL BY NAME SELECT video_id, '' AS clip_id, 'manifest' AS stage, '' AS backend, path AS culprit, "
        "error_class, reason, cure, 1 AS attempts, NULL AS frame_index, '' AS traceback, true AS dead_letter FROM videos WHERE status = 'rejected'"
    )
    wanted = "($kind = 'all' OR dead_letter) AND $stage IN ('', stage) AND $class IN ('', error_class) AND contains(video_id, $q)"
    values = {"kind": kind, "stage": stage, "class": error_class, "q": asked.text("q")}
    [n] = index.rows(f"SELECT count(*) AS n FROM ({both}) WHERE {wanted}", values)
    rows = index.rows(f"SELECT * FROM ({both}) WHERE {wanted} ORDER BY ALL LIMIT {paging.size} OFFSET {paging.offset}", values)
    letters = [(row["dead_letter"], _letter(run, row)) for row in rows]
    classes = [row["error_class"] for row in index.rows(f"SELECT DISTINCT error_class FROM ({both}) ORDER BY ALL")]
    paged: dict[str, Any] = {
        "letters": letters,
        "total": n["n"],
        "paging": paging,
        "asked": asked,
        "filters": values | {"size": paging.size},
    }
    return page("failures", classes=classes, stages=[MANIFEST, *operators.stages()], **paged, **shown.common(request, run, index))


def warnings_page(request: Request) -> Response:
    """Warnings, by kind or those of one metric."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    asked = Asked(request.url.path, request.query_params)
    paging = Paging.of(asked)
    values = {"stage": asked.text("stage"), "metric": asked.text("metric"), "q": asked.text("q")}
    wanted = "$stage IN ('', stage) AND $metric IN ('', metric) AND contains(video_id, $q)"
    [n] = index.rows(f"SELECT count(*) AS n FROM warnings WHERE {wanted}", values)
    rows = index.rows(f"SELECT * FROM warnings WHERE {wanted} ORDER BY ALL LIMIT {paging.size} OFFSET {paging.offset}", values)
    kinds = index.rows("SELECT DISTINCT stage, metric FROM warnings ORDER BY ALL")
    paged: dict[str, Any] = {"rows": rows, "total": n["n"], "paging": paging, "asked": asked, "filters": values | {"size": paging.size}}
    return page("warnings", kinds=kinds, **paged, **shown.common(request, run, index))


def _letter(run: Run, row: dict[str, Any]) -> DeadLetter:
    clip_id, stage, video_id = row["clip_id"], row["stage"], row["video_id"]
    path: Path = run.failure(stage, video_id, clip_id) if clip_id else run.video_table("videos", video_id)
    named: Sequence[str] = [name for name in DeadLetter.__dataclass_fields__ if name in row]
    return DeadLetter(run_id=run.run_id, path=path, **{name: row[name] for name in named})


@dataclass(frozen=True, slots=True)
class About:
    """What a page says of a run's `run.json`, of which anything may be missing.

    Args:
        made: when, UTC; empty where it does not say.
        commit: of the code, with a word where that was changed.
        older: the version of the data contract, where it is another than this one; else empty.
    """

    made: str
    commit: str
    python: str
    older: str

    @classmethod
    def of(cls, said: dict[str, Any]) -> About:
        """From the object in the file; empty where there is none."""
        git, frozen = (_object(said, name) for name in ("git", "frozen"))
        version = str(frozen.get("schema", schema.SCHEMA_VERSION))
        commit = str(git.get("commit") or "")[:10] + (", changed" if git.get("dirty") else "")
        made = str(said.get("created_at", ""))[:19].replace("T", " ")
        return cls(made, commit, str(said.get("python", "")), "" if version == schema.SCHEMA_VERSION else version)


def _object(said: dict[str, Any], name: str) -> dict[str, Any]:
    found = said.get(name)
    return found if isinstance(found, dict) else {}
