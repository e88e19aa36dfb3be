"""How two tables of one stage differ, row by row: rows that only one has, and how far apart their numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.vision import rle

_MASK = "rle"


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one column, over the rows that both tables have a value in.

    Args:
        rows: in which it differs.
        median, maximum: of the largest absolute difference in each row, in the column's unit; of a mask, 1 - IoU. Infinite where only one table has
            a value, or where it is no number.
        unit: the column's.
    """

    column: str
    rows: int
    median: float
    maximum: float
    unit: str


@dataclass(frozen=True, slots=True)
class Compared:
    """Two tables of a stage.

    Args:
        rows: that both have, by the table's key.
        only_first, only_second: rows that the other has not.
        columns: those in which something differs.
    """

    rows: int
    only_first: int
    only_second: int
    columns: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_first or self.only_second or self.columns)


def compared(stage: str, first: pa.Table, second: pa.Table) -> Compared:
    """How two tables of one stage differ."""
    contract = schema.table(stage)
    a, b = (_by_key(contract, table) for table in (first, second))
    shared = [key for key in a if key in b]
    columns = (_difference(column, [(a[key], b[key]) for key in shared]) for column in contract.columns if column.name not in contract.key)
    return Compared(len(shared), len(a) - len(shared), len(b) - len(shared), tuple(found for found in columns if found.maximum > 0))


def _by_key(contract: schema.Table, table: pa.Table) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    return {tuple(row[name] for name in contract.key): row for row in table.to_pylist()}


def _difference(column: schema.Column, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Difference:
    apart = [_apart(first[column.name], second[column.name], column.name == _MASK) for first, second in pairs] or [0.0]
    return Difference(column.name, sum(a > 0 for a in apart), float(np.median(apart)), max(apart), column.unit)


def _apart(p: Any, q: Any, is_mask: bool) -> float:
    """How far apart two values are; infinite where one is none, or where they are words and differ."""
    if p == q:
        return 0.0
    if p is None or q is None:
        return np.inf
    if is_mask:
        return 1 - rle.iou(p, q)
    try:
        x, y = np.asarray(p, np.float64), np.asarray(q, np.float64)
    except (TypeError, ValueError):
        return np.inf
    return float(np.abs(x - y).max()) if x.shape == y.shape else np.inf
