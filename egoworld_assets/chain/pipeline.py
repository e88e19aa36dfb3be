"""From a stage and its videos to results, and from results to files. No Dagster here: the command line and the benchmarks drive the same code."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from egoworld_assets.chain import bookkeeping
from egoworld_assets.chain.configuration import with_backend
from egoworld_assets.chain.manifests import manifest_results
from egoworld_assets.chain.part import ALL, Part
from egoworld_assets.chain.planning import Planner
from egoworld_assets.chain.settling import settle
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops import logs
from egoworld_ops.errors import EgoworldError, UnknownVideo
from egoworld_ops.files.tables import digest_at, write_table
from egoworld_ops.files.whole import write_bytes
from egoworld_ops.lake import counted, latest, memo
from egoworld_ops.lake.failure_file import record_stand_in
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import MANIFEST
from egoworld_ops.raw import intake
from egoworld_ops.raw.intake import forgotten
from egoworld_ops.settings import Settings
from gpu_workers.pool import Pool

__all__ = [
    "ALL",
    "MANIFEST",
    "Part",
    "advance",
    "manifest_results",
    "process",
    "results",
    "stage_results",
    "store",
]
"""With what callers pass to these functions and get of them; runs come from `configuration`."""
_LOG = logging.getLogger(__name__)


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
