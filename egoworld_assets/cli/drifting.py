"""The command `drift`: whether the numbers of newer videos are those of older ones."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.lake.reference import Reference


@click.command()
@click.argument("run_id", metavar="[RUN]", default="latest")
@click.option(
    "--against", metavar="RUN", help="What to compare with: a run, or `release`. Default: what --keep chose, else the other videos of RUN."
)
@click.option("--last", type=click.IntRange(min=1), help="Only so many videos of RUN, those computed last.")
@click.option("--source", type=click.Path(path_type=Path), help="Only videos of RUN whose raw file lies below this folder.")
@click.option("--keep", metavar="RUN", help="Only choose what to compare with from now on: a run, or `release`.")
@click.pass_obj
def drift(profile: str | None, run_id: str, against: str | None, last: int | None, source: Path | None, keep: str | None) -> None:
    """Print which metrics of RUN have moved, since which video, and the clips in which most; exits with 1 where one has.

    Without a reference the last videos of the run (setting drift.last_videos) are compared with those before them.
    """
    from egoworld_assets.drifting import look
    from egoworld_ops.lake import reference, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    store = Lake(settings.lake)
    if keep is not None:
        chosen = _reference(store, keep)
        reference.write(store.root, chosen)
        click.echo(f"reference  {'the release of ' if chosen.released else ''}run {chosen.run_id}")
        return
    chosen_or_none = reference.read(store.root) if against is None else _reference(store, against)
    seen = look(runs.find(store, run_id), chosen_or_none, settings, last, source)
    click.echo(f"{seen.said}: {len(seen.report.drifted)} of {seen.report.compared} metrics have drifted")
    if seen.report.too_few:
        click.echo(f"too few videos to tell (want {settings.drift.minimum_videos} on each side): {len(seen.report.too_few)} metrics")
    for found in seen.report.drifted:
        click.echo(
            f"{found.stage:<12} {found.metric}: median {_number(found.reference)} -> {_number(found.current)} since {found.since} "
            f"({found.videos} videos; {found.share:.0%} of them moved, PSI {found.psi:.2g}, p {found.p:.1g})"
        )
        for video_id, clip_id, value in seen.worst[found.stage, found.metric]:
            click.echo(f"{'':<12}   {video_id} {clip_id} {_number(value)}")
    sys.exit(1 if seen.report.drifted else 0)


def _reference(store: Lake, name: str) -> Reference:
    """A run of the lake by its name, `latest`, or `release` for that made last."""
    from egoworld_ops.errors import SetupError
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.reference import Reference
    from egoworld_ops.release import place

    if name != "release":
        return Reference(runs.find(store, name).run_id)
    folder = place.shown(store).resolve().name
    if not folder.startswith("run_id="):
        raise SetupError("release", f"there is none in lake {store.root.absolute()}", "Make one, or name a run: `egoworld runs list`")
    return Reference(runs.find(store, folder.removeprefix("run_id=")).run_id, released=True)


def _number(value: float | None) -> str:
    return "none" if value is None or math.isnan(value) else f"{value:.4g}"


COMMANDS = (drift,)
