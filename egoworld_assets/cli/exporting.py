"""Commands that export rows to other formats and list the installed plug-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from egoworld_assets.cli.judging import left_out, of_verdict


@click.command(name="export")
@click.argument("format_name", metavar="FORMAT")
@click.argument("run_id", metavar="RUN")
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--video", "video_ids", multiple=True, help="Only this video; may be given again.")
@click.option("--assumed-metric", is_flag=True, help="Also lengths that rest on an assumed focal length; otherwise they are null.")
@of_verdict
@click.pass_obj
def export(
    profile: str | None,
    format_name: str,
    run_id: str,
    target: Path,
    video_ids: Sequence[str],
    assumed_metric: bool,
    verdict: str | None,
    without: Sequence[str],
) -> None:
    """Write the rows of RUN that count to DEST, a new folder: each owned frame once. `egoworld plugins` lists the formats."""
    from egoworld_ops import exports
    from egoworld_ops.errors import BadSettings
    from egoworld_ops.exports.base import rows_of
    from egoworld_ops.lake import licences, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.models import policy
    from egoworld_ops.release.cards import complaint
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    run = runs.find(Lake(settings.lake), run_id)
    policy.check(f"run {run.run_id}", licences.weights_of(run), settings.policy)
    rows = rows_of(run, video_ids, assumed_metric, verdict, without)
    if unknown := set(video_ids) - set(rows.videos):
        raise BadSettings(f"video {min(unknown)}", f"has no manifest in run {rows.run.run_id}", "`egoworld runs show` lists the videos")
    for path in exports.write(format_name, rows, target):
        click.echo(f"{path.stat().st_size / 1e6:>10,.2f} MB  {path}")
    if rows.verdicts:
        click.echo(left_out(rows.verdicts), err=True)
    for video_id in rows.cards.left_out:
        click.echo(complaint(video_id), err=True)
    if not_metric := rows.not_metric():
        kept = "are exported all the same" if assumed_metric else "are left out (--assumed-metric keeps them)"
        some = f"{', '.join(not_metric[:5])}{', ...' if len(not_metric) > 5 else ''}"
        click.echo(f"{len(not_metric)} video(s) have an assumed focal length, and lengths that rest on it {kept}: {some}", err=True)
    for name, about in licences.licences_of(run).items():
        click.echo(f"rests on weights under {name} (commercial use: {about['commercial']}): {', '.join(about['weights'])}", err=True)
    if rows.incomplete:
        click.echo(f"{len(rows.incomplete)} video(s) are incomplete: {', '.join(list(rows.incomplete)[:5])}", err=True)


@click.command()
def plugins() -> None:
    """List what installed packages bring, and what is wrong with it; and the formats of `egoworld export`. Ends with 1 where something is wrong."""
    from egoworld_ops import exports
    from egoworld_ops import plugins as installed

    _load_all()
    problems = 0
    for plugin, problem in installed.listed():
        click.echo(f"{plugin.group:<20} {plugin.name:<24} {plugin.package} {plugin.version}  {problem or 'ok'}")
        problems += problem is not None
    for name in exports.formats():
        click.echo(f"{'format':<20} {name:<24} {exports.described(name)}")
    sys.exit(1 if problems else 0)


def _load_all() -> None:
    """Load everything that packages bring, so that each problem is known."""
    from egoworld_ops import exports, operators, robots
    from egoworld_ops import plugins as installed
    from egoworld_ops.errors import BrokenPlugin

    asked: list[Callable[[], object]] = [partial(operators.load, s, b) for s in operators.stages() for b in operators.backends(s)]
    asked += [partial(exports.load, name) for name in exports.formats()]
    asked += [partial(robots.find_robot, name, {}) for name in installed.found(installed.ROBOTS, robots.ROBOTS)]
    asked += [plugin.load for plugin in installed.found(installed.POOLS, ()).values()]
    for ask in asked:
        with suppress(BrokenPlugin):  # it is listed
            ask()


COMMANDS = (export, plugins)
