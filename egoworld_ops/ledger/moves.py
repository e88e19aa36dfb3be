"""The one SQL statement that moves clips: compare and set, for any number of clips. Imports SQLAlchemy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from egoworld_ops.ledger.states import Change, ClipKey, Moves, Row, State, Verb, allowed
from egoworld_ops.ledger.tables import CLIPS, KEY, KEY_COLUMNS, given, same_clip, word

CHUNK = 10_000
"""Clips in one statement."""
_BY_OWNER: tuple[Verb, ...] = ("finish", "give_back", "recover")
_MAKES_ROWS: tuple[Verb, ...] = ("add", "settle", "rebuild")
_OUTCOME = ("error_class", "message", "seconds", "rows")
_RECORDED = (*_OUTCOME, "digest", "worker", "attempts", "at")
_DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.psycopg.dialect()}
Name = tuple[str, str, str, str]
"""A ClipKey as the database has it: in the order of KEY."""
_name = attrgetter(*KEY)


def move(
    connection: sa.Connection,
    verb: Verb,
    changes: Iterable[Change],
    source: State | None = None,
    owners: Mapping[ClipKey, str] | None = None,
) -> Moves:
    """Move clips within a transaction, each only from a state that the table allows, or from `source` alone.

    Args:
        owners: who each clip belongs to, or is to belong to; for the verbs that ask.

    Raises:
        IllegalMove: the table does not allow it; then nothing is moved.
    """
    groups: dict[State, dict[Name, Change]] = {}
    for change in changes:
        groups.setdefault(change.state, {})[_name(change.key)] = change
    sources = {state: allowed(verb, state, source) for state in groups}
    total = Moves([], [], {})
    for state, group in groups.items():
        for chunk in _chunks(group):  # sorted by name: transactions that move the same clips then cannot deadlock
            part = _move_chunk(connection, verb, sources[state], {name: group[name] for name in chunk}, owners or {})
            total.moved.extend(part.moved)
            total.same.extend(part.same)
            total.lost.update(part.lost)
    return total


def rows(connection: sa.Connection, keys: Iterable[ClipKey]) -> dict[ClipKey, Row]:
    """The rows of these clips, as far as there are any."""
    found: dict[ClipKey, Row] = {}
    for chunk in _chunks([_name(key) for key in keys]):
        payload = [dict(zip(KEY, name, strict=True)) for name in chunk]
        found.update((row.key, row) for row in map(row_of, _execute(connection, _lookup(connection.dialect.name), payload)))
    return found


def row_of(row: sa.Row[Any]) -> Row:
    """A row of table `ledger_clips` as a value."""
    values = dict(row._mapping)
    del values["id"]
    key = ClipKey(*(values.pop(name) for name in KEY))
    return Row(key=key, state=State(values.pop("state")), **values)


def _move_chunk(
    connection: sa.Connection, verb: Verb, sources: tuple[State, ...], changes: Mapping[Name, Change], owners: Mapping[ClipKey, str]
) -> Moves:
    """Move clips that all go to one state. Verbs that insert rows usually find the row as it should be, so they read it first."""
    state, makes_rows = next(iter(changes.values())).state, verb in _MAKES_ROWS and State.PENDING in sources
    same = _same(_standing(connection, changes), changes) if makes_rows else set()
    todo = {name: change for name, change in changes.items() if name not in same}
    dialect, now = connection.dialect.name, datetime.now(UTC).isoformat(timespec="milliseconds")
    statements = [_insert(dialect, state)] * makes_rows + [_update(dialect, verb, state, sources)]
    moved = _compare_and_set(connection, statements, {name: _as_given(name, change, owners, now) for name, change in todo.items()})
    others = {name: change for name, change in todo.items() if name not in moved}
    standing = _standing(connection, others)
    same |= _same(standing, others)
    lost = {changes[name].key: State(standing[name][0]) if name in standing else None for name in others if name not in same}
    return Moves([changes[name].key for name in todo if name in moved], [changes[name].key for name in changes if name in same], lost)


def _compare_and_set(connection: sa.Connection, statements: Sequence[str], payload: Mapping[Name, dict[str, Any]]) -> set[Name]:
    """The clips that the statements moved; each statement gets the clips that the ones before did not move."""
    moved = set[Name]()
    for statement in statements:
        left = [values for name, values in payload.items() if name not in moved]
        if left:
            moved.update(tuple(row) for row in _execute(connection, statement, left))
    return moved


def _standing(connection: sa.Connection, names: Iterable[Name]) -> dict[Name, tuple[str, str | None]]:
    """State and digest of these clips, as far as they have rows."""
    wanted = [dict(zip(KEY, name, strict=True)) for name in names]
    if not wanted:
        return {}
    found = _execute(connection, _lookup(connection.dialect.name, slim=True), wanted)
    return {(run_id, video_id, clip_id, stage): (state, digest) for run_id, video_id, clip_id, stage, state, digest in found}


def _same(standing: Mapping[Name, tuple[str, str | None]], changes: Mapping[Name, Change]) -> set[Name]:
    """The clips that already are as wanted. A running clip is not: it may run for another owner."""
    wanted = {name: (change.state.value, change.digest) for name, change in changes.items() if change.state is not State.RUNNING}
    return {name for name, stands in standing.items() if wanted.get(name) == stands}


def _execute(connection: sa.Connection, statement: str, payload: Sequence[Mapping[str, Any]]) -> Iterable[Any]:
    """A statement that is compiled already: that costs more than running it, for one clip."""
    text = json.dumps(payload)
    return connection.exec_driver_sql(statement, (text,) if connection.dialect.name == "sqlite" else {"payload": text})


def _as_given(name: Name, change: Change, owners: Mapping[ClipKey, str], now: str) -> dict[str, Any]:
    values = dict(zip(KEY, name, strict=True)) | {k: v for k in _RECORDED if (v := getattr(change, k)) is not None}
    values.setdefault("at", now)
    return values | {"owner": owners.get(change.key)}


def _chunks(names: Iterable[Name]) -> Iterator[list[Name]]:
    ordered = sorted(names)
    for i in range(0, len(ordered), CHUNK):
        yield ordered[i : i + CHUNK]


def _compiled(statement: sa.ClauseElement, dialect: str) -> str:
    return str(statement.compile(dialect=_DIALECTS[dialect]))


@lru_cache
def _lookup(dialect: str, slim: bool = False) -> str:
    wanted = given(dialect)
    columns = (*KEY_COLUMNS, CLIPS.c.state, CLIPS.c.digest) if slim else (CLIPS,)
    return _compiled(sa.select(*columns).join_from(wanted, CLIPS, same_clip(wanted)), dialect)


@lru_cache
def _insert(dialect: str, state: State) -> str:
    """Rows for clips that have none."""
    new = given(dialect).c
    values: dict[str, sa.ColumnElement[Any]] = {name: new[name] for name in (*KEY, *_OUTCOME, "worker", "digest")}
    values |= {"state": word(state), "attempts": sa.func.coalesce(new.attempts, word(0)), "first_at": new.at, "last_at": new.at}
    insert = postgresql.insert(CLIPS) if dialect == "postgresql" else sqlite.insert(CLIPS)
    chosen = sa.select(*values.values()).where(word(1) == word(1))  # without a WHERE, SQLite takes ON CONFLICT for a join
    return _compiled(insert.from_select(list(values), chosen).on_conflict_do_nothing().returning(*KEY_COLUMNS), dialect)


@lru_cache
def _update(dialect: str, verb: Verb, state: State, sources: tuple[State, ...]) -> str:
    """Compare and set."""
    change = given(dialect)
    conditions = [same_clip(change), _is_in(sources), *_conditions(verb, state, change)]
    values = {"state": word(state), "owner": sa.null(), "last_at": change.c.at, **_values(verb, change)}
    return _compiled(sa.update(CLIPS).where(*conditions).values(values).returning(*KEY_COLUMNS), dialect)


def _is_in(states: Iterable[State]) -> sa.ColumnElement[bool]:
    return sa.or_(*(CLIPS.c.state == word(state) for state in states))


def _conditions(verb: Verb, state: State, change: sa.FromClause) -> Iterator[sa.ColumnElement[bool]]:
    """What must hold besides the state that a clip is in."""
    digest, is_same = CLIPS.c.digest, CLIPS.c.digest == change.c.digest
    if verb == "start":
        yield change.c.owner.is_not(None)
    if verb in _BY_OWNER:
        yield CLIPS.c.owner == change.c.owner
    if verb == "add":
        yield digest.is_distinct_from(change.c.digest)
    if verb in ("settle", "rebuild") and state != State.PENDING:
        yield digest.is_distinct_from(change.c.digest) | ~_is_in({State.DONE, state})
        yield is_same | ~_is_in([State.RUNNING])
    if verb == "rebuild":
        yield is_same | digest.is_(None) | ~_is_in([State.PENDING])


def _values(verb: Verb, change: sa.FromClause) -> dict[str, Any]:
    """What is recorded besides state, owner and time. A clip that is pending or running again keeps its last error, for people."""
    new, kept = change.c, lambda name: sa.func.coalesce(change.c[name], CLIPS.c[name])
    outcome = {name: new[name] for name in _OUTCOME}
    if verb == "start":
        return {"owner": new.owner, "worker": new.worker, "attempts": CLIPS.c.attempts + word(1)}
    if verb == "give_back":
        return {"attempts": CLIPS.c.attempts - word(1)}
    if verb == "add":
        return {"digest": new.digest, "attempts": word(0), **outcome}
    if verb == "redrive":
        return {"attempts": word(0)}
    if verb in ("finish", "settle", "rebuild"):
        return {"digest": kept("digest"), "worker": kept("worker"), "attempts": kept("attempts"), **outcome}
    return {}
