"""The command `rerun`: a video and what was found in it for the Rerun viewer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Run
    from egoworld_ops.report.rerun_file import Read
    from egoworld_ops.types import Clip


@click.command()
@click.argument("video_id", required=False)
@click.option("--run", "run_id", default="latest", show_default=True, help="The run whose results are shown.")
@click.option("--clip", "clip_id", help="Only the frames that this clip owns.")
@click.option("--out", type=click.Path(path_type=Path), help="The recording to write.  [default: VIDEO_ID.rrd in the working folder]")
@click.pass_obj
def rerun(profile: str | None, /, video_id: str | None, run_id: str, clip_id: str | None, out: Path | None) -> None:
    """Write what counts of the results of VIDEO_ID, or the beginning of its name, as a recording for Rerun. Without one: the video last worked on."""
    from egoworld_assets.cli.rendering import Progress, checked_place, clips_there
    from egoworld_assets.cli.videos import described
    from egoworld_ops.lake import runs, states
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.report import rerun_file
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    run = runs.find(Lake(settings.lake), run_id)
    wanted = runs.video_of(run, video_id)
    clips = clips_there(run, wanted, clip_id)
    place = checked_place(settings, out or Path(f"{wanted}.rrd"), ".rrd")
    total = clips[-1].own_end - clips[0].own_start
    click.echo(f"{wanted}, run {run.run_id}: {total} frames, {len(clips)} clip(s)", err=True)
    if (state := states.video_state(run, wanted)) is not None and state.lacking():
        click.echo(f"not all of it is there: {described(state)}", err=True)
    n = rerun_file.write(clips, lambda clip: _read(run, clip), place, _about(run, wanted), settings.pool.threads, Progress(total))
    click.echo(f"{place}  {n} frames, {place.stat().st_size / 1e6:.1f} MB. Look at it: rerun {place}")


def _read(run: Run, clip: Clip) -> Read:
    from egoworld_ops.files.tables import read_table
    from egoworld_ops.lake import states
    from egoworld_ops.report.layers import read_layers

    layers = read_layers(run, clip.video_id, clip.clip_id)
    state = states.clip_states(run, clip.video_id, clip.clip_id).get("points")
    if state is None or state.state != "done":
        return layers, None
    return layers, read_table(run.clip_table("points", clip.video_id, clip.clip_id), "points")


def _about(run: Run, video_id: str) -> str:
    """Where the results come from, as Markdown."""
    return f"# {video_id}\n\nRun `{run.run_id}` of {run.lake.root.resolve()}. `egoworld explain {video_id}` says how each result was made."


COMMANDS = (rerun,)
