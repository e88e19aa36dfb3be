"""CSV: one file a table, for spreadsheets and programs that read nothing else.

Lists and masks are JSON in their cell, depth maps base64, truth values `true` and `false`. An empty cell is a null where `export.json` says that
the column is nullable, and an empty text where it is not.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from egoworld_ops.exports.base import Rows


def export(rows: Rows, target: Path) -> Sequence[Path]:
    """One CSV file a table (UTF-8, RFC 4180), lists as JSON, and `export.json` with types, units, frames and origin."""
    written = [target / f"{table}.csv" for table in rows.tables]
    for table, path in zip(rows.tables, written, strict=True):
        names = rows.schema_of(table).names
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for part in rows.of(table):
                writer.writerows([_cell(row[name]) for name in names] for row in part.to_pylist())
    about = target / "export.json"
    columns = {table: {field.name: _column(field) for field in rows.schema_of(table)} for table in rows.tables}
    about.write_text(json.dumps(rows.described() | {"columns": columns}, indent=1), "utf-8")
    return [*written, about]


def _column(field: pa.Field) -> dict[str, Any]:
    said = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
    return {"type": str(field.type), "nullable": field.nullable, **said}


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else value
