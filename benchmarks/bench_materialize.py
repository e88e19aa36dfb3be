"""The cost of Dagster, the lake and the checks: a materialization against a bare loop over the same operators.

    python -m benchmarks.bench_materialize

Both decode the same clips and run the same operators, loaded beforehand: the loop runs them one after the other in this process, keeps its tables
in memory and writes nothing; the materialization is the job `process_videos`, on a fresh lake and an instance on disk, with digests, Parquet files,
ledger, checks and preview, and with the pool that is the default: a broker of its own whose one worker has as many threads as the loop. So part of
the platform's cost runs beside the operators, as it does in use. They take turns, and the best of each counts: other load can
only slow one down. Exits with 1 above a limit.

Two videos: one of a minute in clips of ten seconds, as people have them; and one of half a minute in 64 clips, in which what each clip costs weighs
twenty times as much. Beside the latter stands what Dagster alone takes for as many assets and checks that do nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import dagster as dg
import pyarrow as pa

from egoworld_assets.checks import KINDS
from egoworld_assets.definitions import defs
from egoworld_assets.partitions import add_videos
from egoworld_ops import operators
from egoworld_ops.execution.identity import operator_of
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.lake import lake
from egoworld_ops.operators.base import ClipInput, Operator
from egoworld_ops.raw import register
from egoworld_ops.raw.intake import Registered, registered
from egoworld_ops.settings import Settings, load_settings
from egoworld_ops.types import Frame
from egoworld_ops.video import decoding, manifest
from gpu_workers import broker_pool
from gpu_workers.pool import Done, Failed
from tests import brokers

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "examples" / "synthetic" / "kitchen.mp4"
VIDEOS = ((6, 10.0, 1.10), (64, 0.5, 1.20))
"""Clips of a video, their length in seconds, and how many times the bare loop its materialization may take."""
ROUNDS = 2


def make_video(path: Path, length_s: float) -> None:
    """Frames of the example scene, again and again."""
    import av

    with av.open(str(SOURCE)) as source:
        rate = source.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for i in range(round(length_s * float(rate))):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(frames[i % len(frames)], format="rgb24")))
        sink.mux(stream.encode(None))


def settings_for(folder: Path, clip_s: float) -> Settings:
    """The laptop's settings with short windows and a lake in `folder`; the resources of this process will read them too."""
    given = {"LAKE": folder / "lake", "RAW": folder, "SCENES__MAX_CLIP_S": clip_s, "SCENES__OVERLAP_S": 0, "SCENES__MIN_SCENE_S": 1000}
    given |= {"POOL__FOLDER": folder / "pool", "POOL__WORKERS": 1}
    os.environ |= {f"EGOWORLD_{name}": str(value) for name, value in given.items()}
    return load_settings()


def materialize(settings: Settings, folder: Path) -> float:
    """Seconds of one run of the whole job, on a fresh lake and a fresh instance."""
    for old in (settings.lake, folder / "home"):
        shutil.rmtree(old, ignore_errors=True)
    (folder / "home").mkdir()
    [video_id] = register.register(settings.lake, [folder / "clips.mp4"]).video_ids
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        add_videos(instance, [video_id])
        job = defs.resolve_job_def("process_videos")
        started = time.perf_counter()
        result = job.execute_in_process(instance=instance, partition_key=video_id, run_config={"loggers": {"brief": {}}})
        taken_s = time.perf_counter() - started
    if not result.success:
        raise RuntimeError("the materialization failed")
    return taken_s


class RecordingPool(broker_pool.BrokerPool):
    """The pool of the materializations; remembers the tasks."""

    tasks: ClassVar[list[ClipTask]] = []

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for outcome in super().run(tasks):
            self.tasks.append(outcome.task)
            yield outcome


class BareLoop:
    """The reference: the manifest, then every operator on every clip, with the tables kept in memory."""

    def __init__(self, settings: Settings, entry: Registered, tasks: Sequence[ClipTask]) -> None:
        self._settings, self._entry, self._tasks = settings, entry, tasks
        self._operators: dict[str, Operator] = {}
        for stage in operators.stages():
            kind, options = operator_of(stage, settings)
            self._operators[stage] = kind(options, settings.pool.threads)

    def seconds(self, tasks: Sequence[ClipTask] | None = None) -> float:
        """Wall-clock seconds of one pass over `tasks`; over all where none are named."""
        started = time.perf_counter()
        manifest.make_manifest(self._entry.path, self._entry.video_id, self._entry.sha256, self._settings.scenes)
        tables: dict[tuple[str, str], pa.Table] = {}
        for task in tasks or self._tasks:
            given = {name: tables[name, task.clip.clip_id] for name in task.inputs}
            item = ClipInput(task.clip, given, task.sidecar, task.camera, task.sample_stride, partial(self._frames, task))
            tables[task.stage, task.clip.clip_id] = self._operators[task.stage].run(item)
        return time.perf_counter() - started

    def _frames(self, task: ClipTask) -> Iterator[Frame]:
        return decoding.decode_clip(task.clip, task.sample_stride, self._settings.pool.threads)


def _in_order(tasks: Sequence[ClipTask]) -> list[ClipTask]:
    """Stage after stage, in each from the start of the video to its end."""
    stages = list(operators.stages())
    return sorted(tasks, key=lambda task: (stages.index(task.stage), task.clip.frame_start))


def with_index_of_their_own(tasks: Sequence[ClipTask], folder: Path) -> list[ClipTask]:
    """The tasks with a copy of their video's packet index, which stays when the lake is removed."""
    [index] = {task.clip.packet_index for task in tasks}
    assert index
    kept = Path(shutil.copy(index, folder))
    return [replace(task, clip=replace(task.clip, packet_index=kept)) for task in tasks]


def idle_seconds() -> float:
    """Seconds that Dagster takes for a chain of as many partitioned assets, each with its checks, that do nothing."""
    partitions = dg.DynamicPartitionsDefinition(name="idle")

    def idle_asset(name: str, before: str | None) -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=[before] if before else [], partitions_def=partitions, code_version="1")
        def compute() -> None:
            pass

        return compute

    def idle_checks(name: str) -> dg.AssetChecksDefinition:
        @dg.multi_asset_check(name=f"{name}_checks", specs=[dg.AssetCheckSpec(f"{name}_{kind}", asset=name) for kind in KINDS])
        def check() -> Iterator[dg.AssetCheckResult]:
            yield from (dg.AssetCheckResult(passed=True, asset_key=name, check_name=f"{name}_{kind}") for kind in KINDS)

        return check

    names = [f"idle_{i}" for i in range(1 + len(operators.stages()))]
    idle = dg.Definitions(
        assets=[idle_asset(name, before) for before, name in zip([None, *names], names, strict=False)],
        asset_checks=[idle_checks(name) for name in names],
        jobs=[dg.define_asset_job("idle", selection=dg.AssetSelection.all(), partitions_def=partitions)],
    )
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        instance.add_dynamic_partitions("idle", ["one"])
        job = idle.resolve_job_def("idle")
        started = time.perf_counter()
        job.execute_in_process(instance=instance, partition_key="one")
        return time.perf_counter() - started


def measured(n_clips: int, clip_s: float) -> tuple[float, float]:
    """Seconds of the bare loop and of a materialization, of a video of so many clips of that length; the best of each."""
    RecordingPool.tasks.clear()
    with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as name:
        folder = Path(name)
        settings = settings_for(folder, clip_s)
        make_video(folder / "clips.mp4", n_clips * clip_s)
        materialize(settings, folder)
        tasks = _in_order(RecordingPool.tasks)
        found = len({task.clip.clip_id for task in tasks})
        if found != n_clips:
            raise RuntimeError(f"the video has {found} clips, want {n_clips}")
        [entry] = registered(lake.Lake(settings.lake)).values()
        loop = BareLoop(settings, entry, with_index_of_their_own(tasks, folder))
        loop.seconds([task for task in tasks if task.clip.clip_id == tasks[0].clip.clip_id])
        taken = [(loop.seconds(), materialize(settings, folder)) for _ in range(ROUNDS)]
        brokers.stop(settings.pool.folder)
    for bare_s, ours_s in taken:
        print(f"clips of {clip_s:g} s: bare loop {bare_s:.1f} s, materialization {ours_s:.1f} s")
    bare_s, ours_s = (min(column) for column in zip(*taken, strict=True))
    return bare_s, ours_s


def main() -> int:
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    broker_pool.BrokerPool = RecordingPool  # type: ignore[misc]
    within = True
    for n_clips, clip_s, limit in VIDEOS:
        bare_s, ours_s = measured(n_clips, clip_s)
        ratio = ours_s / bare_s
        within = within and ratio <= limit
        said = f"{n_clips} clips of {clip_s:g} s, {len(operators.stages())} stages"
        print(f"FIGURE materialization of {said}: {ratio:.3f} x the bare loop (limit {limit:.2f})")
    idle_s = min(idle_seconds() for _ in range(ROUNDS))
    each_ms = (ours_s - bare_s - idle_s) / (n_clips * len(operators.stages())) * 1e3
    print(f"of the last: Dagster alone, with assets and checks that do nothing, {idle_s:.1f} s; beside it {each_ms:.1f} ms a result")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
