"""The page of `egoworld annotate` over a video for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx import Response
from starlette.testclient import TestClient

from egoworld_assets.review import app
from egoworld_assets.review.annotated import Annotated, open_video
from tests.egoworld_assets.review.served import LOOPBACK, settings_of
from tests.egoworld_ops import media

N_FRAMES, SIZE = 20, (160, 120)


def video_in(folder: Path, name: str = "my mug") -> Annotated:
    """A video that no lake knows; its frames show their numbers."""
    (folder / "scratch").mkdir(parents=True)
    media.make(folder / f"{name}.mp4", N_FRAMES, SIZE)
    return open_video(str(folder / f"{name}.mp4"), settings_of(folder / "lake"), folder / "scratch")


@contextmanager
def client_of(video: Annotated, scratch: Path) -> Iterator[TestClient]:
    """A client of its page; errors of ours are answers."""
    made = app.make(video.settings, scratch, "", (), video)
    with TestClient(made, base_url=LOOPBACK, raise_server_exceptions=False, follow_redirects=False) as client:
        client.csrf = made.inner.state.shown.csrf  # type: ignore[attr-defined]
        yield client


def send(client: TestClient, name: str, said: Mapping[str, Any], origin: str = LOOPBACK) -> Response:
    """Send what the page would."""
    return client.post(f"/annotate/{name}.json", json={"csrf": client.csrf, **said}, headers={"origin": origin})  # type: ignore[attr-defined]


def thing(label: str = "mug", frame: int = 3, **changed: Any) -> dict[str, Any]:
    """An object as the sidecar has it."""
    drawn = {"frame_index": frame, "box_px": [20.0, 30.0, 40.0, 50.0]}
    return {"label": label, "dimensions_m": [0.08, 0.08, 0.1], "prompts": [drawn]} | changed
