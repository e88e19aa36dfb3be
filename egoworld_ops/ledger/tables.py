"""The ledger's tables, and its SQL that differs between SQLite and Postgres. Imports SQLAlchemy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    FromClause,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import TypeEngine

from egoworld_ops.ledger.states import State

VERSION = 1
"""Raised whenever a table changes; a ledger with a higher one is refused."""

METADATA = MetaData()

LEDGER = Table("ledger_version", METADATA, Column("version", Integer, primary_key=True, autoincrement=False))

OWNERS = Table(
    "ledger_owners",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid_namespace", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("start_ticks", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("started_at", Text, nullable=False),
)

CLIPS = Table(
    "ledger_clips",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("video_id", Text, nullable=False),
    Column("clip_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", Text),
    Column("worker", Text),
    Column("digest", Text),
    Column("error_class", Text),
    Column("message", Text),
    Column("seconds", Float),
    Column("rows", BigInteger),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    UniqueConstraint("run_id", "stage", "video_id", "clip_id", name="ledger_clips_key"),
    CheckConstraint(f"state IN ({', '.join(repr(s.value) for s in State)})", name="ledger_clips_state"),
)

KEY = ("run_id", "video_id", "clip_id", "stage")
KEY_COLUMNS = [CLIPS.c[name] for name in KEY]


def word(value: str | int) -> ColumnElement[Any]:
    """A constant of the program, written into the SQL and not bound: the partial index of a state is used only then."""
    return literal_column(repr(value)) if isinstance(value, int) else literal_column(f"'{value}'", Text)


Index("ledger_clips_by_state", CLIPS.c.run_id, CLIPS.c.stage, CLIPS.c.state, CLIPS.c.id)
_RUNNING = CLIPS.c.state == word(State.RUNNING)
Index("ledger_clips_running", CLIPS.c.owner, sqlite_where=_RUNNING, postgresql_where=_RUNNING)

GIVEN: dict[str, TypeEngine] = {
    **dict.fromkeys(("run_id", "video_id", "clip_id", "stage", "owner", "worker", "digest", "error_class", "message", "at"), Text()),
    "attempts": Integer(),
    "seconds": Float(),
    "rows": BigInteger(),
}
"""The columns that a statement reads from its one parameter `payload`, a JSON array of objects. So a statement takes any number of clips."""


def given(dialect: str) -> FromClause:
    """The rows of the parameter `payload`, named `given`."""
    payload = bindparam("payload", type_=Text())
    if dialect == "postgresql":
        columns = [column(name, kind) for name, kind in GIVEN.items()]
        return func.json_to_recordset(cast(payload, JSON)).table_valued(*columns).render_derived(name="given", with_types=True)
    each = func.json_each(payload).table_valued("value", name="each")
    return (
        select(*(literal_column(f"each.value ->> '{name}'", kind).label(name) for name, kind in GIVEN.items()))
        .select_from(each)
        .subquery("given")
    )


def same_clip(rows: FromClause) -> ColumnElement[bool]:
    """Whether a row of the ledger and one of `rows` are of the same clip."""
    matches: ColumnElement[bool] = literal_column("1 = 1")
    for name in KEY:
        matches &= CLIPS.c[name] == rows.c[name]
    return matches
