"""From a stage and its videos to results, and from results to files. No Dagster here: the command line and the benchmarks drive the same code."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from egoworld_assets.planning import Planner, StageResult, State
from egoworld_ops import digest, lake, operators, registry, schema
from egoworld_ops.errors import EgoworldError, SetupError, recorded
from egoworld_ops.lake import Lake, Run
from egoworld_ops.settings import Settings
from egoworld_ops.task import ClipTask
from gpu_workers.pool import Pool

MANIFEST = "manifest"


def frozen_configuration(settings: Settings) -> dict[str, Any]:
    """What makes a run this run: schema, scene, camera and sampling settings, and every stage's code, settings and weights."""
    from egoworld_ops import manifest

    return {
        "schema": schema.SCHEMA_VERSION,
        "manifest": {"version": manifest.VERSION, "scenes": settings.scenes.model_dump(mode="json")},
        "camera": settings.camera.model_dump(mode="json"),
        "sample_stride": settings.sample_stride,
        "stages": {stage: digest.operator_identity(stage, settings) for stage in operators.stages()},
    }


def open_run(settings: Settings) -> Run:
    """The run that these settings write to."""
    return Lake(settings.lake).open_run(frozen_configuration(settings), settings.run_id, lambda: _about(settings))


def manifest_results(run: Run, video_ids: Iterable[str], settings: Settings) -> Iterator[StageResult]:
    """The `videos` and `clips` tables of each video. A file that cannot be looked at now fails by itself and leaves what is there."""
    known = registry.registered(run.lake)
    for video_id in video_ids:
        try:
            yield _manifest_result(run, _entry(known, video_id), settings)
        except EgoworldError as error:
            yield StageResult(video_id, None, "failed", error=error)


def _entry(known: Mapping[str, registry.Registered], video_id: str) -> registry.Registered:
    if video_id not in known:
        raise SetupError(
            f"video {video_id}", "is not registered", "Register the raw file: `egoworld register PATH`, or wait for the sensor"
        )
    return known[video_id]


def _manifest_result(run: Run, entry: registry.Registered, settings: Settings) -> StageResult:
    from egoworld_ops import manifest
    from egoworld_ops.video import DECODE_VERSION

    identity = {
        "schema": schema.SCHEMA_VERSION,
        "decode": DECODE_VERSION,
        "version": manifest.VERSION,
        "scenes": settings.scenes.model_dump(mode="json"),
        "video": entry.sha256,
        "path": str(entry.path),
    }
    key = digest.sha256_of(identity)
    states = [run.adopt(run.video_table(t, entry.video_id), key) for t in ("clips", "videos")]
    if all(states):
        videos, clips = (lake.read_table(run.video_table(t, entry.video_id), t) for t in ("videos", "clips"))
        state: State = "linked" if "linked" in states else "done"
        error = _rejection(videos)
        return StageResult(entry.video_id, None, "failed" if error else state, clips.num_rows, error=error)
    started = time.monotonic()
    videos, clips = manifest.make_manifest(entry.path, entry.video_id, entry.sha256, settings.scenes)
    seconds = time.monotonic() - started
    stamp = lake.stamp(key, identity, clips.num_rows, seconds, run.run_id)
    error = _rejection(videos)
    tables = {"clips": clips, "videos": videos}
    return StageResult(entry.video_id, None, "failed" if error else "computed", clips.num_rows, seconds, tables, stamp, error)


def _rejection(videos: pa.Table) -> EgoworldError | None:
    """The error that a row of `videos` stands for; None for a video that can be processed."""
    [row] = videos.to_pylist()
    return recorded(row["error_class"], row["path"], row["reason"], row["cure"]) if row["status"] == "rejected" else None


def stage_results(run: Run, stage: str, video_ids: Iterable[str], settings: Settings, pool: Pool) -> Iterator[StageResult]:
    """What becomes of every clip of these videos in a stage. Lazy: clips are planned as fast as results are taken."""
    planner = Planner(run, stage, settings)
    settled: deque[StageResult] = deque()

    def todo() -> Iterator[ClipTask]:
        for video_id in video_ids:
            for planned in planner.plan(video_id):
                if isinstance(planned, StageResult):
                    settled.append(planned)
                else:
                    yield planned

    for outcome in pool.run(todo()):
        while settled:
            yield settled.popleft()
        yield planner.result(outcome)
    yield from settled


def process(run: Run, video_ids: Sequence[str], settings: Settings, pool: Pool) -> Iterator[tuple[str, StageResult]]:
    """Every stage over these videos, each result stored before it is handed on with the name of its stage."""
    for stage in (MANIFEST, *operators.stages()):
        for result in results(run, stage, video_ids, settings, pool):
            store(run, stage, result)
            yield stage, result


def results(run: Run, stage: str, video_ids: Iterable[str], settings: Settings, pool: Pool) -> Iterator[StageResult]:
    """What becomes of these videos in a stage, `manifest` included. Lazy."""
    if stage == MANIFEST:
        return manifest_results(run, video_ids, settings)
    return stage_results(run, stage, video_ids, settings, pool)


def store(run: Run, stage: str, result: StageResult) -> None:
    """Write what a result holds, whole files only. `videos` goes last: it completes a manifest. The planner has checked the tables of clips.

    A failure never takes the place of a result that somebody else has finished meanwhile, and goes when the clip succeeds.
    """
    if result.clip_id is None:
        for name, rows in result.tables.items():
            lake.write_table(run.video_table(name, result.video_id), name, rows, result.provenance)
        return
    table = run.clip_table(stage, result.video_id, result.clip_id)
    failure = run.failure(stage, result.video_id, result.clip_id)
    if "failures" in result.tables and lake.digest_at(table) == result.provenance["digest"]:
        return
    if result.stale:
        table.unlink(missing_ok=True)
    if result.state in ("computed", "linked", "done"):
        failure.unlink(missing_ok=True)
    for name, rows in result.tables.items():
        lake.write_table(failure if name == "failures" else table, name, rows, result.provenance, validated=True)
    if result.tables or result.state == "linked":
        run.write_meta(result.video_id, result.clip_id)


def _about(settings: Settings) -> dict[str, Any]:
    packages = ("egoworld", "dagster", "pyarrow", "duckdb", "av", "scenedetect-headless", "opencv-python-headless", "numpy")
    return {
        "settings": settings.model_dump(mode="json"),
        "packages": {name: version(name) for name in packages},
        "python": sys.version.split()[0],
        "host": platform.node(),
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit of this checkout and whether it has changes; None where the code is not in a checkout."""
    here = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status)}
