"""The command line: register videos, process them, look at the results. `process` and `demo` make Dagster runs, which the UI shows too."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from egoworld_assets.cli import (
    accepting,
    alerting,
    annotating,
    calibrating,
    doctor,
    drifting,
    exporting,
    faults,
    judging,
    letters,
    monitoring,
    part,
    questions,
    releases,
    rendering,
    rerunning,
    reviewing,
    runs,
    scoring,
    timing,
    videos,
    weights,
)
from egoworld_assets.cli.group import INTERRUPTED, Group
from egoworld_ops.errors import EgoworldError, printable


class _Root(Group):
    """All commands; other libraries' errors become errors of ours, which say in one line what to do."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named. Ctrl-C ends it with one line, which says what was done where the command knows."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as error:
            click.echo(f"interrupted: {str(error) or f'egoworld {ctx.invoked_subcommand} did not finish; run it again'}", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:
            if ctx.params.get("debug") or (named := faults.named(error)) is None:
                raise
            raise named from error


@click.group(cls=_Root)
@click.version_option(version("egoworld"), prog_name="egoworld")
@click.option("--profile", envvar="EGOWORLD_PROFILE", help="Settings: a shipped profile's name, or a TOML file.")
@click.option("--debug", is_flag=True, help="Where egoworld itself fails, show where in the code.")
@click.pass_context
def egoworld(context: click.Context, profile: str | None, debug: bool) -> None:
    """From raw egocentric video to robot-learning data."""
    context.obj = profile


@egoworld.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_obj
def register(profile: str | None, paths: Sequence[Path]) -> None:
    """Register raw videos (files or folders): each becomes a partition of the assets."""
    from egoworld_assets.cli import processing
    from egoworld_ops.raw import register

    settings = processing.settings(profile)
    found = register.register(settings.lake, paths)
    processing.add_partitions(settings, found.video_ids)
    for row in found.refused:
        click.echo(f"{row['status']:10}  {printable(row['path'])}: {row['reason']}. {row['cure']}", err=True)
    for line in found.passed_over:
        click.echo(line, err=True)
    for video_id in found.video_ids:
        click.echo(f"registered  {video_id}")
    if not found.video_ids:
        sys.exit(1)


@egoworld.command()
@click.argument("patterns", nargs=-1, metavar="[VIDEO_ID | PATTERN]...")
@click.option("--all", "everything", is_flag=True, help="All registered videos.")
@click.option("--missing", is_flag=True, help="Of these, or of all, the videos of which something is not done yet.")
@click.pass_obj
def process(profile: str | None, patterns: Sequence[str], everything: bool, missing: bool) -> None:
    """Run the whole chain over registered videos, in this process. A PATTERN names several: 'kitchen-*'."""
    from egoworld_assets.cli import processing

    if bool(patterns) == everything and not (missing and not patterns):
        raise click.UsageError("name videos or patterns, or say --all or --missing; `egoworld videos` lists what there is")
    settings = processing.settings(profile)
    wanted = videos.chosen(settings, patterns)
    if missing:
        wanted = [video_id for video_id in wanted if videos.lacks(settings, video_id)]
    if not wanted:
        click.echo("nothing to do: " + ("all videos are done" if missing else f"no video is registered in lake {settings.lake}"))
        return
    sys.exit(1 if processing.process(settings, wanted, click.echo, profile) else 0)


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


@egoworld.command("pool", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pool(arguments: Sequence[str]) -> None:
    """Run the worker pool of this host, look at it, change its size: serve, status, scale."""
    from gpu_workers.__main__ import pool as group

    sys.exit(group.main(list(arguments) or ["--help"], prog_name="egoworld pool", standalone_mode=False))


@egoworld.command()
def contract() -> None:
    """Print the data contract as Markdown."""
    from egoworld_ops.report.contract_page import contract_page

    click.echo(contract_page(), nl=False)


for _module in (
    videos,
    part,
    letters,
    runs,
    questions,
    releases,
    rendering,
    rerunning,
    reviewing,
    annotating,
    judging,
    weights,
    exporting,
    calibrating,
    scoring,
    doctor,
    accepting,
    drifting,
    timing,
    monitoring,
    alerting,
):
    for _command in _module.COMMANDS:
        egoworld.add_command(_command)


def main() -> None:
    """Entry point: an error of ours is one line for a person, not a traceback."""
    try:
        egoworld(standalone_mode=True)
    except EgoworldError as error:
        click.echo(f"egoworld: {error}", err=True)
        sys.exit(1)
