"""The command `metrics`: the platform for Prometheus."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", default=9465, show_default=True, type=click.IntRange(0, 65535), help="On loopback; 0 for any that is free.")
@click.option(
    "--every-s", default=15.0, show_default=True, type=click.FloatRange(1), help="Pause between two looks at the files of the latest run."
)
@click.option("--drift-every-s", default=600.0, show_default=True, type=click.FloatRange(10), help="Pause between two looks at drift.")
@click.pass_obj
def metrics(profile: str | None, port: int, every_s: float, drift_every_s: float) -> None:
    """Serve what machines watch (runs, clips by state, quality, drift, ledger, intake, sensors, disks, the pool) for Prometheus; read-only."""
    from egoworld_assets.monitoring.serving import serve
    from egoworld_ops import logs
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    logs.configure(settings.logs)
    serve(
        settings, port, every_s, drift_every_s, lambda address: click.echo(f"Metrics of lake {settings.lake}\n  {address}\nCtrl-C ends it.")
    )


COMMANDS = (metrics,)
