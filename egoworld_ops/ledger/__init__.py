"""The ledger: what happened to every clip in every stage, who works on it now, and the dead letters.

The files of the lake are the truth, the ledger is the record: `rebuild` makes it again from them. A loss of power may cost it its last moves,
never its consistency.

SQLite, in the lake's root, is for the processes of one host, and not for a network file system, where its locks do not hold. For several hosts
give the URL of a Postgres database; one database a lake.

SQLAlchemy is imported when a ledger is opened, not before: `states` and `files` do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egoworld_ops.lake.lake import Lake
from egoworld_ops.ledger.files import Rebuilt, rebuild
from egoworld_ops.ledger.states import MOVES, WHOLE_VIDEO, Change, ClipKey, Moves, Row, State, Verb, allowed

if TYPE_CHECKING:
    from egoworld_ops.ledger.store import Ledger

__all__ = [
    "FILE_NAME",
    "MOVES",
    "WHOLE_VIDEO",
    "Change",
    "ClipKey",
    "Moves",
    "Rebuilt",
    "Row",
    "State",
    "Verb",
    "allowed",
    "open_ledger",
    "rebuild",
]

FILE_NAME = "ledger.sqlite"


def open_ledger(lake: Lake, url: str | None = None, *, busy_s: float = 30.0, lease_s: float = 60.0, beat_s: float = 5.0) -> Ledger:
    """The ledger of a lake, made where there is none. Close it, or use it as a context manager.

    Args:
        lake: holds the SQLite file where no `url` is given.
        url: of a database, `postgresql://user:password@host/name` or `sqlite:////path`.
        busy_s: how long to wait for another process that holds the database, seconds.
        lease_s: an owner whose beat this process has seen unchanged for so long, on its own monotonic clock, has lost its clips, seconds.
        beat_s: how often owners that are made here beat, seconds.

    Raises:
        LedgerTooNew: a newer version of egoworld made it.
        LedgerDamaged: the file is not a ledger, or is damaged.
        BadSettings: the URL is of no database that can hold a ledger.
        StorageUnavailable: the database does not answer, is locked, full or read-only.
    """
    from egoworld_ops.ledger.database import Database
    from egoworld_ops.ledger.store import Ledger

    return Ledger(Database.open(url or lake.root / FILE_NAME, busy_s), lease_s, beat_s)
