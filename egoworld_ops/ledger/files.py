"""Making the ledger again from the lake: the files are the truth."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops import errors
from egoworld_ops.contract import schema
from egoworld_ops.errors import EgoworldError, SetupError, printable
from egoworld_ops.files import footer
from egoworld_ops.files.tables import PROVENANCE_KEY, provenance_at, read_table
from egoworld_ops.lake import failures, lake
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger.states import WHOLE_VIDEO, Change, ClipKey, Moves, Row, State
from egoworld_ops.types import check_id

if TYPE_CHECKING:
    from egoworld_ops.ledger.store import Ledger

MANIFEST = "manifest"
_STAGES = sorted(schema.TABLES.keys() - {*lake.VIDEO_TABLES, "failures", "intake"})
_CHUNK = 5_000
_TABLE, _FAILURE = ".parquet", ".failure.parquet"
_MANIFEST_FILE = "videos.parquet"
"""Of the two tables of a manifest the one that is written last."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found.

    Args:
        found: in how many clips and stages the files say what state.
        unreadable: files and folders that are damaged, or not of the lake; nothing is recorded of them.
        changed: rows that were made or changed.
        reset: rows whose file is gone, now pending.
        running: rows left alone, because an owner works on them.
        seconds: that it took.
    """

    found: dict[State, int]
    unreadable: list[Path]
    changed: int
    reset: int
    running: int
    seconds: float


def rebuild(ledger: Ledger, store: Lake, run_id: str | None = None) -> Rebuilt:
    """Make the rows of one run, or of all, agree with its files. Doing it again changes nothing.

    The footer of a table gives digest, rows and seconds; a failure is one row to read. What is pending has no file: its rows stay, or come back when
    the stage is planned next. Rows of runs that are not in the lake are left alone.

    Raises:
        SetupError: there is no such run.
        StorageUnavailable: the database or the lake does not answer; what was done until then stays, and is right.
    """
    started, counted = time.monotonic(), Counter[str]()
    found, unreadable = Counter[State](), list[Path]()
    runs = [run for run in store.runs() if run_id in (None, run.run_id)]
    if run_id and not runs:
        raise SetupError(f"run {run_id}", f"is not in {store.root}", "Name one of its runs, or none for all")
    ledger.recover()
    for run in runs:
        for chunk in _chunks(_found(run, unreadable)):
            found.update(change.state for change in chunk)
            _count(counted, ledger.move("rebuild", chunk))
        counted["reset"] += _reset(ledger, run, set(unreadable))
    seconds = time.monotonic() - started
    return Rebuilt(dict(found), unreadable, counted["changed"], counted["reset"], counted["running"], seconds)


def _count(counted: Counter[str], moves: Moves) -> None:
    counted["changed"] += len(moves.moved)
    counted["running"] += sum(state is State.RUNNING for state in moves.lost.values())


def _chunks(changes: Iterable[Change]) -> Iterator[list[Change]]:
    left = iter(changes)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


def _found(run: Run, unreadable: list[Path]) -> Iterator[Change]:
    """What the files of a run say, a folder at a time; those that say nothing go to `unreadable`."""
    for video_id, folder in _folders(run.path, "video_id=", unreadable):
        if (manifest := folder / _MANIFEST_FILE).is_file():
            yield from _known(_manifest(ClipKey(run.run_id, video_id, WHOLE_VIDEO, MANIFEST), manifest), manifest, unreadable)
        for clip_id, clip_folder in _folders(folder, "clip_id=", unreadable):
            names = set(os.listdir(clip_folder))
            for stage in _STAGES:
                key = ClipKey(run.run_id, video_id, clip_id, stage)
                table, failure = (clip_folder / name if (name := stage + suffix) in names else None for suffix in (_TABLE, _FAILURE))
                yield from _outcome(key, table, failure, unreadable)


def _folders(parent: Path, prefix: str, unreadable: list[Path]) -> Iterator[tuple[str, Path]]:
    for name in sorted(os.listdir(parent)):
        if name.startswith(prefix) and (parent / name).is_dir():
            try:
                yield check_id(prefix, name.removeprefix(prefix)), parent / name
            except ValueError:
                unreadable.append(parent / name)


def _outcome(key: ClipKey, table: Path | None, failure: Path | None, unreadable: list[Path]) -> Iterator[Change]:
    """What the files of one clip and stage say. Of a result and a failure the failure is the later one, unless the result counts beside it."""
    result = list(_known(_result(key, table), table, unreadable)) if table else []
    failed = list(_known(_failure(key, failure), failure, unreadable)) if failure else []
    if failure and result and failed and failures.allows(provenance_at(failure) or {}, str(result[0].digest)):
        failed = []
    yield from failed or result


def _known(said: Change | None, path: Path, unreadable: list[Path]) -> Iterator[Change]:
    if said is None:
        unreadable.append(path)
    else:
        yield said


def _result(key: ClipKey, path: Path) -> Change | None:
    """A table's footer says what it is. A result that another run made was never tried in this one."""
    try:
        said = footer.provenance(path)
    except OSError as error:
        if (named := errors.classify(error, path)).retryable:
            raise named from error
        return None
    if not said or not isinstance(said.get("digest"), str):
        return None
    made_here = said.get("run_id") == key.run_id
    digest, worker, seconds, rows, at = (said.get(name) for name in ("digest", "worker", "seconds", "rows", "created_at"))
    return Change(key, State.DONE, digest, worker, None, None, seconds, rows, said.get("attempts", int(made_here)), at)


def _manifest(key: ClipKey, path: Path) -> Change | None:
    """A manifest without clips is that of a video that was rejected: its one row says why."""
    done = _result(key, path)
    if done is None or done.rows:
        return done
    try:
        [row] = read_table(path, "videos").to_pylist()
    except (EgoworldError, ValueError):
        return None
    error = errors.recorded(str(row["error_class"]), row["path"], str(row["reason"]), str(row["cure"]))
    return replace(Change.failure(key, error, str(done.digest), dead_letter=True), attempts=done.attempts, at=done.at, seconds=done.seconds)


def _failure(key: ClipKey, path: Path) -> Change | None:
    """A failure is one row. Where it does not say whether it is a dead letter, one that no retry helps is."""
    try:
        with pq.ParquetFile(pa.BufferReader(path.read_bytes())) as file:
            said = json.loads(file.metadata.metadata[PROVENANCE_KEY])
            [row] = file.read(use_threads=False).to_pylist()
        dead_letter = said.get("dead_letter", row.get("dead_letter", not row["retryable"]))
        state = State.DEAD_LETTER if dead_letter else State.FAILED
        message, seconds, at = printable(row["reason"]), said.get("seconds"), said.get("created_at")
        return Change(key, state, said["digest"], None, row["error_class"], message, seconds, None, row["attempts"], at)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _reset(ledger: Ledger, run: Run, unreadable: Collection[Path]) -> int:
    """Rows whose file is gone or says nothing are pending again."""
    moved = 0
    for page in ledger.all_rows(run.run_id, State.DONE, State.FAILED, State.DEAD_LETTER):
        files = {row.key: _file(run, row) for row in page}
        gone = [key for key, path in files.items() if path in unreadable or not path.exists()]
        moved += len(ledger.move("rebuild", [Change(key, State.PENDING, attempts=0) for key in gone]).moved)
    return moved


def _file(run: Run, row: Row) -> Path:
    key = row.key
    if key.clip_id == WHOLE_VIDEO:
        return run.video_folder(key.video_id) / _MANIFEST_FILE
    return (run.clip_table if row.state is State.DONE else run.failure)(key.stage, key.video_id, key.clip_id)
