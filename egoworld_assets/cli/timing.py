"""Commands that say what a run took: `timeline`, `cost`, and `plan` for videos to come."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Run


@click.command()
@click.argument("run_id", metavar="[RUN]", default="latest")
@click.option(
    "--chrome",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Write a Chrome trace to this file (for ui.perfetto.dev) instead.",
)
@click.option(
    "--otlp", metavar="URL", help="Send traces to the OTLP receiver at this address instead (HTTP, such as http://127.0.0.1:4318)."
)
@click.option("--width", type=click.IntRange(20, 1000), default=100, show_default=True, help="Columns of the chart.")
@click.pass_obj
def timeline(profile: str | None, run_id: str, chrome: Path | None, otlp: str | None, width: int) -> None:
    """Print what ran where in RUN and when, what devices waited for in between, and what the clips of each stage waited for."""
    from egoworld_assets.cli.rendering import checked_place
    from egoworld_ops.files.whole import write_bytes
    from egoworld_ops.lake import runs
    from egoworld_ops.lake import timeline as read
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.report import chrome_trace, gantt
    from egoworld_ops.report.otlp import send
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    place = chrome and checked_place(settings, chrome.absolute(), ".json", "--chrome")
    run = runs.find(Lake(settings.lake), run_id)
    works = list(read.of_run(run))
    own = [work for work in works if work.run_id == run.run_id]
    if otlp is not None:
        click.echo(f"{send(own, otlp)} spans of {len({work.video_id for work in own})} videos, a trace each, were taken by {otlp}")
        return
    if place is None:
        click.echo("\n".join(gantt.lines(works, run.run_id, width)))
        return
    write_bytes(place, chrome_trace.chrome_trace(own))
    click.echo(f"{chrome}  open it at https://ui.perfetto.dev or chrome://tracing")


@click.command()
@click.argument("run_id", metavar="[RUN]", default="latest")
@click.option("--price", type=click.FloatRange(min=0), help="Price of an hour of one device (a GPU, or a worker of the processor).")
@click.pass_obj
def cost(profile: str | None, run_id: str, price: float | None) -> None:
    """Print seconds of devices, of GPUs, bytes and money that RUN took, by stage and for an hour of video."""
    from egoworld_ops.errors import InputError
    from egoworld_ops.lake import timeline as read
    from egoworld_ops.report import costs

    run = _run(profile, run_id)
    works = list(read.of_run(run))
    lengths_s = _lengths_s(run)
    hours = costs.video_s((work for work in works if work.clip_id), lengths_s) / costs.HOUR_S
    if not hours:
        raise InputError(f"run {run.run_id}", "has no result of a clip yet", "Process a video: `egoworld process`")
    click.echo(f"run {run.run_id}: {hours:.4g} hours of video")
    click.echo("\n".join(costs.lines(costs.by_stage(works, run.run_id, lengths_s), price)))


@click.command()
@click.argument("run_id", metavar="[RUN]", default="latest")
@click.option("--videos", type=click.IntRange(min=1), required=True, help="How many videos.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), required=True, help="How long they are in all.")
@click.pass_obj
def plan(profile: str | None, run_id: str, videos: int, hours: float) -> None:
    """Print the hours of this host and the disk that videos would take, at the pace at which it worked in RUN."""
    from egoworld_ops.lake import timeline as read
    from egoworld_ops.report import costs

    run = _run(profile, run_id)
    made = costs.plan(list(read.of_run(run)), _lengths_s(run), videos, hours)
    free = shutil.disk_usage(run.lake.root).free
    enough = "enough" if free > made.n_bytes else "NOT ENOUGH"
    click.echo(f"{videos} videos, {hours:g} hours: {made.clips} clips")
    click.echo(f"time  {made.hours:.3g} hours at the pace of run {run.run_id}; {made.least_hours:.3g} if its devices never waited")
    click.echo(f"disk  {made.n_bytes / 1e9:.3g} GB of results; {free / 1e9:.3g} GB are free: {enough}")
    if made.unknown:
        click.echo(f"not in it: {', '.join(made.unknown)}, of which run {run.run_id} computed nothing here")
    click.echo(f"The pace is that of {made.from_hours:.3g} hours of video on {', '.join(made.devices)}: {_trust(made.from_hours, hours)}")


def _trust(seen_hours: float, hours: float) -> str:
    share = seen_hours / hours
    return "a rough guess, from less than a hundredth of that" if share < 0.01 else "it holds for videos like those"


def _run(profile: str | None, run_id: str) -> Run:
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    return runs.find(Lake(load_settings(profile).lake), run_id)


def _lengths_s(run: Run) -> dict[tuple[str, str], float]:
    """Seconds of each video of a run that has a manifest, with an empty clip, and of the own frames of each clip."""
    from egoworld_ops.errors import ContractError
    from egoworld_ops.lake import states

    found = {}
    for video_id in states.video_ids(run):
        try:
            manifest = states.manifest_of(run, video_id)
        except ContractError:
            continue
        if manifest is not None:
            found[video_id, ""] = video_s = float(manifest.video.get("duration_s") or 0.0)
            owned = {clip["clip_id"]: clip["own_end"] - clip["own_start"] for clip in manifest.clips}
            found |= {(video_id, clip_id): video_s * n / (sum(owned.values()) or 1) for clip_id, n in owned.items()}
    return found


COMMANDS = (timeline, cost, plan)
