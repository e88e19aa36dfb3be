"""Decides which clips of a stage are done, linked, blocked or known to fail, and makes tasks for the others. No Dagster, no pool, no writing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from egoworld_assets.chain import handed_on
from egoworld_assets.chain.clips import check_key
from egoworld_assets.chain.elsewhere import Elsewhere
from egoworld_assets.chain.handed_on import Before
from egoworld_assets.chain.raw_files import RawFiles, of_raw_file, raw_state
from egoworld_assets.chain.stage_result import StageResult
from egoworld_assets.chain.videos import Video, Videos
from egoworld_ops import models, operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import (
    ContractError,
    EgoworldError,
    InputChanged,
    InputError,
    RawFileAway,
    StorageUnavailable,
    UnstableFile,
)
from egoworld_ops.execution import code
from egoworld_ops.execution.identity import check_lens, clip_identity, inputs_of, operator_identity, operator_of, sidecar_identity
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import make_provenance
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake import counted, lake, memo, states
from egoworld_ops.lake.failure_file import Failure, is_dead_letter
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import StageState
from egoworld_ops.raw.intake import registered
from egoworld_ops.settings import Settings
from egoworld_ops.types import Clip
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.sidecar import Sidecar, sidecar_path
from gpu_workers.pool import Done, Failed, made


@dataclass(frozen=True, slots=True)
class _Submitted:
    """The state of the inputs when a task was planned. It must be the same when its result comes."""

    identity: Mapping[str, Any]
    raw_state: list[int] | None


class Planner:
    """Decides for each clip of a stage whether it is done, describes the work if it is not, and takes the outcome of that work.

    Args:
        anew: treat no clip as done.
    """

    def __init__(self, run: Run, stage: str, settings: Settings, anew: bool = False) -> None:
        self._run, self._settings, self._anew = run, settings, anew
        self._stage = operators.stages()[stage]
        self._operator = operator_identity(stage, settings)
        self._registered = registered(run.lake)
        self._submitted: dict[str, _Submitted] = {}
        self._elsewhere: Elsewhere | None = None
        self._raw_files = RawFiles(run.lake)
        self._videos = Videos(run)
        operator, options = operator_of(stage, settings)
        self._continues = operator.continues(options)
        self._inputs = inputs_of(stage, settings)
        self._next_turn: dict[str, int] = {}

    def turns(self, video_ids: Iterable[str], clip_id: str | None = None) -> Iterator[Iterator[Iterator[StageResult | ClipTask]]]:
        """The plans of these videos, or of one clip; each turn once all results of the one before are stored.

        There is one turn, unless clips go on with the clip before them: then the nth clips of all scenes of all videos are the nth turn.
        """
        yield (self.plan(video_id, clip_id) for video_id in video_ids)
        while self._next_turn:
            due, self._next_turn = self._next_turn, {}
            yield (self.plan(video_id, turn=turn) for video_id, turn in due.items())

    def plan(self, video_id: str, clip_id: str | None = None, turn: int = 0) -> Iterator[StageResult | ClipTask]:
        """A result for each clip that needs no work, a task for each that does; for all clips, for one, or for those of one turn.

        A video that cannot be planned at all (no manifest, a bad sidecar) is one failed result, or one a clip.
        """
        try:
            check_key(video_id)
            found = self._recalled(video_id) if clip_id is None and turn == 0 else None
            video = self._videos.of(video_id) if found is None else None
        except EgoworldError as error:
            yield StageResult(video_id, None, "failed", error=error)
            return
        yield from (StageResult(video_id, f.clip_id, "done", f.rows, digest=f.digest, recalled=True) for f in found or ())
        if video is not None:
            clips = self._of_turn(video_id, video, turn) if clip_id is None else filter(None, [video.clips.get(clip_id)])
            said: dict[str, str] = {}
            yield from (self._plan_clip(clip, video, said) for clip in clips)

    def _of_turn(self, video_id: str, video: Video, turn: int) -> Iterable[Clip]:
        if not self._continues:
            return video.clips.values()
        turns = handed_on.turns(video.clips)
        if max(turns.values(), default=0) > turn:
            self._next_turn[video_id] = turn + 1
        return [clip for clip in video.clips.values() if turns[clip.clip_id] == turn]

    def _recalled(self, video_id: str) -> list[memo.Remembered] | None:
        """The results of a video, if nothing has changed since they were last found complete."""
        wanted = None if self._anew else self._wanted(video_id)
        if wanted is None:
            return None
        folder = self._run.video_folder(video_id)
        if memo.file_state(self._run.video_table(counted.TABLE, video_id)) is None:
            return None
        found = memo.recall(folder, self._stage.name, wanted, self._looked_at)
        failures = (f"{folder}/clip_id={f.clip_id}/{name}.failure.parquet" for f in found or () for name in self._looked_at)
        return None if any(memo.file_state(path) for path in failures) else found

    @property
    def _looked_at(self) -> tuple[str, ...]:
        """The tables that decide whether a result counts: its own and all upstream."""
        return (self._stage.name, *states.upstream(self._stage.name))

    def remember(self, video_id: str, found: Sequence[memo.Remembered]) -> None:
        """Note that all results of a video are stored, so that the next plan does not read them."""
        if (wanted := self._wanted(video_id)) is not None:
            memo.remember(self._run.video_folder(video_id), self._stage.name, wanted, self._looked_at, found)

    def _wanted(self, video_id: str) -> dict[str, Any] | None:
        """All that a video's results depend on, except the clips' own files; None where the states of files cannot tell."""
        entry = self._registered.get(video_id)
        try:
            if entry is None or (self._stage.sidecar and memo.file_state(sidecar_path(entry.path)) is not None):
                return None  # a sidecar may name further files
            raw = memo.file_state(entry.path)
        except StorageUnavailable:  # of the raw folder: its results are looked at one by one
            return None
        folder = self._run.video_folder(video_id)
        manifest = [memo.file_state(f"{folder}/{name}.parquet") for name in lake.VIDEO_TABLES]
        return {"settings": self._configuration, "raw": raw, "manifest": manifest}

    @cached_property
    def _configuration(self) -> str:
        """Digest of the inputs that are the same for all videos."""
        return sha256_of(
            {
                "schema": schema.SCHEMA_VERSION,
                "decode": code.version(code.DECODE),
                "operator": self._operator,
                "camera": self._settings.camera.model_dump(mode="json"),
                "sample_stride": self._settings.sample_stride,
            }
        )

    def _plan_clip(self, clip: Clip, video: Video, said: dict[str, str]) -> StageResult | ClipTask:
        """`said` is what `sidecar_identity` says, the same for all clips of a video; it is filled when the first of them asks for it."""
        known: states.Known = {}
        there, sidecar = self._states(clip.video_id, clip.clip_id, known), video.sidecar
        inputs = {name: self._run.clip_table(name, clip.video_id, clip.clip_id) for name in self._inputs}
        if away := next((state.error for state in there.values() if state.error), None):
            return StageResult(clip.video_id, clip.clip_id, "failed", error=away)
        digests = {name: there[name].counts for name in inputs}
        if missing := [name for name, value in digests.items() if value is None]:
            return StageResult(clip.video_id, clip.clip_id, "blocked", stale=any(_failed_for_good(there[name]) for name in missing))
        own = there[self._stage.name]
        if isinstance(sidecar, InputError):
            return self._refused(clip, sidecar, sha256_of({"sidecar": str(sidecar)}), own)
        try:
            if (before := self.before(clip, video.clips, known)) is not None and before.waits:
                return StageResult(clip.video_id, clip.clip_id, "blocked")
            counting = {name: value for name, value in digests.items() if value is not None}
            said.update(said or sidecar_identity(self._stage, clip, sidecar))
            task, identity = self.task(clip, sidecar, inputs, counting, said, before)
        except InputError as error:
            return self._refused(clip, error, sha256_of({"input": str(error)}), own)
        except StorageUnavailable as error:  # a mesh, or the clip before
            return StageResult(clip.video_id, clip.clip_id, "failed", error=error)
        try:
            settled = None if self._anew else self._settled(clip, task.key, own)
        except StorageUnavailable as error:  # the result of another run
            return StageResult(clip.video_id, clip.clip_id, "failed", error=error)
        return settled or self._submit(task, identity, own)

    def _states(self, video_id: str, clip_id: str, known: states.Known | None = None) -> dict[str, StageState]:
        """The state of a clip in this stage and in all upstream; `known` as of `states.clip_states`."""
        return states.clip_states(self._run, video_id, clip_id, {self._stage.name, *states.upstream(self._stage.name)}, known)

    def before(self, clip: Clip, clips: Mapping[str, Clip], known: states.Known | None = None) -> Before | None:
        """What a clip of a video goes on with; None where it begins by itself.

        A clip before that has failed, or waits for one that has, hands nothing on: this one begins by itself until that changes.

        Raises:
            StorageUnavailable: the files of the clip before cannot be read now.
        """
        before = handed_on.clip_before(clip, clips) if self._continues else None
        if before is None:
            return None
        there = self._states(before.video_id, before.clip_id, known)
        if away := next((state.error for state in there.values() if state.error), None):
            raise away
        own = there[self._stage.name]
        waits = own.counts is None and own.state != "failed" and all(there[name].counts for name in self._inputs)
        return Before(before.clip_id, own.counts, waits)

    def task(
        self,
        clip: Clip,
        sidecar: Sidecar,
        inputs: Mapping[str, Path],
        input_digests: Mapping[str, str],
        said: Mapping[str, str] | None = None,
        before: Before | None = None,
    ) -> tuple[ClipTask, dict[str, Any]]:
        """The work on one clip with inputs of these digests, and everything that decides its result, as JSON; its digest is the task's key.

        Args:
            said: what `sidecar_identity` says, where it is known already.

        Raises:
            InputError: the sidecar does not allow it.
        """
        chosen = self._settings.camera
        if "camera" not in self._stage.sidecar:
            chosen = chosen.model_copy(update={"require_known": False})
        intrinsics = resolve(clip.width, clip.height, sidecar, chosen, clip.video_path, clip.raster, clip.focal_35mm_mm, clip.lens)
        check_lens(self._stage, self._operator["backend"], intrinsics, clip.video_path)
        said = sidecar_identity(self._stage, clip, sidecar) if said is None else said
        link = before.identity if before else None
        identity = clip_identity(self._stage, self._operator, clip, intrinsics, said, self._settings.sample_stride, input_digests, link)
        if before and before.digest:
            inputs = {**inputs, self._stage.name: self._run.clip_table(self._stage.name, clip.video_id, before.clip_id)}
        task = ClipTask(
            key=sha256_of(identity),
            stage=self._stage.name,
            backend=self._operator["backend"],
            options=self._operator["settings"],
            clip=clip,
            inputs=inputs,
            camera=intrinsics,
            sidecar=sidecar,
            sample_stride=self._settings.sample_stride,
            weights=models.folder(),
            python=chosen_stage.python if (chosen_stage := self._settings.stages.get(self._stage.name)) else "",
            decode_on=self._settings.pool.decode_on,
        )
        return task, identity

    def _settled(self, clip: Clip, key: str, own: StageState) -> StageResult | None:
        """The result if one exists, in this run or in an earlier one; or the failure on record."""
        if own.digest == key:
            return StageResult(clip.video_id, clip.clip_id, "done", own.rows or 0, digest=key)
        path = self._run.clip_table(self._stage.name, clip.video_id, clip.clip_id)
        withdraw = partial(counted.withdraw, self._run, clip.video_id, clip.clip_id, self._stage.name)
        if (said := self._run.link(path, key, self._others(clip, key), withdraw)) is not None:
            return StageResult(clip.video_id, clip.clip_id, "linked", said["rows"], digest=key)
        return self.known_failure(clip, key, own.failure)

    def _submit(self, task: ClipTask, identity: Mapping[str, Any], own: StageState) -> StageResult | ClipTask:
        try:
            self._raw_files.check(task.clip, self._registered.get(task.clip.video_id))
        except EgoworldError as error:
            return self._refused(task.clip, error, task.key, own)
        self._submitted[task.key] = _Submitted(identity, raw_state(task.clip))
        return task

    def _refused(self, clip: Clip, error: EgoworldError, key: str, own: StageState) -> StageResult:
        """The failure of a clip that cannot be started.

        If the raw file is missing, its sidecar may be missing too, so the wanted digest is unknown: an existing result stays and counts.
        """
        failure = self._failure(clip, error := of_raw_file(error, clip), key)
        unknown = isinstance(error, RawFileAway) and self._stage.sidecar and memo.file_state(sidecar_path(clip.video_path)) is None
        return replace(failure, tables={}) if unknown and own.digest is not None else failure

    def _others(self, clip: Clip, key: str) -> list[Run]:
        """The other runs that may have the result of that key, by table `states` of each, which is read once per video."""
        if self._elsewhere is None or self._elsewhere.video_id != clip.video_id:
            self._elsewhere = Elsewhere(clip.video_id)
            for run in self._runs:
                self._elsewhere.add(run, self._stage.name)
        return [*self._elsewhere.with_result.get((clip.clip_id, key), ()), *self._elsewhere.untold]

    @cached_property
    def _runs(self) -> list[Run]:
        return [run for run in self._run.lake.runs() if run.run_id != self._run.run_id]

    def known_failure(self, clip: Clip, key: str, failure: Failure | None) -> StageResult | None:
        """The dead letter on record for the same work on the same file: it waits for a person."""
        if failure is None or failure.digest != key or not failure.dead_letter or failure.raw != raw_state(clip):
            return None
        return StageResult(clip.video_id, clip.clip_id, "failed", error=failure.error, digest=key, dead_letter=True)

    def result(self, outcome: Done | Failed, attempts: int = 1) -> StageResult:
        """Turns the outcome of a task into a result: a failure where the table breaks the contract, or the video or an input changed meanwhile."""
        from egoworld_ops.execution.result import check_result

        task = outcome.task
        submitted = self._submitted.pop(task.key)
        if (now := raw_state(task.clip)) is None:
            error: EgoworldError = RawFileAway(task.clip.video_path, "went away while it was worked on", "Put the file back")
            return self._failure(task.clip, error, task.key)
        if now != submitted.raw_state:
            error = UnstableFile(task.clip.video_path, "changed while it was worked on", "Register it again once it rests")
            return self._failure(task.clip, error, task.key)
        if isinstance(outcome, Failed):
            return self._failure(task.clip, of_raw_file(outcome.error, task.clip), task.key, outcome, attempts)
        try:
            self._check_inputs(task.clip, submitted.identity["inputs"], submitted.identity.get("before"))
            check_result(task, outcome.table)
        except (ContractError, InputChanged, StorageUnavailable) as error:
            return self._failure(task.clip, error, task.key)
        rows = outcome.table.num_rows
        stamp = make_provenance(task.key, submitted.identity, rows, outcome.seconds, self._run.run_id, made(outcome))
        tables = {self._stage.name: outcome.table}
        return StageResult(task.clip.video_id, task.clip.clip_id, "computed", rows, outcome.seconds, tables, stamp, digest=task.key)

    def _check_inputs(self, clip: Clip, digests: Mapping[str, str], before: Mapping[str, str | None] | None) -> None:
        """Raise InputChanged if the inputs that count are not those of the plan any more, and StorageUnavailable if that cannot be told."""
        there = states.clip_states(self._run, clip.video_id, clip.clip_id, states.upstream(self._stage.name))
        earlier = self._states(clip.video_id, before["clip_id"] or "") if before else {}
        if away := next((state.error for state in (*there.values(), *earlier.values()) if state.error), None):
            raise away
        gone = before is not None and earlier[self._stage.name].counts != before["digest"]
        if gone or any(there[name].counts != digest for name, digest in digests.items()):
            raise InputChanged(f"clip {clip.clip_id}", "an input table changed while it was worked on", "Materialize the stage again")

    def _failure(self, clip: Clip, error: EgoworldError, key: str, outcome: Failed | None = None, attempts: int = 1) -> StageResult:
        row = {
            "video_id": clip.video_id,
            "clip_id": clip.clip_id,
            "stage": self._stage.name,
            "backend": self._operator["backend"],
            "culprit": error.culprit,
            "error_class": type(error).__name__,
            "reason": error.reason,
            "cure": error.cure,
            "retryable": error.retryable,
            "attempts": attempts,
            "dead_letter": is_dead_letter(error),
            "frame_index": outcome.frame_index if outcome else None,
            "traceback": outcome.traceback if outcome else "",
        }
        seconds = outcome.seconds if outcome else 0.0
        stamp = make_provenance(key, {"raw": raw_state(clip)}, 1, seconds, self._run.run_id, made(outcome) if outcome else {})
        tables = {"failures": schema.from_rows("failures", [row])}
        dead = is_dead_letter(error)
        return StageResult(
            clip.video_id, clip.clip_id, "failed", 0, seconds, tables, stamp, error, _is_for_good(error), digest=key, dead_letter=dead
        )


def _is_for_good(error: EgoworldError) -> bool:
    """Whether the content of the input itself is at fault, so that the same work can only fail again."""
    return isinstance(error, InputError) and not error.passing


def _failed_for_good(state: StageState) -> bool:
    return state.state == "failed" and state.failure is not None and _is_for_good(state.failure.error)
