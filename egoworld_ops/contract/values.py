"""Rows and rows with a value: an estimate that could not be made is a row with a null and its `reason`, and is counted as such.

So is one that was made and could not be verified: it has its `reason` beside the value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from egoworld_ops.contract import gathered

REASON = "reason"


@dataclass(frozen=True, slots=True)
class Values:
    """How many rows there are, and why some have no value that stands.

    Args:
        rows: of tables that have a column `reason`; none of others.
        reasons: how many rows have no value that stands, by reason.
    """

    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Values) -> Values:
        return Values(self.rows + other.rows, self.reasons + other.reasons)

    @property
    def with_value(self) -> int:
        """Rows that have what the table is about."""
        return self.rows - self.reasons.total()

    @property
    def share(self) -> float:
        """Of rows with a value among all; 1 where there are no rows."""
        return self.with_value / self.rows if self.rows else 1.0

    def said(self, stage: str) -> str:
        """Rows with a value of all, and the most frequent reason with a cure, as text."""
        counts = f"{self.with_value} of {self.rows}"
        if not self.reasons:
            return counts
        [(reason, n)] = self.reasons.most_common(1)
        return f"{counts}; {n} without, because: {reason}. {cure(stage)}"


def of_rows(table: pa.Table) -> Values:
    """The counts of rows of one table."""
    if REASON not in table.column_names:
        return Values()
    counted = table[REASON].drop_null().value_counts()
    return Values(table.num_rows, Counter({str(row["values"]): row["counts"] for row in counted.to_pylist()}))


def cure(stage: str) -> str:
    """What a person can do where rows of a stage have no value."""
    known = gathered.stages().get(stage)
    if known and "objects" in known.sidecar:
        return "Give the size or the mesh of the object in the sidecar <video>.egoworld.json"
    return "Look at the rows of the stages upstream"
