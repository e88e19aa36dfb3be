"""From a stage and its videos to results: which clips are done, linked, blocked or to be computed; and how a result is stored.

No Dagster here: the command line and the benchmarks drive the same code.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from egoworld_ops import camera, digest, errors, lake, operators, registry, schema
from egoworld_ops.errors import EgoworldError, SetupError, UnstableFile
from egoworld_ops.lake import Lake, Run
from egoworld_ops.sidecar import Sidecar, read_sidecar
from egoworld_ops.task import ClipTask
from egoworld_ops.types import Clip
from gpu_workers.pool import Done, Failed, Pool

if TYPE_CHECKING:
    from egoworld_ops.settings import Settings

State = Literal["computed", "linked", "done", "failed", "blocked"]
MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class StageResult:
    """What became of one clip in one stage (of one video, for the manifest).

    Args:
        state: `computed` now, `linked` from an earlier run, `done` before, `failed`, or `blocked` by a failure further up.
        tables: what has to be written, by table name.
        provenance: goes into each written file.
        error, traceback: of a failure.
    """

    video_id: str
    clip_id: str | None
    state: State
    rows: int = 0
    seconds: float = 0.0
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: EgoworldError | None = None
    traceback: str = ""


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
    return Lake(settings.lake).open_run(frozen_configuration(settings), settings.run_id, _about(settings))


def manifest_results(run: Run, video_ids: Iterable[str], settings: Settings) -> Iterator[StageResult]:
    """The `videos` and `clips` tables of each video."""
    known = registry.registered(run.lake)
    for video_id in video_ids:
        if video_id not in known:
            raise SetupError(
                f"video {video_id}", "is not registered", "Register the raw file: `egoworld register PATH`, or wait for the sensor"
            )
        yield _manifest_result(run, known[video_id], settings)


def _manifest_result(run: Run, entry: registry.Registered, settings: Settings) -> StageResult:
    from egoworld_ops import manifest

    identity = {
        "schema": schema.SCHEMA_VERSION,
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
    return _recorded_error(row["error_class"], row["path"], row["reason"], row["cure"]) if row["status"] == "rejected" else None


def _recorded_error(class_name: str, culprit: str, reason: str, cure: str) -> EgoworldError:
    kind: type[EgoworldError] = getattr(errors, class_name, EgoworldError)
    return kind(culprit, reason, cure)


def stage_results(run: Run, stage: str, video_ids: Iterable[str], settings: Settings, pool: Pool) -> Iterator[StageResult]:
    """What becomes of every clip of these videos in a stage. Lazy: clips are planned as fast as results are taken."""
    planner = _Planner(run, stage, settings)
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


class _Planner:
    """Decides for each clip of a stage whether it is done, and describes the work where it is not."""

    def __init__(self, run: Run, stage: str, settings: Settings) -> None:
        self._run, self._settings = run, settings
        self._stage = operators.stages()[stage]
        self._operator = digest.operator_identity(stage, settings)
        self._registered = registry.registered(run.lake)
        self._identities: dict[str, dict[str, Any]] = {}

    def plan(self, video_id: str) -> Iterator[StageResult | ClipTask]:
        from egoworld_ops import manifest

        videos, clips = (self._manifest_table(t, video_id) for t in ("videos", "clips"))
        sidecar: Sidecar | EgoworldError | None = None
        for clip in manifest.clips_from_tables(videos, clips):
            sidecar = sidecar or self._read_beside(clip)
            yield self._plan_clip(clip, sidecar)

    def _read_beside(self, clip: Clip) -> Sidecar | EgoworldError:
        """The sidecar; or why the video cannot be worked on: it is not the registered content any more, or its sidecar is bad."""
        try:
            _check_content(clip, self._registered.get(clip.video_id))
            return read_sidecar(clip.video_path)
        except EgoworldError as error:
            return error

    def _manifest_table(self, table: str, video_id: str) -> pa.Table:
        path = self._run.video_table(table, video_id)
        if not path.exists():
            raise SetupError(f"video {video_id}", f"has no {table} in run {self._run.run_id}", "Materialize the asset `manifest` first")
        return lake.read_table(path, table)

    def _plan_clip(self, clip: Clip, sidecar: Sidecar | EgoworldError) -> StageResult | ClipTask:
        stage = self._stage.name
        inputs = {name: self._run.clip_table(name, clip.video_id, clip.clip_id) for name in self._stage.inputs}
        input_digests = {name: lake.digest_at(path) for name, path in inputs.items()}
        present = {name: value for name, value in input_digests.items() if value is not None}
        if len(present) < len(inputs):
            return StageResult(clip.video_id, clip.clip_id, "blocked")
        if isinstance(sidecar, EgoworldError):
            return self._failure(clip, sidecar, "", 0.0, digest.sha256_of({"beside": str(sidecar)}))
        try:
            intrinsics = camera.resolve(clip.width, clip.height, sidecar, self._settings.camera, clip.video_path)
            identity = digest.clip_identity(self._stage, self._operator, clip, intrinsics, sidecar, self._settings.sample_stride, present)
        except EgoworldError as error:
            if isinstance(error, SetupError):
                raise
            return self._failure(clip, error, "", 0.0, digest.sha256_of({"input": str(error)}))
        key = digest.sha256_of(identity)
        path = self._run.clip_table(stage, clip.video_id, clip.clip_id)
        if state := self._run.adopt(path, key):
            rows = (lake.provenance(path) or {})["rows"]
            return StageResult(clip.video_id, clip.clip_id, "linked" if state == "linked" else "done", rows)
        if failed := self._known_failure(clip, key):
            return failed
        self._identities[key] = identity
        return ClipTask(
            key=key,
            stage=stage,
            backend=self._operator["backend"],
            options=self._operator["settings"],
            clip=clip,
            inputs=inputs,
            camera=intrinsics,
            sidecar=sidecar,
            sample_stride=self._settings.sample_stride,
        )

    def _known_failure(self, clip: Clip, key: str) -> StageResult | None:
        """The failure on record, where the same work on the same file failed before and no retry can help."""
        path = self._run.failure(self._stage.name, clip.video_id, clip.clip_id)
        recorded = lake.provenance(path) or {}
        if recorded.get("digest") != key or recorded["identity"] != {"raw": _raw_state(clip)}:
            return None
        [row] = lake.read_table(path, "failures").to_pylist()
        if row["retryable"]:
            return None
        culprit, _, reason = row["reason"].partition(": ")
        return StageResult(clip.video_id, clip.clip_id, "failed", error=_recorded_error(row["error_class"], culprit, reason, row["cure"]))

    def result(self, outcome: Done | Failed) -> StageResult:
        clip, key = outcome.task.clip, outcome.task.key
        identity = self._identities.pop(key)
        if isinstance(outcome, Failed):
            return self._failure(clip, outcome.error, outcome.traceback, outcome.seconds, key)
        stamp = lake.stamp(key, identity, outcome.table.num_rows, outcome.seconds, self._run.run_id)
        tables = {self._stage.name: outcome.table}
        return StageResult(clip.video_id, clip.clip_id, "computed", outcome.table.num_rows, outcome.seconds, tables, stamp)

    def _failure(self, clip: Clip, error: EgoworldError, traceback: str, seconds: float, key: str) -> StageResult:
        row = {
            "video_id": clip.video_id,
            "clip_id": clip.clip_id,
            "stage": self._stage.name,
            "backend": self._operator["backend"],
            "error_class": type(error).__name__,
            "reason": f"{error.culprit}: {error.reason}",
            "cure": error.cure,
            "retryable": error.retryable,
            "traceback": traceback,
        }
        stamp = lake.stamp(key, {"raw": _raw_state(clip)}, 1, seconds, self._run.run_id)
        tables = {"failures": schema.from_rows("failures", [row])}
        return StageResult(clip.video_id, clip.clip_id, "failed", 0, seconds, tables, stamp, error, traceback)


def _check_content(clip: Clip, entry: registry.Registered | None) -> None:
    """Raise UnstableFile where the raw file no longer holds what was registered. It is read only where its size or time of change differ."""
    from egoworld_ops.intake import hash_file

    state = _raw_state(clip)
    if entry is not None and entry.path == clip.video_path and state == [entry.bytes, entry.mtime_ns]:
        return
    if hash_file(clip.video_path)[0] != clip.video_sha256:
        raise UnstableFile(clip.video_path, "holds other content than when it was registered", "Restore the file, or register it again")


def _raw_state(clip: Clip) -> list[int] | None:
    """Size and time of change of the raw file; None where it is not there."""
    try:
        state = clip.video_path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def store(run: Run, stage: str, result: StageResult) -> None:
    """Write what a result holds, whole files only. `videos` goes last: it completes a manifest.

    What a blocked clip left behind from other inputs is removed: nothing stale stands beside the failure above it.
    """
    if result.state == "blocked" and result.clip_id is not None:
        run.clip_table(stage, result.video_id, result.clip_id).unlink(missing_ok=True)
        run.failure(stage, result.video_id, result.clip_id).unlink(missing_ok=True)
    for name, rows in result.tables.items():
        lake.write_table(_target(run, stage, name, result), name, rows, result.provenance)
    if result.clip_id is None or not result.tables:
        return
    if "failures" in result.tables:
        run.clip_table(stage, result.video_id, result.clip_id).unlink(missing_ok=True)
    else:
        run.failure(stage, result.video_id, result.clip_id).unlink(missing_ok=True)
    run.write_meta(result.video_id, result.clip_id)


def _target(run: Run, stage: str, table: str, result: StageResult) -> Path:
    if result.clip_id is None:
        return run.video_table(table, result.video_id)
    if table == "failures":
        return run.failure(stage, result.video_id, result.clip_id)
    return run.clip_table(stage, result.video_id, result.clip_id)


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
