"""The one thing that a browser may write: verdicts on clips. And the pages about them: all of a run, who agrees with whom, and which clip is next."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from egoworld_assets.review.asked import Asked, BadRequest, Paging
from egoworld_assets.review.clip_list import ClipList, clip_address
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops.lake import verdicts
from egoworld_ops.types import Clip

MOST_BYTES = 16_384
"""Of a form."""
_LOOKED_AT = 50
"""Of the worst clips, to find one that nobody was handed lately."""


async def give(request: Request) -> Response:
    """Take a verdict, and go on: to the next clip of the queue if the judge came from there, else back to the clip."""
    form = await _form(request)
    return await run_in_threadpool(_give, request, form)


def _give(request: Request, form: Mapping[str, str]) -> Response:
    shown: Shown = request.app.state.shown
    if not hmac.compare_digest(form.get("csrf", "").encode(), shown.csrf.encode()):
        raise BadRequest(
            "this form", "was not made by this server, or before it was started again", "Load the page again, and say it once more"
        )
    run, clip = shown.clip(request)
    frames = _frames(form, clip)
    try:
        said = verdicts.new(run, (clip.video_id, clip.clip_id), form.get("verdict", ""), form.get("why", ""), form.get("judge", ""), frames)
    except ValueError as error:
        raise BadRequest("this verdict", str(error), "Go back, and mend it") from error
    verdicts.add(run.lake, [said])
    index = shown.indexes.of(run)
    index.read_verdicts()
    shown.queue.give_back((run.run_id, clip.video_id, clip.clip_id))
    query = QueryParams(form.get("query", ""))
    if query.get("queue"):
        return RedirectResponse(f"/run/{run.run_id}/queue?{urlencode([(k, v) for k, v in query.items() if k not in ('at', 'queue')])}", 303)
    return RedirectResponse(f"{clip_address(run.run_id, clip.video_id, clip.clip_id)}?{urlencode(list(query.items()))}#verdicts", 303)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        BadRequest: it is longer than any form of ours, or of another kind.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise BadRequest("this form", "is of a kind that no page sends", "Use the form of the page")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise BadRequest("this form", f"has more than {MOST_BYTES} bytes", "Say it shorter")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20))


def _frames(form: Mapping[str, str], clip: Clip) -> tuple[int | None, int | None]:
    """The frames that are meant, both ends given as frames that belong to them; none for the whole clip."""
    given = Asked("", QueryParams({name: form.get(name, "") for name in ("first", "last")}))
    if not form.get("first") and not form.get("last"):
        return None, None
    first = given.number("first", clip.frame_start, clip.frame_start, clip.frame_end - 1)
    last = given.number("last", clip.frame_end - 1, first, clip.frame_end - 1)
    return first, last + 1


def queue(request: Request) -> Response:
    """Go to the worst clip of a run that nobody has judged: by the metric that is named, else by the one that warns most."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    asked = Asked(request.url.path, QueryParams({**dict(request.query_params), "verdict": "none"}))
    listed = ClipList.of(asked, index)
    if not listed.filters["metric"]:
        warned = index.rows("SELECT stage || '.' || metric AS name FROM warnings GROUP BY ALL ORDER BY count(*) DESC, name")
        found = next((row["name"] for row in warned if row["name"] in listed.known), "")
        listed = ClipList({**listed.filters, "metric": found}, listed.known)
    rows = listed.rows(index, _LOOKED_AT, 0)
    if not rows:
        return RedirectResponse(f"/run/{run.run_id}/verdicts", 303)
    at = shown.queue.lend([(run.run_id, row["video_id"], row["clip_id"]) for row in rows])
    return RedirectResponse(f"{listed.link(run.run_id, rows[at], at)}&queue=1", 303)


def verdicts_page(request: Request) -> Response:
    """All verdicts on a run, the newest first, and how far judges agree."""
    shown: Shown = request.app.state.shown
    run, index = shown.run(request)
    asked = Asked(request.url.path, request.query_params)
    paging = Paging.of(asked)
    index.read_verdicts()
    given = index.given[::-1]
    stands = {verdict.verdict_id for of_clip in index.stands.values() for verdict in of_clip}
    counted = index.rows(
        "SELECT coalesce(word, 'none') AS word, count(*) AS n FROM clips LEFT JOIN verdicts USING (video_id, clip_id) GROUP BY ALL"
    )
    values: dict[str, Any] = {
        "counted": {row["word"]: row["n"] for row in counted},
        "agreements": verdicts.agreement(index.stands),
        "given": given[paging.offset : paging.offset + paging.size],
        "total": len(given),
        "stands": stands,
        "paging": paging,
        "asked": asked,
    }
    return page("verdicts", address=clip_address, **values, **shown.common(request, run, index))
