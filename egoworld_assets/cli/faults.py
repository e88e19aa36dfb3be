"""Turns errors of other libraries into one line with the cure, for the command line."""

from __future__ import annotations

import errno
import sys

import click

from egoworld_ops.errors import BadSettings, EgoworldError, OperatorCrash, StorageUnavailable, classify

_PERMISSION = (errno.EACCES, errno.EPERM)
_OF_DAGSTER = ("dagster", "sqlalchemy", "alembic", "sqlite3", "psycopg")
"""Packages whose errors come from Dagster and its databases; those of our ledger's are named where they arise."""


def named(error: Exception) -> EgoworldError | None:
    """The egoworld error for `error`; None if it is one already, or click's own."""
    if isinstance(error, (EgoworldError, click.exceptions.Exit, click.ClickException, click.Abort)) or error.__class__ is BrokenPipeError:
        return None
    said = f"{type(error).__name__}: {_first_line(error)}"
    if isinstance(error, OSError):
        return _of_system(error, said)
    package = type(error).__module__.partition(".")[0].lstrip("_")
    if package == "duckdb":
        said = " ".join(str(error).partition("LINE 1:")[0].split()).rstrip("!")
        return BadSettings("the query", said, 'Mend the SQL; `egoworld sql "SHOW ALL TABLES"` lists tables and columns')
    if package.startswith(_OF_DAGSTER):
        cure = "Let this user write to the databases that dagster.yaml in DAGSTER_HOME names (by default in its folder history), or move them away"
        return BadSettings("Dagster", said, cure)
    return OperatorCrash("egoworld", said, f"This is a bug: report what `egoworld --debug {' '.join(sys.argv[1:])}` prints")


def _of_system(error: OSError, said: str) -> EgoworldError:
    place = error.filename or "the storage"
    if isinstance(known := classify(error, place), StorageUnavailable):
        return known
    if error.errno in _PERMISSION:
        return StorageUnavailable(
            place, said, "Let this user write there, or name other folders: EGOWORLD_LAKE, EGOWORLD_RAW, DAGSTER_HOME"
        )
    return StorageUnavailable(place, said, "See to the file or its folder, then run again")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
