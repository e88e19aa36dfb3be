"""The page of `egoworld annotate`: frames of one video, and what a person draws on them. It is served only where that command started the server."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from egoworld_assets.review.annotated import Annotated
from egoworld_assets.review.asked import Asked, BadRequest
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops.video.annotating import PRESETS

PLACE = "/annotate"
MOST_BYTES = 1 << 20
"""Of what a browser sends: the objects of a sidecar."""


def routes() -> list[Route]:
    """The addresses of the page."""
    posts = {"look": _look, "preview": _preview, "save": _save}
    return [
        Route(PLACE, annotate_page),
        Route(f"{PLACE}/about.json", about_json),
        Route(f"{PLACE}/frame.jpg", frame_jpeg),
        Route(f"{PLACE}/frame.json", frame_json),
        *(Route(f"{PLACE}/{name}.json", _post(act), methods=["POST"]) for name, act in posts.items()),
    ]


def annotate_page(request: Request) -> Response:
    """The page; what it shows comes as JSON."""
    shown: Shown = request.app.state.shown
    return page("annotate", video=_video(request), presets=list(PRESETS), csrf=shown.csrf, **shown.common(request))


def about_json(request: Request) -> Response:
    """The video, its camera and its sidecar."""
    return JSONResponse(_video(request).about())


def frame_jpeg(request: Request) -> Response:
    """The picture of a frame."""
    video = _video(request)
    return Response(video.picture(_frame(request, video)), media_type="image/jpeg")


def frame_json(request: Request) -> Response:
    """The proposals in a frame; null where nobody looked for any."""
    video = _video(request)
    frame = _frame(request, video)
    video.check()
    return JSONResponse({"frame": frame, "proposals": video.proposals(frame)})


def _look(video: Annotated, said: Mapping[str, Any]) -> dict[str, Any]:
    frame, found = video.look(_whole(said, video))
    return {"frame": frame, "proposals": found}


def _preview(video: Annotated, said: Mapping[str, Any]) -> dict[str, Any]:
    return video.preview(said, _whole(said, video))


def _save(video: Annotated, said: Mapping[str, Any]) -> dict[str, Any]:
    path, commands = video.save(said), video.commands()
    video.told(path, commands)
    return {"path": str(path), "commands": commands}


def _post(act: Callable[[Annotated, Mapping[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
    """A route that takes what a browser sends, and answers with what is made of it."""

    async def answer(request: Request) -> Response:
        said = await _sent(request)
        return JSONResponse(await run_in_threadpool(act, _video(request), said))

    return answer


async def _sent(request: Request) -> dict[str, Any]:
    """What the page sends.

    Raises:
        BadRequest: it is too long, no JSON, or not from a page of this server.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise BadRequest(
                "what was sent", f"has more than {MOST_BYTES} bytes", "Write the sidecar by hand: docs/data_contract.md, section Sidecar"
            )
    try:
        said = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadRequest("what was sent", f"is no JSON: {error}", "Use the page") from error
    shown: Shown = request.app.state.shown
    if not isinstance(said, dict) or not hmac.compare_digest(str(said.get("csrf", "")).encode(), shown.csrf.encode()):
        raise BadRequest("this page", "was not made by this server, or before it was started again", "Load it again")
    return said


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _frame(request: Request, video: Annotated) -> int:
    return Asked(request.url.path, request.query_params).number("frame", 0, 0, video.n_frames - 1)


def _whole(said: Mapping[str, Any], video: Annotated) -> int:
    frame = said.get("frame")
    if type(frame) is not int or not 0 <= frame < video.n_frames:
        raise BadRequest("frame", f"is {str(frame)[:20]!r}", f"Give a whole number from 0 to {video.n_frames - 1}")
    return frame


def _video(request: Request) -> Annotated:
    shown: Shown = request.app.state.shown
    assert shown.annotated is not None
    return shown.annotated
