"""A video whose stages are all done, with the digests that planning expects, without decoding or computing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings, load_settings
from gpu_workers.pool import Done, Failed
from tests import lakes
from tests.egoworld_ops.media import aged


class RowsPool:
    """A pool that gives valid rows for every task, and counts the tasks."""

    def __init__(self) -> None:
        self.tasks: list[ClipTask] = []

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for task in tasks:
            self.tasks.append(task)
            frames = np.arange(task.clip.frame_start, task.clip.frame_end)
            yield Done(task, lakes.stage_rows(task.stage, task.clip.video_id, task.clip.clip_id, frames, np.random.default_rng(1)), 0.1)


def settings_in(folder: Path) -> Settings:
    """Settings for a lake and a raw folder below it, without pauses between attempts."""
    return load_settings("laptop").model_copy(update={"lake": folder / "lake", "raw": folder / "raw", "retry_after_s": ()})


def settings_of_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lake and a raw folder that commands find; the working folder is beside them."""
    made = settings_in(folder)
    for name, value in (("EGOWORLD_LAKE", made.lake), ("EGOWORLD_RAW", made.raw), ("DAGSTER_HOME", folder)):
        monkeypatch.setenv(name, str(value))
    made.raw.mkdir()
    monkeypatch.chdir(folder)
    return made


def registered_video(settings: Settings, name: str = "v", n_frames: int = 60, clip_s: float = 1.0) -> tuple[Run, str]:
    """A registered raw file with a manifest, and no other results, in the run of these settings."""
    settings.raw.mkdir(exist_ok=True)
    path = settings.raw / f"{name}.mp4"
    path.write_bytes(name.encode())  # so the SHA-256 of its content is the one that `write_video` takes
    aged(path)
    [video_id] = register.register(settings.lake, [path]).video_ids
    run = configuration.open_run(settings)
    assert lakes.write_manifest(run, name, n_frames, clip_s, path=str(path)) == video_id
    return run, video_id


def go(
    run: Run, video_id: str, settings: Settings, first: str = "detections", last: str | None = None
) -> tuple[RowsPool, list[StageResult]]:
    """Compute the stages from `first` on; returns the pool, and the result of each clip."""
    pool = RowsPool()
    results = [result for _, result in pipeline.process(run, [video_id], settings, pool, pipeline.Part(first=first, last=last))]
    return pool, results
