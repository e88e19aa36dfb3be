"""CSV: one file a table, for spreadsheets and programs that read nothing else. Lists and masks are JSON in their cell; a null is an empty cell."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from egoworld_ops.exports.base import Rows


def export(rows: Rows, target: Path) -> Sequence[Path]:
    """One CSV file a table (UTF-8, RFC 4180), lists as JSON, and `export.json` with units, frames and origin."""
    written = [target / f"{table}.csv" for table in rows.tables]
    for table, path in zip(rows.tables, written, strict=True):
        names = rows.schema_of(table).names
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for part in rows.of(table):
                writer.writerows([_cell(row[name]) for name in names] for row in part.to_pylist())
    about = target / "export.json"
    columns = {
        table: {f.name: {k.decode(): v.decode() for k, v in (f.metadata or {}).items()} for f in rows.schema_of(table)}
        for table in rows.tables
    }
    about.write_text(json.dumps(rows.described() | {"columns": columns}, indent=1), "utf-8")
    return [*written, about]


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
