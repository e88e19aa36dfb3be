"""From a stage and its videos to results, and from results to files. No Dagster here: the command line and the benchmarks drive the same code."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from egoworld_assets.chain import bookkeeping
from egoworld_assets.chain.packages import installed
from egoworld_assets.chain.planning import UNKNOWN_CURE, Planner, ResultState, StageResult, check_key, has_manifest
from egoworld_assets.chain.settling import settle
from egoworld_ops import logs, models, operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSettings, BadSidecar, EgoworldError, UnknownVideo, UnsupportedPicture, WeightsMissing
from egoworld_ops.execution import code
from egoworld_ops.execution.identity import backend_of, inputs_of, operator_identity, operator_of
from egoworld_ops.files.tables import PARQUET, digest_at, make_provenance, provenance_at, read_table, write_table
from egoworld_ops.files.whole import link_or_copy, write_bytes
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake import counted, latest, memo
from egoworld_ops.lake.failure_file import is_dead_letter, record_stand_in
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.states import rejection
from egoworld_ops.models import policy
from egoworld_ops.naming import did_you_mean
from egoworld_ops.raw import intake
from egoworld_ops.raw.intake import Registered, forgotten, registered
from egoworld_ops.settings import Settings
from egoworld_ops.video.recordings import recordings
from egoworld_ops.video.sidecar import Sidecar, SidecarPicture, read_sidecar
from gpu_workers.pool import Pool

MANIFEST = "manifest"
IN_STEP = "step"
"""The worker that makes manifests: the process of the step itself."""
_LOG = logging.getLogger(__name__)
_PACKAGES = ("egoworld", "dagster", "pyarrow", "duckdb", "av", "scenedetect-headless", "opencv-python-headless", "numpy", "pydantic")
"""Packages that every run depends on, whatever its backends."""


def frozen_configuration(settings: Settings) -> dict[str, Any]:
    """The configuration that identifies a run: schema, scene, camera and sampling settings, and every stage's code, settings and weights.

    Raises:
        BadSettings: an option is unknown, or a stage rests on weights whose licence `policy.licences` does not allow.
    """
    _check_options(settings)
    _check_licences(settings)
    return {
        "schema": schema.SCHEMA_VERSION,
        "manifest": {
            "version": code.version(code.MANIFEST),
            "scenes": settings.scenes.model_dump(mode="json"),
            "recordings": settings.recordings,
        },
        "camera": settings.camera.model_dump(mode="json"),
        "sample_stride": settings.sample_stride,
        "stages": {stage: operator_identity(stage, settings) for stage in operators.stages()},
        "fallbacks": {
            stage: operator_identity(stage, with_backend(settings, stage, chosen.fallback))
            for stage, chosen in settings.stages.items()
            if chosen.fallback
        },
    }


def _check_options(settings: Settings) -> None:
    """Raise BadSettings where an option is unknown, also one of a backend that is not chosen: else nobody would say that it is misspelt."""
    for stage, chosen in settings.stages.items():
        for backend in chosen.model_extra or {}:
            operators.check_options(operators.load(stage, backend), stage, backend, chosen.options(backend))


def _check_licences(settings: Settings) -> None:
    """Raise BadSettings where a stage or its fallback rests on weights that the policy rules out, whether they are here or not."""
    fallen_back = [(stage, with_backend(settings, stage, chosen.fallback)) for stage, chosen in settings.stages.items() if chosen.fallback]
    for stage, chosen in [*((stage, settings) for stage in operators.stages()), *fallen_back]:
        operator, options = operator_of(stage, chosen)
        policy.check(f"backend {backend_of(stage, chosen)} of stage {stage}", operator.weights(options), settings.policy)


def open_run(settings: Settings) -> Run:
    """The run that these settings write to."""
    store = Lake(settings.lake)
    return store.open_run(frozen_configuration(settings), settings.run_id, lambda: _about(settings, store))


def find_run(settings: Settings) -> Run | None:
    """The run that these settings write to, if it exists. Creates and changes nothing.

    Where weights were never fetched their digest is not known, so that no run of these settings can be told from others: there is none then.
    """
    try:
        frozen = frozen_configuration(settings)
    except WeightsMissing:
        return None
    return Lake(settings.lake).find_run(frozen, settings.run_id)


def peek_run(settings: Settings, video_id: str) -> Run:
    """The run in which to look at a video: the one that these settings write to, else the newest other one, that has a manifest of it.

    Makes and changes nothing. If there is none, the returned run does not exist on the disk yet.
    """
    store, found = Lake(settings.lake), find_run(settings)
    runs = [*([found] if found else []), *store.runs()]
    return next((run for run in runs if has_manifest(run, video_id)), found or Run(store, settings.run_id or "not_made_yet"))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the chain.

    Args:
        first, last: stages from and up to which to go; None is the chain's own.
        clip_id: only this clip.
        anew: compute also existing results and dead letters again.
        dry: write nothing to the ledger and keep the latest run: what is stored is shown and deleted.
    """

    first: str | None = None
    last: str | None = None
    clip_id: str | None = None
    anew: bool = False
    dry: bool = False

    def stages(self, settings: Settings) -> list[str]:
        """The stages, each after those it reads with these settings.

        Raises:
            BadSettings: a name is not one of a stage, or the last comes before the first.
        """
        every = [MANIFEST, *operators.stages()]
        for name in (self.first, self.last):
            if name is not None and name not in every:
                raise BadSettings(f"stage {name}", "there is no such stage", did_you_mean(name, every))
        wanted = _below(self.first, settings) if self.first else every
        if self.last is not None:
            wanted = [name for name in wanted if name == self.last or self.last in _below(name, settings)]
        if not wanted:
            raise BadSettings(f"stages from {self.first} to {self.last}", "do not follow on each other", "Name the earlier one first")
        return wanted


def _below(stage: str, settings: Settings) -> list[str]:
    """A stage and all that read it, directly or not, in order."""
    if stage == MANIFEST:
        return [MANIFEST, *operators.stages()]
    reached = {stage}
    for name in operators.stages():
        if reached.intersection(inputs_of(name, settings)):
            reached.add(name)
    return [name for name in operators.stages() if name in reached]


ALL = Part()


def manifest_results(run: Run, video_ids: Iterable[str], settings: Settings, part: Part = ALL) -> Iterator[StageResult]:
    """The `videos` and `clips` tables of each video. A file that cannot be read now fails alone and leaves existing results."""
    known, others = registered(run.lake), run.lake.runs()
    by_name = recordings({v: (entry.path, entry.sha256) for v, entry in known.items()}, settings.raw, settings.recordings)
    with (
        nullcontext() if part.dry else bookkeeping.entries(bookkeeping.ledger_of(settings.lake, settings.ledger), run, MANIFEST) as entries
    ):
        for video_id in video_ids:
            try:
                entry = _entry(known, video_id, run)
                result = _manifest_result(run, entry, settings, by_name[video_id], part.anew or part.dry, others)
            except EgoworldError as error:
                result = StageResult(video_id, None, "failed", error=error)
            yield result
            if entries:
                if result.state != "failed" or result.digest:
                    _count_manifest(run, result)
                if video_id in known:
                    entries.found([result])


def _count_manifest(run: Run, result: StageResult) -> None:
    """Add the state of a manifest and of all made from it to table `states`, where it is missing."""
    said = counted.rows_of(run, result.video_id) or {}
    row = said.get((counted.WHOLE_VIDEO, MANIFEST))
    if not result.recalled and (row is None or row["digest"] != result.digest):
        counted.count(run, result.video_id)


def _entry(known: Mapping[str, Registered], video_id: str, run: Run) -> Registered:
    check_key(video_id)
    if video_id not in known:
        raise UnknownVideo(f"video {video_id}", f"is not registered in the lake {run.lake.root.absolute()}", UNKNOWN_CURE)
    return known[video_id]


def _manifest_result(run: Run, entry: Registered, settings: Settings, by_name: str, anew: bool, others: Sequence[Run]) -> StageResult:
    """If the sidecar cannot be read, the name gives the recording; each stage that reads the sidecar will say what is wrong with it."""
    try:
        sidecar, unread = _sidecar(run, entry), None
    except BadSidecar as error:
        sidecar, unread = Sidecar(), error
    result = _manifest_of(run, entry, settings, sidecar.recording or by_name, sidecar.picture.use_as_pinhole, anew, others)
    if unread and isinstance(result.error, UnsupportedPicture):
        raise unread  # the sidecar may say how to interpret the picture
    return result


def _sidecar(run: Run, entry: Registered) -> Sidecar:
    """The sidecar of a video; if the raw file is missing, and the sidecar may be too, its content when the manifest was made."""
    before = provenance_at(run.video_table("videos", entry.video_id)) if memo.file_state(entry.path) is None else None
    if before is None:
        return read_sidecar(entry.path)
    identity = before["identity"]
    return Sidecar(recording=identity.get("recording"), picture=SidecarPicture(use_as_pinhole=identity.get("as_pinhole", False)))


def _manifest_of(
    run: Run, entry: Registered, settings: Settings, shared: str, as_pinhole: bool, anew: bool, others: Sequence[Run]
) -> StageResult:
    from egoworld_ops.video import index_file, manifest
    from egoworld_ops.video.decoding import DECODE_VERSION
    from egoworld_ops.video.indexing import IndexMaker

    identity = {
        "schema": schema.SCHEMA_VERSION,
        "decode": code.version(code.DECODE),
        "version": code.version(code.MANIFEST),
        "scenes": settings.scenes.model_dump(mode="json"),
        "video": entry.sha256,
        "path": str(entry.path),
        "recording": shared,
        "as_pinhole": as_pinhole,
    }
    key = sha256_of(identity)
    if not anew and (found := _known_manifest(run, entry, key, others)) is not None:
        return found
    started, began_at, maker = time.monotonic(), datetime.now(UTC), IndexMaker()
    videos, clips = manifest.make_manifest(
        entry.path, entry.video_id, entry.sha256, settings.scenes, recording=shared, as_pinhole=as_pinhole, index=maker
    )
    seconds = time.monotonic() - started
    made = {"worker": IN_STEP, "began_at": began_at.isoformat(timespec="milliseconds")}
    stamp = make_provenance(key, identity, clips.num_rows, seconds, run.run_id, made)
    error = rejection(videos.to_pylist()[0])
    tables = {"clips": clips, "videos": videos}
    dead = error is not None and is_dead_letter(error)
    state: ResultState = "failed" if error else "computed"
    if clips.num_rows and (slow := maker.reason or (maker.index and maker.index.about.stored.reason)):
        _LOG.warning(f"{entry.path}: each clip reads the file from its start: {slow}")
    index = index_file.to_bytes(maker.index, DECODE_VERSION) if maker.index else None
    return StageResult(
        entry.video_id, None, state, clips.num_rows, seconds, tables, stamp, error, digest=key, dead_letter=dead, packet_index=index
    )


def _known_manifest(run: Run, entry: Registered, key: str, others: Sequence[Run]) -> StageResult | None:
    """The manifest with this digest if one exists, in this run or in an earlier one."""
    seen = {"key": key, "tables": [memo.file_state(run.video_table(t, entry.video_id)) for t in ("clips", "videos")]}
    is_counted = memo.file_state(run.video_table(counted.TABLE, entry.video_id)) is not None
    if is_counted and (found := memo.recall(run.video_folder(entry.video_id), MANIFEST, seen, ())) is not None:
        return StageResult(entry.video_id, None, "done", len(found), digest=key, recalled=True)
    _adopt_packet_index(run, entry.video_id, key, others)
    withdraw = partial(counted.withdraw, run, entry.video_id, counted.WHOLE_VIDEO, MANIFEST)
    states = [run.adopt(run.video_table(t, entry.video_id), key, others, withdraw) for t in ("clips", "videos")]
    if not all(states):
        return None
    videos, clips = (read_table(run.video_table(t, entry.video_id), t) for t in ("videos", "clips"))
    state: ResultState = "linked" if "linked" in states else "done"
    error = rejection(videos.to_pylist()[0])
    if error is None and state == "done":
        clip_ids = clips["clip_id"].to_pylist()
        memo.remember(run.video_folder(entry.video_id), MANIFEST, seen, (), [memo.Remembered(clip_id, 0) for clip_id in clip_ids])
    dead = error is not None and is_dead_letter(error)
    return StageResult(entry.video_id, None, "failed" if error else state, clips.num_rows, error=error, digest=key, dead_letter=dead)


def _adopt_packet_index(run: Run, video_id: str, key: str, others: Sequence[Run]) -> None:
    """Take the packet index of another run's manifest with this digest, if this run's own differs or is missing."""
    if digest_at(run.video_table("videos", video_id)) == key:
        return
    for other in others:
        index = other.packet_index(video_id)
        if other != run and digest_at(other.video_table("videos", video_id)) == key and memo.file_state(index) is not None:
            with suppress(FileNotFoundError):  # that run was removed meanwhile
                link_or_copy(index, run.packet_index(video_id))
            return


def stage_results(
    run: Run, stage: str, video_ids: Iterable[str], settings: Settings, pool: Pool, part: Part = ALL
) -> Iterator[StageResult]:
    """The result of each clip of these videos in a stage, or of one clip. Lazy: clips are planned only as fast as results are consumed."""
    with nullcontext() if part.dry else bookkeeping.entries(bookkeeping.ledger_of(settings.lake, settings.ledger), run, stage) as entries:
        yield from _stage_results(run, stage, video_ids, settings, pool, part, entries)


def _stage_results(
    run: Run, stage: str, video_ids: Iterable[str], settings: Settings, pool: Pool, part: Part, entries: bookkeeping.Entries | None
) -> Iterator[StageResult]:
    anew = part.anew or part.dry
    planner = Planner(run, stage, settings, anew)
    chosen = settings.stages.get(stage)
    failures: list[StageResult] = []
    whole = _Whole()
    with _counting(run, stage, part.dry) as counting:
        for plans in planner.turns(video_ids, part.clip_id):
            failures.clear()
            for result in settle(planner, plans, pool, settings.retry_after_s, entries):
                if chosen and chosen.fallback and result.state == "failed" and result.clip_id is not None and result.digest:
                    failures.append(result)
                else:
                    yield result
                    counting(result)
                whole.add(result)
            if chosen and failures:
                backup = Planner(run, stage, with_backend(settings, stage, chosen.fallback), anew)
                again = (backup.plan(f.video_id, f.clip_id) for f in failures)
                failed = {(f.video_id, f.clip_id): f for f in failures}
                for result in settle(backup, again, pool, settings.retry_after_s, entries):
                    first = failed[result.video_id, result.clip_id]  # stays on record beside the stand-in, or alone if that fails too
                    stored = first if result.state in ("failed", "blocked") else replace(result, beside=replace(first, stale=False))
                    yield stored
                    counting(stored)
    if not (part.clip_id or part.dry):
        for video_id, found in whole.videos():
            planner.remember(video_id, found)


@contextmanager
def _counting(run: Run, stage: str, dry: bool) -> Iterator[Callable[[StageResult], None]]:
    """Takes each stored result, and updates table `states` and the clips' `meta.json`: every few seconds, and at the end."""
    counting = counted.Counting(run)

    def stored(result: StageResult) -> None:
        if dry or result.clip_id is None or result.recalled or (result.error is not None and not result.digest):
            return
        unlooked = result.state == "done" and run.meta_is_behind(result.video_id, result.clip_id, stage, result.digest)
        if unlooked or result.tables or result.state == "linked":
            counting.is_behind(result.video_id, result.clip_id)
        state = result.state if result.state in ("failed", "blocked") else "done"
        if not counted.is_counted(run, result.video_id, result.clip_id, stage, state, result.digest if state == "done" else None):
            counting.touched(result.video_id, result.clip_id)

    try:
        yield stored
    except BaseException:
        with suppress(EgoworldError):  # rows missing in table `states` are added when the video is next processed
            counting.count_rest()
        raise
    counting.count_rest()


class _Whole:
    """Collects the videos whose clips all have a result of the chosen backend."""

    def __init__(self) -> None:
        self._found: dict[str, list[memo.Remembered]] = defaultdict(list)
        self._partial: set[str] = set()

    def add(self, result: StageResult) -> None:
        """One more result, stored by now."""
        if result.clip_id is None or result.state in ("failed", "blocked"):
            self._partial.add(result.video_id)
        else:
            self._found[result.video_id].append(memo.Remembered(result.clip_id, result.rows, result.digest))

    def videos(self) -> Iterator[tuple[str, list[memo.Remembered]]]:
        """Those videos and their clips."""
        return ((video_id, found) for video_id, found in self._found.items() if video_id not in self._partial)


def with_backend(settings: Settings, stage: str, backend: str) -> Settings:
    """These settings with another backend for a stage."""
    chosen = settings.stages[stage].model_copy(update={"backend": backend})
    return settings.model_copy(update={"stages": {**settings.stages, stage: chosen}})


def process(run: Run, video_ids: Sequence[str], settings: Settings, pool: Pool, part: Part = ALL) -> Iterator[tuple[str, StageResult]]:
    """Every stage over these videos, or some part of that, each result stored before it is handed on with the name of its stage."""
    for stage in part.stages(settings):
        for result in results(run, stage, video_ids, settings, pool, part):
            store(run, stage, result)
            yield stage, result
    if not part.dry:
        advance(run, video_ids)


def advance(run: Run, video_ids: Iterable[str]) -> bool:
    """Make the run the latest of its lake if it has earned that by these videos; whether it is the latest then. See `lake.latest`."""
    return latest.advance(run, video_ids, set(forgotten(run.lake).values()))


def results(run: Run, stage: str, video_ids: Iterable[str], settings: Settings, pool: Pool, part: Part = ALL) -> Iterator[StageResult]:
    """The results of these videos in a stage, `manifest` included. Lazy."""
    if stage == MANIFEST:
        return manifest_results(run, video_ids, settings, part)
    return stage_results(run, stage, video_ids, settings, pool, part)


def store(run: Run, stage: str, result: StageResult) -> None:
    """Write the files of a result, each one atomically. `videos` goes last: it completes a manifest. The planner has checked the tables of clips.

    A result that is replaced stops counting before the first file is written; the maker of the new results has them counted
    (see `counted.py`). A failure never takes the place of a result that somebody else has finished meanwhile, and goes after the clip's result
    is written.
    """
    if result.clip_id is None:
        if stage == MANIFEST and isinstance(result.error, UnknownVideo):
            intake.refuse(run.lake, result.video_id, result.error)
        if result.tables:
            counted.withdraw(run, result.video_id, counted.WHOLE_VIDEO, MANIFEST)
            _store_packet_index(run.packet_index(result.video_id), result.packet_index)
        for name in (name for name in ("clips", "videos") if name in result.tables):
            write_table(run.video_table(name, result.video_id), name, result.tables[name], result.provenance)
        _log(run, stage, result)
        return
    table = run.clip_table(stage, result.video_id, result.clip_id)
    failure = run.failure(stage, result.video_id, result.clip_id)
    if "failures" in result.tables and digest_at(table) == result.provenance["digest"]:
        return
    if result.tables or result.stale:
        counted.withdraw(run, result.video_id, result.clip_id, stage)
    if result.beside is not None:
        store(run, stage, result.beside)
        record_stand_in(failure, result.digest)
    for name, rows in result.tables.items():
        write_table(failure if name == "failures" else table, name, rows, result.provenance, validated=True)
    _log(run, stage, result)
    if result.stale:
        table.unlink(missing_ok=True)
    if result.beside is None and result.state in ("computed", "linked", "done"):
        failure.unlink(missing_ok=True)


def _log(run: Run, stage: str, result: StageResult) -> None:
    """One line for each result that was made or taken over, where logs are wanted: at INFO, below what text logs show."""
    if result.state in ("computed", "linked", "failed") and _LOG.isEnabledFor(logging.INFO):
        where = {
            "run": run.run_id,
            "video": result.video_id,
            "clip": result.clip_id,
            "stage": stage,
            "worker": result.provenance.get("worker"),
        }
        level = logging.WARNING if result.error else logging.INFO
        said = f"{stage} {result.state}: {result.error}" if result.error else f"{stage} {result.state}"
        _LOG.log(
            level,
            said,
            extra=logs.about(**where, trace=logs.trace_of(run.run_id, result.video_id), seconds=round(result.seconds, 3), rows=result.rows),
        )


def _store_packet_index(path: Path, content: bytes | None) -> None:
    if content is not None:
        write_bytes(path, content)
    else:
        path.unlink(missing_ok=True)


def _about(settings: Settings, run_lake: Lake) -> dict[str, Any]:
    """What `run.json` holds beside the configuration: enough to know later how, and on which machine, the run was made."""
    from gpu_workers.gpus import Nvml

    frozen = frozen_configuration(settings)
    known = {name: digest for s in (*frozen["stages"].values(), *frozen["fallbacks"].values()) for name, digest in s["weights"].items()}
    return {
        "settings": settings.model_dump(mode="json"),
        "packages": {name: installed(name) for name in sorted({*_PACKAGES, *_packages_of_operators(settings)})},
        "python": sys.version.split()[0],
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "gpus": [g.name for g in Nvml().discover()[0]],
        },
        "git": _git_state(),
        "weights": {name: {"sha256": digest, "licence": models.weight(name).licence.name} for name, digest in sorted(known.items())},
        "inputs": _input_digest(run_lake),
        "parquet": PARQUET,
        "conventions": {"schema": schema.SCHEMA_VERSION, **schema.CONVENTIONS},
    }


def _packages_of_operators(settings: Settings) -> Iterator[str]:
    """The packages that the chosen backends and their fallbacks say they use, and those that bring them."""
    for stage in operators.stages():
        chosen = settings.stages.get(stage)
        for backend in {backend_of(stage, settings), chosen.fallback if chosen else ""} - {""}:
            yield from operators.load(stage, backend).packages
            yield from operators.brought_by(stage, backend)


def _input_digest(store: Lake) -> dict[str, Any]:
    """The videos that were registered when the run was opened: how many, and a digest of what they hold."""
    contents = sorted(entry.sha256 for entry in registered(store).values())
    return {"videos": len(contents), "sha256": sha256_of({"videos": contents})}


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
