"""Serves the review page until it is stopped."""

from __future__ import annotations

import errno
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_assets.review.guard import LOOPBACK
from egoworld_ops.errors import BadSettings
from egoworld_ops.settings import Settings

if TYPE_CHECKING:
    from egoworld_assets.review.annotated import Annotated


def serve(
    settings: Settings,
    host: str,
    port: int,
    also_called: Sequence[str],
    say: Callable[[str], object],
    opened: Callable[[Path], Annotated] | None = None,
) -> None:
    """Serve the lake's review page until Ctrl-C or SIGTERM.

    Args:
        host: address or name to bind to; beyond loopback, browsers must show a token.
        port: 0 for any that is free.
        also_called: further names by which it may be asked for, as behind a proxy.
        say: told the address.
        opened: gives the video that may be annotated, and is given a folder for what is made of it; None where none may be.

    Raises:
        BadSettings: it cannot be bound there.
        EgoworldError: the video to be annotated cannot be opened.
    """
    import uvicorn

    from egoworld_assets.review import annotate_pages, app

    listening = _bound(host, port)
    token = "" if host in LOOPBACK else secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="egoworld-review-") as scratch, listening:
        annotated = opened(Path(scratch)) if opened else None
        made = app.make(settings, Path(scratch), token, (host, socket.gethostname(), *also_called), annotated)
        config = uvicorn.Config(
            made,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=100,
            timeout_graceful_shutdown=2,
        )
        say(address(host, listening.getsockname()[1], token, annotate_pages.PLACE if annotated else "/"))
        uvicorn.Server(config).run(sockets=[listening])


def address(host: str, port: int, token: str, place: str) -> str:
    """What a person opens."""
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104 - compared with, not bound to
    name = f"[{shown}]" if ":" in shown else shown
    return f"http://{name}:{port}{place}" + (f"?token={token}" if token else "")


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BadSettings(f"--host {host}", f"is no address of this machine: {error}", "Name one, or leave it out for 127.0.0.1") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            cure = f"It may be another `egoworld review`: open http://{host}:{port}/, or say --port {port + 1}, or --port 0 for any"
            raise BadSettings(f"port {port}", "is in use", cure) from error
        raise BadSettings(f"--host {host} --port {port}", f"cannot be bound: {error.strerror}", "Name another host or port") from error
    return listening
