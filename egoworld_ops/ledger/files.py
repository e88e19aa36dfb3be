"""Rebuilds the ledger from the lake: the files are the truth."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egoworld_ops.errors import ContractError, SetupError, printable
from egoworld_ops.files.tables import provenance_at
from egoworld_ops.lake import counted, states
from egoworld_ops.lake.failure_file import Failure
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.states import MANIFEST, StageState
from egoworld_ops.ledger.states import WHOLE_VIDEO, Change, ClipKey, Moves, Row, State

if TYPE_CHECKING:
    from egoworld_ops.ledger.store import Ledger

_CHUNK = 5_000
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
    """Make the rows of one run, or of all, agree with its files, and so table `states` of each video. Doing it again changes nothing.

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
    """What the files of a run say, a clip at a time; what is damaged goes to `unreadable`."""
    for video_id in states.video_ids(run):
        folder = run.path / f"video_id={video_id}"
        if not folder.is_dir():
            continue
        try:
            manifest = states.manifest_of(run, video_id)
        except ContractError as error:
            unreadable.append(folder if error.culprit == printable(folder) else folder / _MANIFEST_FILE)
            continue
        counted.count(run, video_id)
        if manifest is None:
            continue
        yield _manifest(ClipKey(run.run_id, video_id, WHOLE_VIDEO, MANIFEST), manifest.state, provenance_at(folder / _MANIFEST_FILE) or {})
        for clip_id in manifest.clip_ids:
            for stage, state in states.clip_states(run, video_id, clip_id).items():
                yield from _outcome(ClipKey(run.run_id, video_id, clip_id, stage), run, state, unreadable)


def _outcome(key: ClipKey, run: Run, state: StageState, unreadable: list[Path]) -> Iterator[Change]:
    """What the files of one clip and stage say. A stale result is none: the stage waits."""
    if state.error is not None:
        raise state.error
    if state.state == "done":
        yield _result(key, state.digest, state.rows, state.said)
    elif state.state == "failed" and state.failure is not None:
        yield _failure(key, state.failure)
    elif state.state == "stale":
        yield Change(key, State.PENDING, attempts=0)
    elif state.state == "damaged":
        unreadable += [
            path
            for path in (run.clip_table(key.stage, key.video_id, key.clip_id), run.failure(key.stage, key.video_id, key.clip_id))
            if path.exists()
        ]


def _result(key: ClipKey, digest: str | None, rows: int | None, said: Mapping[str, Any]) -> Change:
    """A result. One that another run made was never tried in this one."""
    made_here = said.get("run_id") == key.run_id
    worker, seconds, at = (said.get(name) for name in ("worker", "seconds", "created_at"))
    return Change(key, State.DONE, digest, worker, None, None, seconds, rows, said.get("attempts", int(made_here)), at)


def _manifest(key: ClipKey, state: StageState, said: Mapping[str, Any]) -> Change:
    """A manifest; that of a video that was rejected says why."""
    done = _result(key, state.digest, state.rows, said)
    if state.failure is None:
        return done
    change = Change.failure(key, state.failure.error, str(done.digest), dead_letter=state.failure.dead_letter)
    return replace(change, attempts=done.attempts, at=done.at, seconds=done.seconds)


def _failure(key: ClipKey, failure: Failure) -> Change:
    said = failure.known
    change = Change.failure(key, failure.error, failure.digest, failure.dead_letter, said.get("seconds"))
    return replace(change, attempts=failure.row.get("attempts"), at=said.get("created_at"))


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
