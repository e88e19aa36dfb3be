"""Checks that one file of a run is whole and describes itself correctly: pages, counts, statistics, digest, contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import ContractError, unreadable
from egoworld_ops.files import regular, seal
from egoworld_ops.files.tables import read_result
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake.states import contract_of_rows

MAKE_AGAIN = "Delete it and materialize the stage again"


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that was checked.

    Args:
        rows: None where it cannot be read.
        said: what the file says of its origin.
        findings: everything wrong with the file by itself.
    """

    path: Path
    rows: pa.Table | None
    said: Mapping[str, Any]
    findings: list[ContractError]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the file says its result depends on."""
        value = self.said.get("identity")
        return value if isinstance(value, dict) else {}

    def finding(self, reason: str, cure: str = MAKE_AGAIN) -> ContractError:
        """Something that is wrong with it."""
        return ContractError(self.path, reason, cure)


def check_file(path: Path, table: str) -> Checked:
    """Read a file and check all that can be checked without any other file.

    Raises:
        StorageUnavailable: it exists but cannot be read now.
    """
    try:
        rows, said = read_result(path, table)
        content = regular.read_bytes(path)
        sealed, footer = seal.is_sealed(content), pq.read_metadata(pa.BufferReader(content))
    except (ContractError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and (away := unreadable(error, path)) is not None:
            raise away from error
        found = error if isinstance(error, ContractError) else ContractError(path, f"cannot be read as Parquet: {error}", MAKE_AGAIN)
        return Checked(path, None, {}, [found])
    try:
        reasons = list(_reasons(table, rows, said, footer if sealed else None))
    except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as error:
        reasons = [f"makes no sense: {error!r}"]
    return Checked(path, rows, said, [ContractError(path, reason, MAKE_AGAIN) for reason in reasons])


def _reasons(table: str, rows: pa.Table, said: Mapping[str, Any], footer: pq.FileMetaData | None) -> Iterator[str]:
    if (version := contract_of_rows(rows)) != schema.SCHEMA_VERSION:
        yield f"was written under schema version {version}, this is version {schema.SCHEMA_VERSION}"
        return
    if not said:
        yield "says nothing of its origin"
    elif table != "videos" and said.get("rows") != rows.num_rows:  # a manifest counts its clips, in both of its files
        yield f"holds {rows.num_rows} rows, and says it holds {said.get('rows')}"
    if said and table != "failures" and not _is_digest(said):
        yield f"says its digest is {str(said.get('digest'))[:12]}, which is not that of what it says it depends on"
    if wrong := "; ".join(validation.violations(table, rows)):
        yield wrong
    if footer is None:
        yield "has no seal: not written by this version of the lake, or damaged"
    else:
        yield from _false_statistics(rows, footer)


def _is_digest(said: Mapping[str, Any]) -> bool:
    identity = said.get("identity")
    return isinstance(identity, dict) and sha256_of(identity) == said.get("digest")


def _false_statistics(rows: pa.Table, footer: pq.FileMetaData) -> Iterator[str]:
    """Columns whose minimum and maximum differ from those in the footer: readers would skip rows that are there."""
    start = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        part = rows.slice(start, group.num_rows)
        start += group.num_rows
        for chunk in (group.column(i) for i in range(group.num_columns)):
            stated = chunk.statistics
            if chunk.path_in_schema in rows.schema.names and stated is not None and stated.has_min_max:
                least, most = pc.min_max(part[chunk.path_in_schema]).as_py().values()
                if (least, most) != (stated.min, stated.max):
                    yield f"holds {chunk.path_in_schema} from {least} to {most}, and its footer says from {stated.min} to {stated.max}"
