"""`egoworld.duckdb`: a view per table of the contract, over the latest run and, in schema `runs`, over all of them."""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from pathlib import Path

import duckdb

from egoworld_ops import registry, schema
from egoworld_ops.lake import RUN_TABLES, Lake, table_glob, write_bytes

FILE_NAME = "egoworld.duckdb"


def write_catalog(lake: Lake) -> Path:
    """Write the catalog beside the lake's runs, in one rename; readers of an old file are not disturbed.

    The views name patterns, not files: they see what later stages write. So the catalog is written only where its statements differ from those
    that the present file was made with.
    """
    target, stamp = lake.root / FILE_NAME, lake.root / f".{FILE_NAME}.sha256"
    statements = view_statements(lake)
    made_with = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    registry.ensure(lake)
    if target.exists() and stamp.exists() and stamp.read_text("utf-8") == made_with:
        return target
    with tempfile.TemporaryDirectory(prefix=".tmp-catalog-", dir=lake.root) as folder:
        fresh = Path(folder) / FILE_NAME
        with duckdb.connect(str(fresh)) as connection:
            for statement in statements:
                connection.execute(statement)
        stamp.unlink(missing_ok=True)
        os.replace(fresh, target)
    write_bytes(stamp, made_with.encode(), durable=False)
    return target


def view_statements(lake: Lake) -> list[str]:
    """The SQL that makes the views."""
    root = Path(glob.escape(str(lake.root.absolute())))
    statements = ["CREATE SCHEMA runs"]
    statements.append(f"CREATE VIEW intake AS SELECT {_columns('intake')} FROM {_files(root / 'intake' / '*.parquet')}")
    for name in RUN_TABLES:
        columns = _columns(name)
        latest, every = _files(root / "latest" / table_glob(name)), _files(root / "run_id=*" / table_glob(name))
        run_id = "regexp_extract(filename, 'run_id=([^/]+)/', 1) AS run_id"
        statements.append(f"CREATE VIEW {name} AS SELECT {columns} FROM {latest}")
        statements.append(f"CREATE VIEW runs.{name} AS SELECT {run_id}, {columns} FROM {every}")
    return statements


def _columns(name: str) -> str:
    return ", ".join(c.name for c in schema.table(name).columns)


def _files(pattern: Path) -> str:
    quoted = str(pattern).replace("'", "''")
    return f"read_parquet('{quoted}', hive_partitioning = false, union_by_name = true, filename = true)"
