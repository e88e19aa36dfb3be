"""Runs the stages of a profile over videos on this machine, one after the other and then all through the pool, and measures both."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from egoworld_assets.acceptance import comparing, resources
from egoworld_assets.acceptance.accuracy import is_random
from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.clips import clips_of
from egoworld_assets.chain.tables import tables_of
from egoworld_ops import operators
from egoworld_ops.errors import EgoworldError
from egoworld_ops.execution.identity import backend_of, operator_of
from egoworld_ops.files.tables import read_table
from egoworld_ops.settings import StageSettings
from gpu_workers import pool as pools
from gpu_workers.inline import InlinePool

if TYPE_CHECKING:
    from egoworld_assets.acceptance.comparing import Compared
    from egoworld_ops.lake.lake import Run
    from egoworld_ops.settings import Settings
    from gpu_workers.pool import Pool

_OTHERS: Mapping[str, tuple[object, ...]] = {"precision": ("float32", "bfloat16"), "compile": (False, True), "tracks_at_once": (1, 8)}
"""Options that are to change how fast a backend is, not what it finds, and their values. A backend that has one is run with each."""


@dataclass(slots=True)
class StageMeasured:
    """One stage over all videos.

    Args:
        device: that the backend computes on.
        random: it has random numbers in the place of weights.
        clips: of which it made a table.
        frames: of these clips that were processed.
        loading_s: by which its first pass, which loads the backend, took longer than its second.
        seconds: of the second pass, decoding and writing included.
        host_mb, device_mb: peak of both passes; see `resources.Used`.
        repeated: whether its second pass gave the very tables of the first; None where there was none.
        failures: why it could not run, or of which clips it made no table; one sentence each.
        blocked: clips of which an input from upstream is missing.
    """

    stage: str
    backend: str
    device: str
    random: bool
    clips: int = 0
    frames: int = 0
    loading_s: float = 0.0
    seconds: float = 0.0
    host_mb: float | None = None
    device_mb: float | None = None
    repeated: bool | None = None
    failures: list[str] = field(default_factory=list)
    blocked: int = 0

    @property
    def frames_per_s(self) -> float | None:
        """Frames in a second, the backend loaded; None where it processed none."""
        return self.frames / self.seconds if self.frames and self.seconds else None


@dataclass(frozen=True, slots=True)
class Variant:
    """A stage with another value of an option, beside the profile's.

    Args:
        times_as_fast: as with the profile's value; None where one of them processed nothing.
        compared: its tables with the profile's, first those; None where it could not run.
        reason: why not.
    """

    stage: str
    option: str
    value: object
    profile_value: object
    times_as_fast: float | None = None
    compared: Compared | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """All stages at once through the pool of the profile.

    Args:
        seconds: from the first clip to the last, with the start of workers where none ran.
        video_s: length of the videos.
        equal: whether it gave the very tables that the stages gave alone.
        failed: results that are missing.
    """

    seconds: float
    video_s: float
    duty: resources.Duty
    equal: bool
    failed: int


def stages(run: Run, video_ids: Sequence[str], settings: Settings) -> Iterator[StageMeasured]:
    """Each stage alone in this process, twice: the first loads the backend, the second is timed and must give the same."""
    for stage in operators.stages():
        yield _stage(run, stage, video_ids, settings)


def _stage(run: Run, stage: str, video_ids: Sequence[str], settings: Settings) -> StageMeasured:
    operator, options = operator_of(stage, settings)
    found = StageMeasured(stage, backend_of(stage, settings), operator.device(options), is_random(stage, settings))
    pool = InlinePool(settings.pool.threads)
    try:
        with resources.used() as first:
            once = _pass(run, stage, video_ids, settings, pool, found)
        found.failures.clear()
        with resources.used() as second:
            again = _pass(run, stage, video_ids, settings, pool, found)
    except EgoworldError as error:  # of the set-up: weights, a device
        found.failures.append(str(error))
        return found
    found.seconds, found.loading_s = second.seconds, max(0.0, first.seconds - second.seconds)
    found.host_mb, found.device_mb = _most(first.host_mb, second.host_mb), _most(first.device_mb, second.device_mb)
    found.repeated = all(once[v].equals(again[v]) for v in video_ids) if found.clips else None
    return found


def _pass(run: Run, stage: str, video_ids: Sequence[str], settings: Settings, pool: Pool, found: StageMeasured) -> dict[str, pa.Table]:
    """Compute a stage of all videos anew; returns its table of each."""
    spans = {(v, clip.clip_id): range(clip.frame_start, clip.frame_end) for v in video_ids for clip in clips_of(run, v)}
    found.clips = found.frames = found.blocked = 0
    for _, result in pipeline.process(run, video_ids, settings, pool, pipeline.Part(stage, stage, anew=True)):
        if result.state == "computed" and result.clip_id is not None:
            found.clips += 1
            found.frames += sum(index % settings.sample_stride == 0 for index in spans[result.video_id, result.clip_id])
        elif result.state == "blocked":
            found.blocked += 1
        else:
            found.failures.append(f"{result.video_id} {result.clip_id or ''}: {result.error}")
    return {video_id: tables_of(run, video_id, [stage])[stage] for video_id in video_ids}


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def variants(run: Run, video_ids: Sequence[str], settings: Settings, measured: Sequence[StageMeasured]) -> Iterator[Variant]:
    """Each stage that ran, with the other values of the options that are to change its speed alone."""
    for stage in measured:
        _, options = operator_of(stage.stage, settings)
        for option, values in _OTHERS.items():
            if stage.clips and option in type(options).model_fields:
                usual = getattr(options, option)
                for value in values:
                    if value != usual:
                        yield _variant(run, stage, video_ids, settings, option, value, usual)


def _variant(
    run: Run, usual: StageMeasured, video_ids: Sequence[str], settings: Settings, option: str, value: object, usual_value: object
) -> Variant:
    said = Variant(usual.stage, option, value, usual_value)
    other = _with_option(settings, usual, option, value)
    try:
        beside = configuration.open_run(other)
        for stage in (pipeline.MANIFEST, *operators.stages()):
            if stage == usual.stage:
                break
            for _ in pipeline.process(beside, video_ids, other, InlinePool(1), pipeline.Part(stage, stage)):
                pass  # all that does not depend on the option is linked
        found = _stage(beside, usual.stage, video_ids, other)
    except EgoworldError as error:
        return replace(said, reason=str(error))
    if not found.clips:
        return replace(said, reason=next(iter(found.failures), "an input from upstream is missing"))
    first, second = (pa.concat_tables(tables_of(r, v, [usual.stage])[usual.stage] for v in video_ids) for r in (run, beside))
    fast = found.frames_per_s / usual.frames_per_s if found.frames_per_s and usual.frames_per_s else None
    return replace(said, times_as_fast=fast, compared=comparing.compared(usual.stage, first, second))


def _with_option(settings: Settings, usual: StageMeasured, option: str, value: object) -> Settings:
    chosen = settings.stages.get(usual.stage) or StageSettings(backend=usual.backend)
    changed = chosen.model_copy(update={usual.backend: {**chosen.options(usual.backend), option: value}})
    return settings.model_copy(update={"stages": {**settings.stages, usual.stage: changed}})


def chain(run: Run, video_ids: Sequence[str], settings: Settings) -> Chain:
    """All stages once more, from the manifest on, through the pool that the settings choose, with a watch on the GPUs.

    Raises:
        SetupError, PoolLost: it cannot be set up, or goes away.
    """
    alone = {video_id: tables_of(run, video_id) for video_id in video_ids}
    pool, failed = pools.make(settings.pool, "egoworld accept"), 0
    started = time.monotonic()
    with resources.duty() as duty:
        for _, result in pipeline.process(run, video_ids, settings, pool, pipeline.Part(anew=True)):
            failed += result.state in ("failed", "blocked")
    seconds = time.monotonic() - started
    together = {video_id: tables_of(run, video_id) for video_id in video_ids}
    equal = all(together[v][name].equals(alone[v][name]) for v in video_ids for name in operators.stages())
    lengths = [read_table(run.video_table("videos", v), "videos")["duration_s"][0].as_py() or 0.0 for v in video_ids]
    return Chain(seconds, sum(lengths), duty, equal, failed)
