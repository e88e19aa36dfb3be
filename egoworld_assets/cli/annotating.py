"""The command `annotate`: a page on which a person says what a video shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from egoworld_assets.review.annotated import Annotated
    from egoworld_ops.settings import Settings


@click.command()
@click.argument("video", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to; beyond loopback, the page asks for a token.")
@click.option("--port", default=3081, show_default=True, type=click.IntRange(0, 65535), help="0 for any that is free.")
@click.option("--allow-host", "also_called", multiple=True, help="A further name by which the page may be asked for.")
@click.pass_obj
def annotate(profile: str | None, video: str | None, host: str, port: int, also_called: Sequence[str]) -> None:
    """Say in a browser what VIDEO shows: things, their sizes, the camera. It writes the sidecar beside VIDEO.

    VIDEO is a file, or a registered video or the beginning of its name; without one, the video last worked on.
    """
    from egoworld_assets.review.serving import serve
    from egoworld_ops import logs
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    logs.configure(settings.logs)
    serve(
        settings,
        host,
        port,
        also_called,
        lambda address: click.echo(f"  {address}\nCtrl-C ends it."),
        lambda scratch: _opened(video, settings, scratch),
    )


def _opened(video: str | None, settings: Settings, scratch: Path) -> Annotated:
    """The video, once it is known; says what it is."""
    from egoworld_assets.review.annotated import open_video

    click.echo("Looking at the video; one that no run knows is decoded once.", err=True)
    annotated = replace(open_video(video, settings, scratch), told=_told)
    clips = f"{len(annotated.clips)} clip{'s' if len(annotated.clips) > 1 else ''}"
    click.echo(f"Annotate {annotated.path}: {annotated.n_frames} frames, {clips}")
    return annotated


def _told(path: Path, commands: Sequence[str]) -> None:
    click.echo("\n".join([f"wrote  {path}", *(f"next   {command}" for command in commands)]))


COMMANDS = (annotate,)
