"""The command `review`: the review page."""

from __future__ import annotations

from collections.abc import Sequence

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to; beyond loopback, the page asks for a token.")
@click.option("--port", default=3080, show_default=True, type=click.IntRange(0, 65535), help="0 for any that is free.")
@click.option("--allow-host", "also_called", multiple=True, help="A further name by which the page may be asked for.")
@click.pass_obj
def review(profile: str | None, host: str, port: int, also_called: Sequence[str]) -> None:
    """Show runs, clips and what is wrong with them in a browser; it writes nothing but verdicts."""
    from egoworld_assets.review.serving import serve
    from egoworld_ops import logs
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    logs.configure(settings.logs)
    serve(
        settings, host, port, also_called, lambda address: click.echo(f"Review page of lake {settings.lake}\n  {address}\nCtrl-C ends it.")
    )


COMMANDS = (review,)
