"""THE data contract: every table, column, type, unit and frame. Parquet schemas, checks, the docs page and the UI derive from it.

Belongs here: all tables by name, and rows as their types want them; what a table is made of stands in `columns.py` and is named here too, so that
who declares a table needs this module alone. Does not belong here: the tables themselves (`own_tables.py`, and those of stages in
`operators/<stage>/__init__.py` or the package that brings one); how a value is computed or where it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import gathered
from egoworld_ops.contract.columns import (
    BOX,
    CONVENTIONS,
    DEPTH_ERROR,
    HAND,
    INTRINSICS,
    INTRINSICS_CURE,
    LABEL,
    METRIC,
    OBSERVED,
    PARTITION_KEYS,
    POINTS_2D,
    POINTS_3D,
    RLE,
    ROLE,
    SCHEMA_VERSION,
    SCORE,
    TRACK,
    Column,
    Table,
    clip_id,
    fixed_list,
    hand_in_camera,
    per_frame,
    pose,
    reason,
    reason_class,
    video_id,
)
from egoworld_ops.contract.own_tables import CLIPS, FAILURES, INTAKE, METRICS, STATES, VERDICTS, VIDEOS
from egoworld_ops.errors import ContractError

__all__ = [
    "BOX",
    "CONVENTIONS",
    "DEPTH_ERROR",
    "HAND",
    "INTRINSICS",
    "INTRINSICS_CURE",
    "LABEL",
    "METRIC",
    "OBSERVED",
    "PARTITION_KEYS",
    "POINTS_2D",
    "POINTS_3D",
    "RLE",
    "ROLE",
    "SCHEMA_VERSION",
    "SCORE",
    "TABLES",
    "TRACK",
    "Column",
    "Table",
    "broken",
    "clip_id",
    "empty",
    "fixed_list",
    "from_rows",
    "hand_in_camera",
    "per_frame",
    "pose",
    "reason",
    "reason_class",
    "sort",
    "table",
    "video_id",
]


class _Tables(Mapping[str, Table]):
    """All tables by name, in the order of the chain. The stages' are gathered when it is first looked into."""

    def __getitem__(self, name: str) -> Table:
        return _tables()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_tables())

    def __len__(self) -> int:
        return len(_tables())


TABLES: Mapping[str, Table] = _Tables()


@cache
def _tables() -> dict[str, Table]:
    of_stages = [stage.table for stage in gathered.stages().values()]
    return {t.name: t for t in (VIDEOS, CLIPS, *of_stages, FAILURES, STATES, METRICS, INTAKE, VERDICTS)}


def table(name: str) -> Table:
    """The table of that name, or the contract of a view's rows; KeyError names the known tables."""
    if name in TABLES:
        return TABLES[name]
    try:
        found: Table = gathered.views()[name].table
        return found
    except KeyError:
        raise KeyError(f"no table {name!r} in the data contract; there are {', '.join(TABLES)}") from None


def from_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build a table from row mappings, in the contract's types and sorted by its key.

    numpy arrays are taken as nested lists; a missing nullable column becomes null.

    Raises:
        ContractError: an unknown column, a missing value, or a value of the wrong type or shape.
    """
    contract = table(name)
    known = {c.name for c in contract.columns}
    for row in rows:
        if unknown := row.keys() - known:
            raise broken(name, f"no column {sorted(unknown)}")
    columns = {column: [_plain(row.get(column)) for row in rows] for column in known}
    schema = contract.arrow_schema()
    try:
        built = pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise broken(name, str(error)) from error
    return sort(name, built)


def sort(name: str, rows: pa.Table) -> pa.Table:
    """Rows in the contract's order."""
    return rows.sort_by([(k, "ascending") for k in table(name).key]) if rows.num_rows > 1 else rows


def empty(name: str) -> pa.Table:
    """No rows, typed: what a stage returns that found nothing."""
    return table(name).arrow_schema().empty_table()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def broken(name: str, reason: str) -> ContractError:
    """The error of rows that are not as table `name` wants them."""
    return ContractError(f"table {name}", reason, "Mend the operator that made it, or delete the file: it is made anew")
