"""A database that holds a ledger: opening it, whole transactions, and what its errors mean. Imports SQLAlchemy."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

from egoworld_ops.errors import BadSettings, EgoworldError, LedgerDamaged, LedgerTooNew, StorageUnavailable, classify
from egoworld_ops.ledger import tables

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4}
"""A Postgres that is cut off is noticed within half a minute."""
_CACHE_KIB, _CHECKPOINT_PAGES = 65536, 4000
_CREATION_LOCK = 0x65676F776F726C64  # "egoworld"
_DEADLOCK, _READ_ONLY = "40P01", "25006"
_MEANINGS = {
    sqlite3.SQLITE_BUSY: ("another process has locked it for more than {busy_s:g} s", "End what holds it, then run again"),
    sqlite3.SQLITE_LOCKED: ("another connection has locked it for more than {busy_s:g} s", "End what holds it, then run again"),
    sqlite3.SQLITE_FULL: ("its disk is full", "Free space, then run again: nothing is half-written"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "Make the file and its folder writable, then run again"),
}
_PASSING = {*_MEANINGS, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PERM}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OLDEST_SQLITE = (3, 38)


class _Deadlock(Exception):
    """Two transactions waited for each other; this one was undone."""


class Database:
    """One database, with the ledger's tables in it.

    Args:
        engine: connects to it.
        name: how errors call it; no password.
        busy_s: how long to wait for who holds it, seconds.
    """

    def __init__(self, engine: sa.Engine, name: str, busy_s: float) -> None:
        self._engine, self._name, self._busy_s = engine, name, busy_s
        self._writer = engine.execution_options(write=True)
        self.dialect: str = engine.dialect.name
        self._path = Path(str(engine.url.database)) if self.dialect == "sqlite" else None
        self._file: tuple[int, int] | None = None
        self._reopening = threading.RLock()

    @classmethod
    def open(cls, where: str | Path, busy_s: float) -> Database:
        """Open the database at a path or URL, and make the ledger's tables where there are none.

        Raises: as `open_ledger`.
        """
        url = _checked_url(where)
        if url.get_backend_name() == "sqlite":
            database = cls(_sqlite_engine(url, busy_s), str(url.database), busy_s)
        else:
            database = cls(_postgres_engine(url, busy_s), url.render_as_string(), busy_s)
        try:
            database._prepare()
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` reads, in one transaction that writes nothing."""
        self._reopen_if_another()
        with self._named_errors(), self._engine.connect() as connection:
            return work(connection)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, its changes kept all together or not at all. It may run more than once."""
        self._reopen_if_another()
        until = time.monotonic() + self._busy_s
        while True:
            try:
                with self._named_errors(), self._writer.begin() as connection:
                    return work(connection)
            except _Deadlock as error:
                if time.monotonic() > until:
                    raise self._unavailable(f"transactions block each other for more than {self._busy_s:g} s", "Run again") from error

    def _reopen_if_another(self) -> None:
        """Open the file anew if it was removed or replaced: open connections would go on writing to one that nobody can find."""
        if self._path is None or self._file is None or self._is_in_place(self._path):
            return
        with self._reopening:
            if not self._is_in_place(self._path):
                cure = "What was entered in it is lost: `egoworld ledger rebuild` makes it again from the files"
                _LOG.warning("ledger %s: another file has taken its place, or it was removed. %s", self._name, cure)
                self._engine.dispose()
                before, self._file = self._file, None
                try:
                    self._prepare()
                except BaseException:
                    self._file = before  # the next call tries again
                    raise

    def _is_in_place(self, path: Path) -> bool:
        """Whether the file that is open lies at its path; taken for granted where that cannot be seen now."""
        try:
            return _identity(path) == self._file
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _prepare(self) -> None:
        if self._path is not None:
            with self._named_errors():
                _prepare_sqlite(self._path, self._engine, self._busy_s)
                self._file = _identity(self._path)
        version = self.read(_version)
        if version is None:
            version = self.write(_create)
        if version > tables.VERSION:
            reason = f"a newer version of egoworld made it (format {version}, this one knows {tables.VERSION})"
            raise LedgerTooNew(
                f"ledger {self._name}", reason, "Run that version or a newer one; or move the ledger away and `egoworld ledger rebuild`"
            )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Errors of the database as errors of ours; bugs stay what they are."""
        try:
            yield
        except sa.exc.TimeoutError as error:
            raise self._unavailable("all connections are in use", "Run again") from error
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            named = self._named(error)
            if named is None:
                raise
            raise named from error
        except OSError as error:
            raise classify(error, f"ledger {self._name}") from error

    def _named(self, error: sa.exc.DBAPIError | sqlite3.Error) -> Exception | None:
        original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if isinstance(original, sqlite3.Error):
            return self._named_sqlite(original)
        return self._named_postgres(error) if isinstance(error, sa.exc.DBAPIError) else None

    def _named_postgres(self, error: sa.exc.DBAPIError) -> Exception | None:
        code = getattr(error.orig, "sqlstate", None)
        if code == _DEADLOCK:
            return _Deadlock()
        if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)) or code == _READ_ONLY:
            return self._unavailable(" ".join(str(error.orig).split()), "See to the database server, then run again")
        return None

    def _named_sqlite(self, error: sqlite3.Error) -> EgoworldError | None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _PASSING:
            reason, cure = _MEANINGS.get(code, (str(error), "Restore the storage, then run again"))
            return self._unavailable(reason.format(busy_s=self._busy_s), cure)
        if code in _DAMAGED:
            return LedgerDamaged(
                f"ledger {self._name}", str(error), "Move it away, then `egoworld ledger rebuild`: the files are the truth"
            )
        return None

    def _unavailable(self, reason: str, cure: str) -> StorageUnavailable:
        return StorageUnavailable(f"ledger {self._name}", reason, cure)


def _identity(path: Path) -> tuple[int, int]:
    """Which file lies at a path: device and inode."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _checked_url(where: str | Path) -> sa.URL:
    if isinstance(where, Path):
        return sa.URL.create("sqlite", database=str(where))
    try:
        url = sa.make_url(where.replace("postgres://", "postgresql://", 1))
        backend = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError) as error:
        raise BadSettings("the ledger's URL", "cannot be read", "Write postgresql://user:password@host/name") from error
    if backend not in ("sqlite", "postgresql") or (backend == "sqlite" and url.database in (None, "", ":memory:")):
        reason = f"{url.render_as_string()} is not of a database that can hold a ledger"
        raise BadSettings("the ledger's URL", reason, "Name a Postgres database or a SQLite file, or leave it out")
    return url


def _sqlite_engine(url: sa.URL, busy_s: float) -> sa.Engine:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise BadSettings(
            "the ledger", f"needs SQLite 3.38, Python has {sqlite3.sqlite_version}", "Use a newer Python build, or give a Postgres URL"
        )
    engine = sa.create_engine(url, connect_args={"timeout": busy_s})

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where _begin says so, not where the driver guesses
        # In WAL mode a loss of power then costs the last moves at most, and no move waits for the disk.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A writer says so at once: then it waits its turn, where one that had read before would be refused.
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")

    return engine


def _prepare_sqlite(path: Path, engine: sa.Engine, busy_s: float) -> None:
    """Turn on WAL mode, which stays with the file. SQLite does not wait for others there, so this does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # SQLite says better what is wrong with the place
        # SQLite would make a file that its group cannot write; this one is as the umask says, and those beside it are as this one
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    until = time.monotonic() + busy_s
    while True:
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):  # type: ignore[func-returns-value]
                cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        finally:
            connection.close()


def _postgres_engine(url: sa.URL, busy_s: float) -> sa.Engine:
    arguments = {"connect_timeout": max(2, round(busy_s)), **_KEEPALIVE}
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), connect_args=arguments, pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.execute(f"SET lock_timeout = {max(1, round(busy_s * 1000))}")
        connection.commit()

    return engine


def _version(connection: sa.Connection) -> int | None:
    if not sa.inspect(connection).has_table(tables.LEDGER.name):
        return None
    return connection.execute(sa.select(sa.func.max(tables.LEDGER.c.version))).scalar()


def _create(connection: sa.Connection) -> int:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
    made_meanwhile = _version(connection)
    if made_meanwhile is not None:
        return made_meanwhile
    tables.METADATA.create_all(connection)
    connection.execute(sa.insert(tables.LEDGER).values(version=tables.VERSION))
    return tables.VERSION
