"""What the command line does: register raw files, add their partitions, and launch the chain in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from egoworld_assets.partitions import VIDEO_IDS, add_videos
from egoworld_ops.errors import BadSettings, SetupError
from egoworld_ops.files import locks
from egoworld_ops.settings import Settings, load_settings

Say = Callable[[str], None]


def settings(profile: str | None) -> Settings:
    """The settings of a profile; also what the Dagster resources of this process will see."""
    if profile:
        os.environ["EGOWORLD_PROFILE"] = profile
    return load_settings(profile)


def instance() -> dg.DagsterInstance:
    """The Dagster instance of DAGSTER_HOME. Processes that open it at once take turns: where it is new, Dagster makes its databases without a lock.

    Raises:
        BadSettings: DAGSTER_HOME is not set, or is no folder.
    """
    home = os.environ.get("DAGSTER_HOME", "")
    if not home or not Path(home).is_dir():
        reason = f"{home} is no folder" if home else "is not set"
        raise BadSettings("DAGSTER_HOME", reason, "Set it to the folder that holds dagster.yaml; `make` does so")
    with ExitStack() as turn:
        with suppress(OSError):  # where no file can be made Dagster makes no databases either
            turn.enter_context(locks.alone(Path(home)))
        return dg.DagsterInstance.get()


def add_partitions(video_ids: Sequence[str]) -> None:
    """Make each video a partition of the assets."""
    with instance() as dagster:
        add_videos(dagster, video_ids)


def process(video_ids: Sequence[str], say: Say) -> list[str]:
    """Run the whole chain over registered videos, one Dagster run a video; returns the videos whose run failed.

    Raises:
        SetupError: one of them is no partition of this Dagster instance.
    """
    from egoworld_assets.definitions import defs

    job = defs.resolve_job_def("process_videos")
    failed = []
    with instance() as dagster:
        registered = set(dagster.get_dynamic_partitions(str(VIDEO_IDS.name)))
        for video_id in video_ids:
            if video_id not in registered:
                raise SetupError(f"video {video_id}", "is not registered here", "Register the raw file: `egoworld register PATH`")
        for n, video_id in enumerate(video_ids, 1):
            say(f"[{n}/{len(video_ids)}] {video_id}")
            quiet: dict[str, Any] = {"loggers": {"brief": {}}}
            result = job.execute_in_process(instance=dagster, partition_key=video_id, run_config=quiet, raise_on_error=False)
            for event in result.get_asset_materialization_events():
                if "dagster/row_count" in event.step_materialization_data.materialization.metadata:
                    say(_summary(event))
            if not result.success:
                failed.append(video_id)
    return failed


def _summary(event: dg.DagsterEvent) -> str:
    done = event.step_materialization_data.materialization
    metadata = {name: entry.value for name, entry in done.metadata.items()}
    counts = ", ".join(f"{n} {name}" for name, n in metadata.items() if name.startswith(("clips ", "videos ")) and n)
    return f"  {done.asset_key.to_user_string():<12} {metadata['dagster/row_count']:>7} rows  {metadata['seconds']:>8.2f} s  {counts}"
