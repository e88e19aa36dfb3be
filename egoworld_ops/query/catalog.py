"""`egoworld.duckdb`, the database that people ask: views over the files of a lake, and nothing else. What the views are is said in `views.py`.

Views without a schema show the latest run, by its name: rows that count, of frames that their clip owns, each frame once. `runs` has the same of
all runs, `raw` every row of every file, `release` and `releases` the release made last and all of them. Each has the column `run_id`. The view `runs`
has a row for each run, with what its `run.json` says of settings, code, weights and host; `run_states` counts its clips by stage and state.

The file is for reading: it is written anew, in one rename, whenever a view would be another. What somebody else wrote in it is set aside, not lost.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, StorageUnavailable
from egoworld_ops.files import locks, regular
from egoworld_ops.files.whole import hard_link, hold_swept, named_errors, sync_folder, temporary_folder, write_bytes
from egoworld_ops.lake import verdicts
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query.views import FILE_NAME, statements
from egoworld_ops.raw import intake
from egoworld_ops.release import place

STORAGE_VERSION = "v0.10.2"
"""The oldest that our DuckDB writes; 1.0 and all later ones open it."""
_FOR_READING = 0o444
_KEPT = "egoworld.kept-{}.duckdb"
_LOG = logging.getLogger(__name__)


def write_catalog(lake: Lake) -> Path:
    """Write the catalog beside the lake's runs, in one rename; readers of an old file are not disturbed.

    The views name patterns, not files: they see what later stages write. So the catalog is written only where its statements differ from those
    that the present file was made with, or where somebody wrote in it. In a lake in which this user may only read it is taken as it is:
    its views find the lake by themselves, also that of a copy. Where another version wrote it, a warning names the views that it lacks.

    Raises:
        StorageUnavailable: the storage refuses; the catalog is as it was. Or this user may only read, and no whole catalog is there.
        ContractError: a folder is in its place.
    """
    target, stamp = lake.root / FILE_NAME, lake.root / f".{FILE_NAME}.sha256"
    if lake.root.is_dir() and not os.access(lake.root, os.W_OK):
        return _for_reading_alone(lake, target, stamp)
    intake.ensure(lake)
    verdicts.ensure(lake)
    hold_swept(lake.root)  # so that nobody takes the files being written here for orphans of a killed process
    place.ensure(lake)
    said = statements(lake)
    made_with = hashlib.sha256("\n".join([schema.SCHEMA_VERSION, *said]).encode()).hexdigest()
    if _is_as_written(target, stamp, made_with):
        return target
    if target.is_dir():
        raise ContractError(target, "is a folder, where the catalog is to be", "Move it away")
    place.ensure(lake, again=True)
    if (run := lake.latest_run()) is not None:
        hold_swept(run.path)
        run.write_placeholders()
    with _scratch(lake) as folder:
        fresh = folder / FILE_NAME
        _write(fresh, said)
        with named_errors(target):
            content = _sha256(fresh)
            with suppress(OSError):  # exFAT and SMB may have no modes
                os.chmod(fresh, _FOR_READING & fresh.stat().st_mode)
            stamp.unlink(missing_ok=True)
            _set_aside(target)
            os.replace(fresh, target)
            sync_folder(lake.root)  # before the stamp, which says that this content is on the disk
            write_bytes(stamp, f"{made_with} {content}".encode(), durable=False)
    return target


def _for_reading_alone(lake: Lake, target: Path, stamp: Path) -> Path:
    if not _is_as_written(target, stamp, None):
        reason = "is not there, or not as egoworld wrote it, and this user may not write in the lake"
        raise StorageUnavailable(target, reason, "Let somebody who may run `egoworld sql 'SELECT 1'` once, or work on a copy of the lake")
    if lacks := _views_made_by(statements(lake)) - _views_in(target):
        _LOG.warning(
            f"{target}: another version of egoworld wrote it, without the views {', '.join(sorted(lacks))}, and this user may not write in the lake"
        )
    return target


def _views_made_by(said: Iterable[str]) -> set[str]:
    return {found[1] for statement in said if (found := re.match(r"CREATE VIEW (\S+)", statement))}


def _views_in(database: Path) -> set[str]:
    """The names of a database's views, with their schema where it is another than the first."""
    named = "if(schema_name = 'main', '', schema_name || '.') || view_name"
    with duckdb.connect(str(database), read_only=True) as connection:
        return {name for (name,) in connection.execute(f"SELECT {named} FROM duckdb_views() WHERE NOT internal").fetchall()}


def _is_as_written(target: Path, stamp: Path, made_with: str | None) -> bool:
    """Whether the catalog is the one that these statements made (None: any), as it was made.

    One that another process has open for writing is left to it.
    """
    try:
        with named_errors(target):
            known = regular.read_text(stamp).split()
            if known[:1] != [made_with or known[0]] or not target.exists():
                return False
            log = _log(target)
            if log.exists():
                return log.absolute() in locks.open_files(target.parent.absolute())
            return known[1:] == [_sha256(target)]
    except (FileNotFoundError, IsADirectoryError, IndexError):
        return False


def _write(fresh: Path, said: list[str]) -> None:
    try:
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{_quoted(fresh)}' AS egoworld (STORAGE_VERSION '{STORAGE_VERSION}')")
            connection.execute("USE egoworld")
            connection.begin()  # else each statement waits for the disk
            for statement in said:
                connection.execute(statement)
            connection.commit()
            connection.execute("CHECKPOINT egoworld")  # closing would do it too, and not say where that failed
    except (duckdb.OperationalError, duckdb.FatalException) as error:
        raise StorageUnavailable(fresh, str(error), "Free or restore the storage, then run again") from error
    with named_errors(fresh), fresh.open("rb") as written:
        os.fsync(written.fileno())


def _set_aside(target: Path) -> None:
    """Move away the write-ahead log of the old catalog, and keep a copy of the old catalog if somebody wrote tables into it."""
    log = _log(target)
    kept = target.with_name(_KEPT.format(datetime.now(UTC).strftime("%Y%m%d_%H%M%S_%f")))
    if target.is_file() and not hard_link(target, kept):
        shutil.copyfile(target, kept)
    if log.exists():
        os.replace(log, _log(kept))
    if kept.exists() and not _holds_tables(kept):
        for path in (kept, _log(kept)):
            path.unlink(missing_ok=True)


def _holds_tables(database: Path) -> bool:
    """Whether there are tables in a database, or may be: it cannot be opened. A catalog has none."""
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            return bool(connection.execute("SELECT count(*) > 0 FROM duckdb_tables() WHERE NOT internal").fetchall()[0][0])
    except duckdb.Error:
        return True


@contextmanager
def _scratch(lake: Lake) -> Iterator[Path]:
    with named_errors(lake.root):
        folder = temporary_folder(lake.root, "catalog")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _log(database: Path) -> Path:
    return database.with_name(f"{database.name}.wal")


def _sha256(path: Path) -> str:
    return hashlib.sha256(regular.read_bytes(path)).hexdigest()


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
