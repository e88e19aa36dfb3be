"""A format from another package: the number of rows of each table, in a text file."""

from collections.abc import Sequence
from pathlib import Path

from egoworld_ops.exports.base import Rows


def export(rows: Rows, target: Path) -> Sequence[Path]:
    """`rows.txt`, a line a table."""
    path = target / "rows.txt"
    path.write_text("".join(f"{table} {sum(part.num_rows for part in rows.of(table))}\n" for table in rows.tables))
    return [path]
