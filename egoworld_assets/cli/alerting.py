"""The command `alerts`: what is wrong now, and whether those who are to be told can be reached."""

from __future__ import annotations

import os
import sys

import click


@click.command()
@click.option("--test", is_flag=True, help="Send a test alert to everybody who is to be told.")
@click.pass_obj
def alerts(profile: str | None, test: bool) -> None:
    """Print what is wrong now, as the sensor `alerts` tells it, and who is told; exits with 1 where something is, or a test does not arrive."""
    from egoworld_assets import alerting
    from egoworld_assets.cli.processing import instance
    from egoworld_ops.alerts import sending
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    to = sending.shown(settings.alerts)
    click.echo("told      " + ("; ".join(f"{name}: {where}" for name, where in to.items()) or alerting.NOBODY))
    if test:
        untold = alerting.test(settings.alerts, str(settings.lake))
        for name in to:
            click.echo(f"{name:<10}{untold.get(name) or 'took the test alert'}")
        sys.exit(1 if untold or not to else 0)
    if os.environ.get("DAGSTER_HOME"):
        with instance() as dagster:
            on = list(alerting.found(settings, dagster))
    else:
        on = list(alerting.found(settings, None))
    for alert in on:
        click.echo(f"{alert.severity:<10}{alert.title}\n{'':<10}{alert.said}\n{'':<10}{alert.action}")
    click.echo(f"{len(on)} things are wrong")
    sys.exit(1 if on else 0)


COMMANDS = (alerts,)
