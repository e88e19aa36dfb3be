"""Who may ask the page what: the host that a browser believes to speak to, the token, the origin of a write, and the headers of every answer."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
COOKIE = "egoworld_review"
TOKEN = "token"  # noqa: S105 - the name of the parameter
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Lets through what may be asked, and adds the headers to each answer.

    A page of another site whose name was made to point here (DNS rebinding) is refused by its `Host`; so is a write that another site's page sends,
    by its `Origin`, and one that does not say where it comes from. Forms hold a token beside.

    Args:
        token: that a browser must show; empty where the page is bound to loopback.
        hosts: names by which the page may be asked for, beside loopback's; addresses may always be.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str] = ()) -> None:
        self.inner, self._token = app, token
        self._hosts = {*LOOPBACK, *(name.lower() for name in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the application answer."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refusal(scope, Headers(scope=scope))
        await (answer or self.inner)(scope, receive, with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to what may not be asked, or is to be asked again without the token in its address; None where it may."""
        host = headers.get("host", "")
        if not self._may_be_called(host):
            return PlainTextResponse("egoworld review: asked for by a name that is not its own; allow it with --allow-host", 421)
        if self._token and (answer := self._unless_known(scope, headers)) is not None:
            return answer
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if urlsplit(origin or "").netloc.lower() != host.lower():
                return PlainTextResponse("egoworld review: only a page of its own may write here", 403)
        return None

    def _may_be_called(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return bool(self._token)

    def _unless_known(self, scope: Scope, headers: Headers) -> Response | None:
        shown = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if hmac.compare_digest(shown.encode(), self._token.encode()):
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(asked).get(TOKEN, "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return PlainTextResponse("egoworld review: open the address that `egoworld review` printed; it holds the token", 401)
        rest = urlencode([(name, value) for name, value in asked if name != TOKEN])
        answer = RedirectResponse(f"{scope['path']}{'?' if rest else ''}{rest}", 303)
        answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", path="/")
        return answer
