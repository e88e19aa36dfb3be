"""The review page over a lake for tests: its application asked in this process, or served to a browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.testclient import TestClient

from egoworld_assets.review import app
from egoworld_assets.review.annotated import Annotated
from egoworld_ops.settings import Settings, load_settings

LOOPBACK = "http://127.0.0.1:3080"


def settings_of(lake: Path) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": lake})


@contextmanager
def asked(lake: Path, scratch: Path, token: str = "", base: str = LOOPBACK) -> Iterator[TestClient]:
    """A client of the application; errors of ours are answers, as over the wire."""
    scratch.mkdir(exist_ok=True)
    made = app.make(settings_of(lake), scratch, token, ("review.local",))
    with TestClient(made, base_url=base, raise_server_exceptions=False, follow_redirects=False) as client:
        client.shown = made.inner.state.shown  # type: ignore[attr-defined]
        yield client


@contextmanager
def served(lake: Path, scratch: Path, annotated: Annotated | None = None) -> Iterator[str]:
    """The address of a server on loopback."""
    made = app.make(settings_of(lake), scratch, "", annotated=annotated)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(made, log_level="warning", access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
