"""The command line: register videos, process them, look at the contract. Everything long is a Dagster run, seen in the UI too."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from egoworld_assets.cli import releases
from egoworld_assets.cli.runs import COMMANDS
from egoworld_ops.errors import EgoworldError, printable


@click.group()
@click.option("--profile", envvar="EGOWORLD_PROFILE", help="Settings: a shipped profile's name, or a TOML file.")
@click.pass_context
def egoworld(context: click.Context, profile: str | None) -> None:
    """From raw egocentric video to robot-learning data."""
    context.obj = profile


@egoworld.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_obj
def register(profile: str | None, paths: Sequence[Path]) -> None:
    """Register raw videos (files or folders): each becomes a partition of the assets."""
    from egoworld_assets.cli import processing
    from egoworld_ops.raw import register

    found = register.register(processing.settings(profile), paths)
    processing.add_partitions(found.video_ids)
    for row in found.refused:
        click.echo(f"{row['status']:10}  {printable(row['path'])}: {row['reason']}. {row['cure']}", err=True)
    for line in found.passed_over:
        click.echo(line, err=True)
    for video_id in found.video_ids:
        click.echo(f"registered  {video_id}")
    if not found.video_ids:
        sys.exit(1)


@egoworld.command()
@click.argument("video_ids", nargs=-1, required=True)
@click.pass_obj
def process(profile: str | None, video_ids: Sequence[str]) -> None:
    """Run the whole chain over registered videos, in this process."""
    from egoworld_assets.cli import processing

    processing.settings(profile)
    failed = processing.process(video_ids, click.echo)
    sys.exit(1 if failed else 0)


@egoworld.command()
@click.argument("video", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def demo(profile: str | None, video: Path | None) -> None:
    """Run the chain over the synthetic example, or over VIDEO, and show what came of it."""
    from egoworld_assets.cli.demo import run

    started = time.monotonic()
    ok = run(profile, video, click.echo)
    click.echo(f"\nTook {time.monotonic() - started:.0f} s.")
    sys.exit(0 if ok else 1)


@egoworld.command()
@click.pass_obj
def queries(profile: str | None) -> None:
    """Run the questions of the README over the lake, and print them with their answers."""
    from egoworld_ops.query.catalog import FILE_NAME
    from egoworld_ops.query.questions import QUERIES, answer
    from egoworld_ops.settings import load_settings

    database = load_settings(profile).lake / FILE_NAME
    for question, sql in QUERIES.items():
        click.echo(f"-- {question}{sql};\n{answer(database, sql)}")


@egoworld.command()
def contract() -> None:
    """Print the data contract as Markdown."""
    from egoworld_ops.report.contract_page import contract_page

    click.echo(contract_page(), nl=False)


for _command in (*COMMANDS, *releases.COMMANDS):
    egoworld.add_command(_command)


def main() -> None:
    """Entry point: an error of ours is one line for a person, not a traceback."""
    try:
        egoworld(standalone_mode=True)
    except EgoworldError as error:
        click.echo(f"egoworld: {error}", err=True)
        sys.exit(1)
