"""Commands about the registered videos: list them with their status, and forget one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from egoworld_ops.naming import did_you_mean

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Run
    from egoworld_ops.lake.states import VideoState
    from egoworld_ops.raw.intake import Registered
    from egoworld_ops.settings import Settings


def chosen(settings: Settings, patterns: Sequence[str]) -> list[str]:
    """The registered videos that match these names and patterns; all if none are given.

    Raises:
        SetupError: one of them means no registered video.
    """
    from egoworld_ops.errors import SetupError
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.raw.intake import registered

    known = list(registered(Lake(settings.lake)))
    if not patterns:
        return known
    wanted: list[str] = []
    for pattern in patterns:
        if not (found := [video_id for video_id in known if fnmatchcase(video_id, pattern)]):
            cure = (
                f"{did_you_mean(pattern, known)} Register a raw file with `egoworld register PATH`; `egoworld videos` lists what there is"
            )
            raise SetupError(f"video {pattern}", f"is not registered in lake {settings.lake}", cure)
        wanted += found
    return list(dict.fromkeys(wanted))


def lacks(settings: Settings, video_id: str) -> bool:
    """Whether a video has work left in the run that the settings write to; a rejected video and a dead letter count as done."""
    from egoworld_assets.chain import configuration
    from egoworld_ops.lake import states

    run = configuration.find_run(settings)
    video = states.video_state(run, video_id) if run else None
    if video is None:
        return True
    return any(state not in ("done", "failed", "blocked") for clip in video.clips for state in clip.states.values())


@click.command("videos")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.pass_obj
def list_videos(profile: str | None, patterns: Sequence[str]) -> None:
    """List the registered videos with their status in the run of these settings, or else in the latest one."""
    from egoworld_assets.chain import configuration
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.raw.intake import registered
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    store = Lake(settings.lake)
    run = configuration.find_run(settings) or (runs.latest(store) if store.runs() else None)
    known = registered(store)
    names = chosen(settings, patterns)
    for video_id in names:
        click.echo(f"{video_id:<40} {_status(run, known[video_id])}")
    click.echo(f"{len(names)} video(s); lake {settings.lake}, {f'run {run.run_id}' if run else 'no run yet'}")


def _status(run: Run | None, entry: Registered) -> str:
    from egoworld_ops.errors import ContractError
    from egoworld_ops.lake import states

    try:
        video = states.video_state(run, entry.video_id) if run else None
    except ContractError as error:
        return f"damaged: {error}"
    said = "not processed" if video is None else described(video)
    try:
        return said if entry.path.exists() else f"{said}; its raw file is away: {entry.path}"
    except OSError as error:
        return f"{said}; its raw file cannot be read now: {error}"


def described(video: VideoState) -> str:
    """The status of a video, in one line."""
    if video.video["status"] == "rejected":
        return f"rejected: {video.video['reason']}. {video.video['cure']}"
    lacking = video.lacking()
    if not lacking:
        return f"done, {len(video.clips)} clip(s)"
    stages = ", ".join(f"{stage} {_counted(states)}" for stage, states in lacking.items())
    return f"incomplete, of {len(video.clips)} clip(s): {stages}"


def _counted(states: Mapping[str, int]) -> str:
    return " ".join(f"{n} {state}" for state, n in Counter(states).items())


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="VIDEO_ID | PATTERN...")
@click.pass_obj
def forget(profile: str | None, patterns: Sequence[str]) -> None:
    """Process these videos no more: they are no partitions, and the sensor leaves their raw files alone. `egoworld register FILE` takes one back.

    Their results stay in the runs that have them.
    """
    from egoworld_assets.cli import processing
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.raw import intake

    settings = processing.settings(profile)
    names = chosen(settings, patterns)
    intake.forget(Lake(settings.lake), names)
    processing.remove_partitions(names)
    for video_id in names:
        click.echo(f"forgotten  {video_id}")


COMMANDS = (list_videos, forget)
