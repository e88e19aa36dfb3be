"""Posting to an address that a person named, and asking one of this host: never to where a redirect leads, and to this host through no proxy."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPResponse
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import urlsplit

_ANSWER_BYTES = 65_536
_HERE = ("localhost", "127.0.0.1", "::1")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that points elsewhere is a wrong one: nothing is sent to where nobody said. urllib would ask there without what was posted."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(address: str, body: Any, timeout_s: float) -> None:
    """Post an object as JSON. Whether it is taken, the status says; of the answer no more is read than its beginning, since it may have no end.

    Args:
        address: of http or https; a proxy that the environment names is used, but for this host: a proxy does not lead back to it.

    Raises:
        OSError, HTTPException: it is not taken; an answer other than 2xx is an `HTTPError`.
    """
    headers = {"Content-Type": "application/json", "User-Agent": f"egoworld/{version('egoworld')}"}
    with opened(urllib.request.Request(address, json.dumps(body).encode(), headers), timeout_s) as answer:  # noqa: S310 - callers check the scheme
        answer.read1(_ANSWER_BYTES)


def opened(request: urllib.request.Request, timeout_s: float) -> HTTPResponse:
    """The answer to a request; raises as `post`."""
    direct = [urllib.request.ProxyHandler({})] if urlsplit(request.full_url).hostname in _HERE else []
    return cast(HTTPResponse, urllib.request.build_opener(_NoRedirect, *direct).open(request, timeout=timeout_s))
