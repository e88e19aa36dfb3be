"""What the command line does: register raw files, add their partitions, and launch the chain in this process."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import dagster as dg
from dagster._core.instance import InstanceRef

from egoworld_assets.chain import configuration
from egoworld_assets.cli import outcome
from egoworld_assets.cli.group import INTERRUPTED
from egoworld_assets.partitions import VIDEO_IDS, add_videos
from egoworld_assets.resources import profile_tags
from egoworld_ops import home
from egoworld_ops.errors import BadSettings
from egoworld_ops.files import locks
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import intake
from egoworld_ops.settings import Settings, load_settings

Say = Callable[[str], None]
SHIPPED = Path(__file__).parents[1] / "home"
"""The files that make a folder a DAGSTER_HOME, and from which `dagster dev` starts."""
RAW = "raw"
_AT_A_TERMINAL = {"compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}}
"""Output goes to the terminal only: the processes by which Dagster copies it into files die with tracebacks at Ctrl-C (docs/adr/0030)."""


def settings(profile: str | None) -> Settings:
    """The settings of a profile, and a home for Dagster.

    Raises:
        BadSettings: a setting, or DAGSTER_HOME, cannot be used.
    """
    _make_home()
    return load_settings(profile)


def _make_home() -> None:
    """Prepare the folder for Dagster: DAGSTER_HOME, or the working folder. A new one gets the shipped `dagster.yaml`.

    Raises:
        BadSettings: DAGSTER_HOME is no folder.
    """
    given = os.environ.get("DAGSTER_HOME", "")
    place = Path(given or Path.cwd()).expanduser().absolute()
    if not place.is_dir():
        raise BadSettings(
            "DAGSTER_HOME", f"{given} is no folder", f"Make it: `mkdir -p {given}`; or leave it out and use the working folder"
        )
    os.environ["DAGSTER_HOME"] = str(place)
    if not (place / home.INSTANCE).exists():
        for shipped in sorted(SHIPPED.glob("*.yaml")):
            shutil.copyfile(shipped, place / shipped.name)
        (place / RAW).mkdir(exist_ok=True)
        click.echo(f"new home  {place}: made {home.INSTANCE} and {RAW}/; relative paths of settings begin here", err=True)


def instance() -> dg.DagsterInstance:
    """The Dagster instance of DAGSTER_HOME. Processes that open it at once take turns: where it is new, Dagster makes its databases without a lock.

    Raises:
        BadSettings: DAGSTER_HOME is no folder.
    """
    _make_home()
    with ExitStack() as turn:
        with suppress(OSError):  # where no file can be created, Dagster creates no databases either
            turn.enter_context(locks.alone(Path(os.environ["DAGSTER_HOME"])))
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(os.environ["DAGSTER_HOME"], overrides=_AT_A_TERMINAL))


def add_partitions(settings: Settings, video_ids: Sequence[str]) -> None:
    """Make each video of the lake a partition of the assets."""
    lake_id = intake.lake_id(Lake(settings.lake))
    with instance() as dagster:
        add_videos(dagster, video_ids, lake_id)


def remove_partitions(video_ids: Sequence[str]) -> None:
    """Remove these videos from the partitions. Their events stay."""
    with instance() as dagster:
        for video_id in set(video_ids).intersection(dagster.get_dynamic_partitions(str(VIDEO_IDS.name))):
            dagster.delete_dynamic_partition(str(VIDEO_IDS.name), video_id)


def process(settings: Settings, video_ids: Sequence[str], say: Say, profile: str | None = None) -> list[str]:
    """Run the whole chain over registered videos, one Dagster run a video; returns the videos that could not be processed completely.

    Raises:
        Exit: somebody interrupted it.

    Args:
        profile: that of the settings. It becomes a tag of the runs, which re-executions in the UI keep.
    """
    from egoworld_assets.definitions import defs
    from egoworld_assets.jobs import PURPOSE_TAG

    job = defs.resolve_job_def("process_videos")
    failed = []
    say(f"lake {settings.lake}")
    with instance() as dagster, _interrupts() as pressed:
        add_videos(dagster, video_ids, intake.lake_id(Lake(settings.lake)))  # those that were registered under another home
        for n, video_id in enumerate(video_ids, 1):
            say(f"[{n}/{len(video_ids)}] {video_id}")
            quiet: dict[str, Any] = {"loggers": {"brief": {}}}
            tags = profile_tags(profile) | {PURPOSE_TAG: "egoworld process"}
            result = job.execute_in_process(instance=dagster, partition_key=video_id, run_config=quiet, tags=tags, raise_on_error=False)
            for line in outcome.table(result):
                say(line)
            if pressed() or outcome.interrupted(result):
                say("interrupted: what is done is kept; `egoworld process --missing` goes on")
                raise click.exceptions.Exit(INTERRUPTED)
            if not result.success or outcome.lacks(result):
                failed.append(video_id)
    _say_latest(settings, say)
    return failed


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed meanwhile, also if its exception was lost: Python drops exceptions raised in destructors and callbacks."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def pressed() -> bool:
        try:
            return signal.SIGINT in os.read(read, select.PIPE_BUF)
        except BlockingIOError:
            return False

    try:
        yield pressed
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def _say_latest(settings: Settings, say: Say) -> None:
    """Says which run queries use, if it is not the run just written to."""
    run, latest = configuration.find_run(settings), Lake(settings.lake).latest_run()
    if run is not None and latest is not None and run != latest:
        reason = "it is pinned, or holds more"
        say(f"latest run: still {latest.run_id} ({reason}); results are in run {run.run_id}: `egoworld runs use {run.run_id}`")
