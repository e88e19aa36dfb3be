"""Explains why a clip would be computed: which of its inputs differ from those of the most similar existing result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from egoworld_assets.chain import configuration
from egoworld_assets.chain.clips import clips_of
from egoworld_assets.chain.configuration import with_backend
from egoworld_assets.chain.planning import Planner
from egoworld_assets.chain.raw_files import RawFiles
from egoworld_ops import operators
from egoworld_ops.errors import BadSettings, EgoworldError, SetupError
from egoworld_ops.execution.identity import backend_of, inputs_of
from egoworld_ops.files.tables import digest_at, provenance_at
from egoworld_ops.lake import runs, states
from egoworld_ops.lake.failure_file import Failure
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.naming import did_you_mean
from egoworld_ops.raw.intake import registered
from egoworld_ops.settings import Settings
from egoworld_ops.types import Clip
from egoworld_ops.video.sidecar import read_sidecar


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the next materialization of the chain would do with a clip.

    Args:
        verdict: one sentence.
        nearest: the result to compare with: the clip's own in the run that is written to, else that of the newest other run; None where there is
            none.
        differences: `a` are the inputs of that result, `b` the wanted ones.
    """

    verdict: str
    nearest: Path | None = None
    differences: list[runs.Difference] = field(default_factory=list)


def explain(settings: Settings, video_id: str, clip_id: str, stage: str) -> Explanation:
    """Whether a clip's result exists, and if not, why. Creates and changes nothing, not even a run.

    Raises:
        BadSettings: no stage of that name works on clips.
        SetupError: there is no such clip.
    """
    if stage not in operators.stages():
        raise BadSettings(f"stage {stage}", "no stage of that name works on clips", did_you_mean(stage, operators.stages()))
    run = configuration.peek_run(settings, video_id)
    clips = {clip.clip_id: clip for clip in clips_of(run, video_id)}
    if (clip := clips.get(clip_id)) is None:
        raise SetupError(f"clip {clip_id}", f"is not in video {video_id} of run {run.run_id}", did_you_mean(clip_id, clips))
    if recut := _recut(run, settings):
        verdict = "computed: the manifest is made anew first, and may cut the video into other clips"
        return Explanation(verdict, run.video_table("clips", video_id), recut)
    return _Explainer(run, settings, clip, clips).explanation(stage)


def _recut(run: Run, settings: Settings) -> list[runs.Difference]:
    """How the manifest of these settings differs from that of a run."""
    made_with = (runs.described(run).get("frozen") or {}).get("manifest") or {}
    return runs.differences(made_with, configuration.frozen_configuration(settings)["manifest"])


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The result that the settings ask for: its digest, what the digest is made of, where the result is, or why it will not be made."""

    digest: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    refused: str = ""


class _Explainer:
    """Explains one clip, stage by stage, as if all inputs of a stage were brought up to date first; a clip that it goes on with is taken as it is."""

    def __init__(self, run: Run, settings: Settings, clip: Clip, clips: Mapping[str, Clip]) -> None:
        self._run, self._settings, self._store, self._clips = run, settings, Lake(settings.lake), clips
        self._target = configuration.find_run(settings)
        self._known: dict[tuple[str, str], _Wanted] = {}
        self._entry = registered(self._store).get(clip.video_id)
        self._clip = replace(clip, video_path=self._entry.path) if self._entry else clip

    def explanation(self, stage: str) -> Explanation:
        """What would become of the clip in a stage."""
        wanted = self._wanted(stage, self._settings)
        if wanted.refused:
            return Explanation(wanted.refused)
        if wanted.path is not None:
            here = self._target is not None and wanted.path == self._place(self._target, stage)
            return Explanation(f"{'done' if here else 'linked from another run'}: nothing is computed", wanted.path)
        try:
            RawFiles(None).check(self._clip, self._entry)
        except EgoworldError as error:
            return Explanation(f"cannot be computed: {error}")
        return self._computed(stage, wanted)

    def _computed(self, stage: str, wanted: _Wanted) -> Explanation:
        nearest = next((path for path in self._places(stage) if digest_at(path) is not None), None)
        if nearest is None:
            first = [name for name in inputs_of(stage, self._settings) if self._wanted(name, self._settings).path is None]
            return Explanation(f"computed{f', after {first[0]}' if first else ''}: no run has a result for this clip")
        made_from = (provenance_at(nearest) or {}).get("identity", {})
        return Explanation("computed: what it depends on has changed", nearest, runs.differences(made_from, wanted.identity))

    def _wanted(self, stage: str, settings: Settings) -> _Wanted:
        key = stage, backend_of(stage, settings)
        if key not in self._known:
            self._known[key] = self._find(stage, settings)
        return self._known[key]

    def _find(self, stage: str, settings: Settings) -> _Wanted:
        inputs = {name: self._wanted(name, self._settings) for name in inputs_of(stage, settings)}
        for name, above in inputs.items():
            if above.refused:
                return _Wanted(refused=f"blocked by {name}, which is {above.refused}")
        planner = Planner(self._run, stage, settings)
        try:
            before = planner.before(self._clip, self._clips)
            task, identity = planner.task(
                self._clip, read_sidecar(self._clip.video_path), {}, {n: i.digest for n, i in inputs.items()}, before=before
            )
        except EgoworldError as error:
            return _Wanted(refused=f"not computed: {error}")
        if before is not None and before.waits:
            return _Wanted(refused=f"computed after clip {before.clip_id}, with whose result it goes on")
        path = next((path for path in self._places(stage) if digest_at(path) == task.key), None)
        failed = planner.known_failure(self._clip, task.key, self._failure(stage)) if path is None and self._run == self._target else None
        chosen = settings.stages.get(stage)
        if failed and chosen and chosen.fallback not in ("", backend_of(stage, settings)):
            return self._wanted(stage, with_backend(settings, stage, chosen.fallback))
        return _Wanted(task.key, identity, path, f"not computed, a dead letter until it is redriven: {failed.error}" if failed else "")

    def _failure(self, stage: str) -> Failure | None:
        return states.clip_states(self._run, self._clip.video_id, self._clip.clip_id)[stage].failure

    def _places(self, stage: str) -> Iterator[Path]:
        first = [self._target] if self._target else []
        return (self._place(run, stage) for run in (*first, *(run for run in self._store.runs() if run != self._target)))

    def _place(self, run: Run, stage: str) -> Path:
        return run.clip_table(stage, self._clip.video_id, self._clip.clip_id)
