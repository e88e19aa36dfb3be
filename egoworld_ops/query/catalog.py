"""`egoworld.duckdb`: a view per table of the contract, over the latest run and, in schema `runs`, over all of them.

Schema `release` has the same views over the release made last, schema `releases` over all of them. The view `runs` has a row for each run, with what
its `run.json` says of settings, code, weights and host; `run_states` how many of its clips are in which state, by stage, as the files have it.
"""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from pathlib import Path

import duckdb

from egoworld_ops.contract import schema
from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.files.whole import named_errors, sync_folder, write_bytes
from egoworld_ops.lake.lake import RELEASED_TABLES, RUN_TABLES, Lake, placeholder, table_glob
from egoworld_ops.raw import record
from egoworld_ops.release import place

FILE_NAME = "egoworld.duckdb"
_RUN_FACTS = ("settings", "frozen", "git", "packages", "python", "weights", "inputs", "parquet", "conventions", "host")
"""What the view `runs` has of `run.json`, as JSON."""


def write_catalog(lake: Lake) -> Path:
    """Write the catalog beside the lake's runs, in one rename; readers of an old file are not disturbed.

    The views name patterns, not files: they see what later stages write. So the catalog is written only where its statements differ from those
    that the present file was made with.
    """
    target, stamp = lake.root / FILE_NAME, lake.root / f".{FILE_NAME}.sha256"
    place.ensure(lake)
    statements = view_statements(lake)
    made_with = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    with named_errors(stamp):
        as_it_was = target.exists() and stamp.exists() and stamp.read_text("utf-8") == made_with
    record.ensure(lake)
    place.ensure(lake, again=not as_it_was)
    if as_it_was:
        return target
    with named_errors(target), tempfile.TemporaryDirectory(prefix=".tmp-catalog-", dir=lake.root) as folder:
        fresh = Path(folder) / FILE_NAME
        try:
            with duckdb.connect(str(fresh)) as connection:
                for statement in statements:
                    connection.execute(statement)
                connection.execute("CHECKPOINT")  # closing would do it too, and not say where that failed
        except (duckdb.OperationalError, duckdb.FatalException) as error:
            raise StorageUnavailable(target, str(error), "Free or restore the storage, then run again") from error
        stamp.unlink(missing_ok=True)
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(fresh, target)
        sync_folder(lake.root)  # before the stamp: it vouches for what is on the disk
    write_bytes(stamp, made_with.encode(), durable=False)
    return target


def view_statements(lake: Lake) -> list[str]:
    """The SQL that makes the views."""
    root = Path(glob.escape(str(lake.root.absolute())))
    run = lake.latest_run()
    statements = ["CREATE SCHEMA runs", "CREATE SCHEMA release", "CREATE SCHEMA releases"]
    statements.append(f"CREATE VIEW intake AS SELECT {_columns('intake')} FROM {_files(root / 'intake' / '*.parquet')}")
    for name in RUN_TABLES:
        columns = _columns(name)
        of_latest = root / run.path.name / table_glob(name) if run else root / "run_id=*" / placeholder(name)
        latest, every = _files(of_latest), _files(root / "run_id=*" / table_glob(name))
        run_id = "regexp_extract(filename, 'run_id=([^/]+)/', 1) AS run_id"
        statements.append(f"CREATE VIEW {name} AS SELECT {columns} FROM {latest}")
        statements.append(f"CREATE VIEW runs.{name} AS SELECT {run_id}, {columns} FROM {every}")
        if name not in RELEASED_TABLES:
            continue
        released = Path(glob.escape(str(place.shown(lake).absolute())))
        newest, all_of_them = (_files(folder / name / "part-*.parquet") for folder in (released, root / "release/*"))
        statements.append(f"CREATE VIEW release.{name} AS SELECT {columns} FROM {newest}")
        statements.append(f"CREATE VIEW releases.{name} AS SELECT {run_id}, {columns} FROM {all_of_them}")
    return [*statements, _runs(root), _run_states()]


def _runs(root: Path) -> str:
    """One row a run, of nulls where its `run.json` is broken: that must not hide the others."""
    read = f"SELECT filename, TRY(decode(content)::JSON) AS said FROM read_blob({_quoted(root / 'run_id=*' / 'run.json')})"
    columns = [
        "regexp_extract(filename, 'run_id=([^/]+)/run[.]json$', 1) AS run_id",
        "TRY((said->>'created_at')::TIMESTAMPTZ) AS created_at",
    ]
    columns += [f"said->'{name}' AS {name}" for name in _RUN_FACTS]
    return f"CREATE VIEW runs AS SELECT {', '.join(columns)} FROM ({read}) ORDER BY created_at"


def _run_states() -> str:
    """Clips (videos, of the manifest) by run, stage and state, as table `states` has them; a failure that waits for a person is a `dead_letter`."""
    state = "if(state = 'failed' AND dead_letter, 'dead_letter', state) AS state"
    return f"CREATE VIEW run_states AS SELECT run_id, stage, {state}, count(*) AS clips FROM runs.states GROUP BY ALL ORDER BY ALL"


def _columns(name: str) -> str:
    return ", ".join(c.name for c in schema.table(name).columns)


def _files(pattern: Path) -> str:
    return f"read_parquet({_quoted(pattern)}, hive_partitioning = false, union_by_name = true, filename = true)"


def _quoted(pattern: Path) -> str:
    return "'" + str(pattern).replace("'", "''") + "'"
