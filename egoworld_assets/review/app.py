"""The web application of the review page: which address is which page, and what a page says where something is wrong."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from egoworld_assets.review import annotate_pages, clip_list, clip_page, distributions, drift_page, lists, stream, verdict_pages
from egoworld_assets.review.annotated import Annotated
from egoworld_assets.review.asked import BadRequest, NotThere
from egoworld_assets.review.guard import Guard
from egoworld_assets.review.index import Indexes
from egoworld_assets.review.media import Copies
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops.errors import BadSidecar, EgoworldError, InputError, SetupError, SidecarChanged, StorageUnavailable, classify
from egoworld_ops.lake.lake import Lake
from egoworld_ops.settings import Settings

_LOG = logging.getLogger(__name__)
_RUN = "/run/{run_id}"
_CLIP = f"{_RUN}/video/{{video_id}}/clip/{{clip_id}}"
STATUS = (
    (BadRequest, 400),
    (NotThere, 404),
    (SidecarChanged, 409),
    (BadSidecar, 422),
    (InputError, 404),
    (SetupError, 404),
    (StorageUnavailable, 503),
)
"""Of the page that an error becomes; 500 for all others."""


def make(settings: Settings, scratch: Path, token: str, hosts: Collection[str] = (), annotated: Annotated | None = None) -> Guard:
    """The application for a lake.

    Args:
        scratch: folder for what this process keeps of the lake.
        token, hosts: see `Guard`.
        annotated: the video whose sidecar may be written; None where nothing but verdicts may be.
    """
    shown = Shown(
        Lake(settings.lake), Indexes(scratch, settings.quality), Copies(scratch, settings.pool.threads), settings.drift, annotated
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        shown.copies.close()
        shown.indexes.close()

    routes = [
        Route("/", lists.home),
        Route(_RUN, lists.run_page),
        Route(f"{_RUN}/clips", clip_list.clips_page),
        Route(f"{_RUN}/metrics", distributions.metrics_page),
        Route(f"{_RUN}/drift", drift_page.drift_page),
        Route(f"{_RUN}/failures", lists.failures_page),
        Route(f"{_RUN}/warnings", lists.warnings_page),
        Route(_CLIP, clip_page.clip_page),
        Route(f"{_CLIP}/about.json", clip_page.about_json),
        Route(f"{_CLIP}/frames.json", clip_page.frames_json),
        Route(f"{_CLIP}/copy.json", clip_page.copy_json),
        Route(f"{_CLIP}/raw", clip_page.raw_bytes),
        Route(f"{_CLIP}/copy", clip_page.copy_bytes),
        Route(f"{_CLIP}/stream", stream.stream),
        Route(f"{_CLIP}/lineage", clip_page.lineage_page),
        Route(f"{_CLIP}/verdict", verdict_pages.give, methods=["POST"]),
        Route(f"{_RUN}/queue", verdict_pages.queue),
        Route(f"{_RUN}/verdicts", verdict_pages.verdicts_page),
        *(annotate_pages.routes() if annotated else ()),
        Mount("/static", StaticFiles(packages=[("egoworld_assets.review", "static")])),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={Exception: _on_error, EgoworldError: _on_error, HTTPException: _on_http_error},
    )
    app.state.shown = shown
    return Guard(app, token, hosts)  # outside of all, so that answers to errors have its headers too


async def _on_error(request: Request, error: Exception) -> Response:
    """An error is a page that says what is at fault, why, and what to do; only a bug is logged, with where it is."""
    known = classify(error, f"page {request.url.path}")
    status = next((code for kind, code in STATUS if isinstance(known, kind)), 500)
    if status == 500:
        _LOG.error("page %s", request.url.path, exc_info=error)
    if request.url.path.endswith(".json"):
        return JSONResponse({"error": str(known)}, status)
    shown: Shown = request.app.state.shown
    return page("error", status, status=status, error=known, **shown.common(request))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = NotThere(f"page {request.url.path[:100]}", error.detail.lower(), "Begin at the list of runs")
    shown: Shown = request.app.state.shown
    return page("error", error.status_code, status=error.status_code, error=said, **shown.common(request))
