"""A lake with videos that can be watched: raw files that decode, their true manifests, and of one a sample row of every stage in every frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from egoworld_assets.chain import configuration, pipeline
from egoworld_ops.contract import schema
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings
from gpu_workers.pool import Done, Failed
from tests.egoworld_ops import media
from tests.finished import settings_in
from tests.rows import sample_row

N_FRAMES = 40
SIZE = (160, 120)
LAST_OF_FIRST = 31
TICKS = [0, *(3000 * i + 700 * (i % 3) for i in range(1, N_FRAMES))]
"""Times of the frames of the first video, of 1/90000 s: no frame rate tells them."""


class SamplePool:
    """Gives a sample row of the stage in every frame of every task."""

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for task in tasks:
            clip = task.clip
            of_clip = {"video_id": clip.video_id, "clip_id": clip.clip_id}
            rows = [sample_row(task.stage, frame) | of_clip for frame in range(clip.frame_start, clip.frame_end)]
            yield Done(task, schema.from_rows(task.stage, rows), 0.1)


class UnsurePool(SamplePool):
    """As that, but that hands are less sure in odd frames, and there is none in the last frame of the first clip."""

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for done in super().run(tasks):
            assert isinstance(done, Done)
            rows = done.table.to_pylist()
            if done.task.stage == "hand_pose":
                rows = [row | ({"score": 0.5} if row["frame_index"] % 2 else {}) for row in rows if row["frame_index"] != LAST_OF_FIRST]
            yield Done(done.task, schema.from_rows(done.task.stage, rows), 0.1)


def another_run(settings: Settings, video_id: str) -> Run:
    """A run of another assumed field of view, with the results of `UnsurePool`; what does not depend on the camera is linked."""
    other = settings.model_copy(update={"camera": settings.camera.model_copy(update={"assumed_hfov_deg": 60.0})})
    run = configuration.open_run(other)
    results = [result for _, result in pipeline.process(run, [video_id], other, UnsurePool(), pipeline.Part())]
    assert all(result.error is None for result in results), results
    return run


def lake_in(folder: Path) -> tuple[Settings, Run, dict[str, str]]:
    """Settings, run, and video_id by name: `played`, which browsers play, and `copied`, which they do not, and of which only the manifest is made."""
    settings = settings_in(folder)
    settings.raw.mkdir()
    media.make(settings.raw / "played.mp4", N_FRAMES, SIZE, pts=TICKS, time_base=Fraction(1, 90_000))
    media.make(settings.raw / "copied.avi", N_FRAMES, SIZE, codec="mpeg4")
    paths = [settings.raw / "played.mp4", settings.raw / "copied.avi"]
    played, copied = register.register(settings.lake, paths).video_ids
    run = configuration.open_run(settings)
    for video_id, last in ((played, None), (copied, "manifest")):
        results = [result for _, result in pipeline.process(run, [video_id], settings, SamplePool(), pipeline.Part(last=last))]
        assert all(result.error is None for result in results), results
    return settings, run, {"played": played, "copied": copied}
