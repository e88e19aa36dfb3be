"""The file of a failure, `STAGE.failure.parquet`: what it says, and which results count beside it.

What became of a clip, failures included, `states.py` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, EgoworldError, InputChanged, InputError, StorageUnavailable, recorded
from egoworld_ops.files.tables import read_any, write_table

TABLE = "failures"
_NEEDED = {"error_class", "reason", "cure", "retryable"}
STAND_IN = "stand_in"
"""Where the identity of a failure has the digest of the result of a fallback backend that stands in for it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a file of table `failures` says: its one row, and its origin."""

    row: Mapping[str, Any]
    known: Mapping[str, Any]

    @property
    def error(self) -> EgoworldError:
        """The error that was written down."""
        return recorded(self.row["error_class"], self.row["culprit"], self.row["reason"], self.row["cure"])

    @property
    def dead_letter(self) -> bool:
        """Whether it waits for a person."""
        return bool(self.row["dead_letter"])

    @property
    def digest(self) -> str:
        """Of the work that failed."""
        return str(self.known.get("digest", ""))

    @property
    def raw(self) -> Any:
        """The state of the raw file then."""
        return self._identity.get("raw")

    def allows(self, digest: str) -> bool:
        """Whether a result with that digest counts beside this failure: it is of the same work, or stands in for it."""
        return digest in (self.known.get("digest"), self._identity.get(STAND_IN))

    @property
    def _identity(self) -> Mapping[str, Any]:
        identity = self.known.get("identity")
        return identity if isinstance(identity, dict) else {}


def is_dead_letter(error: EgoworldError) -> bool:
    """Whether a clip that ended so, after all attempts, waits for a person: always, but where the state of what it reads is at fault.

    Such a failure (a sidecar, a file that changed, an input replaced meanwhile, storage that did not answer) is looked at again by the next
    materialization.
    """
    return not isinstance(error, (InputChanged, StorageUnavailable)) and not (isinstance(error, InputError) and error.passing)


def on_record(path: Path) -> Failure | None:
    """What a failure's file says; None where there is none, or it is damaged.

    Raises:
        StorageUnavailable: it is there and cannot be read now.
    """
    try:
        rows, known = read_any(path, TABLE)
        [row] = rows.to_pylist()
    except (ContractError, ValueError):
        return None
    older = {"culprit": "", "dead_letter": not row.get("retryable")}  # what files of older versions of the contract lack
    return Failure(older | row, known) if row.keys() >= _NEEDED else None


def record_stand_in(failure: Path, digest: str) -> None:
    """Note beside a failure that the result with that digest, of a fallback backend, stands in for it."""
    if (failed := on_record(failure)) is not None and not failed.allows(digest):
        identity = failed.known.get("identity") or {}
        known = {**failed.known, "identity": identity | {STAND_IN: digest}}
        write_table(failure, TABLE, schema.from_rows(TABLE, [failed.row]), known)
