"""Queries over rows of groups of files, one query for all groups. Groups and files are numbers in it, which are joined and grouped in a fraction of
the time that names take."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb


def aggregated(
    connection: duckdb.DuckDBPyConnection, aggregates: Sequence[str], files: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Any, ...]]:
    """By group that has files, aggregates over its rows, which may be none. Each file is read once.

    Groups that share no file are one grouping set, so that those of videos and those of their clips make two.

    Args:
        aggregates: SQL expressions over the columns of the files.
        files: by name of the group.
    """
    keys, at = list(files), {path: n for n, path in enumerate(dict.fromkeys(path for paths in files.values() for path in paths))}
    levels: list[dict[str, int]] = []
    for number, key in enumerate(keys):
        level = next((level for level in levels if level.keys().isdisjoint(files[key])), None)
        if level is None:
            levels.append(level := {})
        level.update(dict.fromkeys(files[key], number))
    names = [f"level_{n}" for n in range(len(levels))]
    given: dict[str, Sequence[Any]] = {"files": [glob.escape(path) for path in at], "numbers": list(at.values())}
    given |= {name: [level.get(path) for path in at] for name, level in zip(names, levels, strict=True)}
    places = ", ".join(["unnest($numbers::UBIGINT[]) AS file_index", *(f"unnest(${name}::INT[]) AS {name}" for name in names)])
    read = "(SELECT *, file_index FROM read_parquet($files, hive_partitioning = false))"
    sets = ", ".join(f"({name})" for name in names)
    asked = f"SELECT coalesce({', '.join(names)}), {', '.join(aggregates)} FROM {read} JOIN (SELECT {places}) USING (file_index)"
    found = connection.execute(f"{asked} GROUP BY GROUPING SETS ({sets})", given).fetchall()
    said = {keys[number]: tuple(values) for number, *values in found if number is not None}
    if bare := [key for key, paths in files.items() if paths and key not in said]:
        [nothing] = connection.execute(f"SELECT {', '.join(aggregates)} FROM {read} WHERE false", {"files": given["files"]}).fetchall()
        said |= dict.fromkeys(bare, nothing)
    return said


class Grouped:
    """A query over rows of groups of files: relation `all_NAME` has the rows of each file once for each group it is in, with its `group_key`.

    Keys in the query are numbers, and so are files: rows are joined and grouped by these in a fraction of the time that names take.

    Args:
        files: by name of the relation and by group.
    """

    def __init__(self, files: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self._relations: list[str] = []
        self._given: dict[str, Sequence[str | int]] = {}
        keys = list(dict.fromkeys(key for of_groups in files.values() for key in of_groups))
        self.number = {key: n for n, key in enumerate(keys)}
        """The number that stands for a key in the query."""
        self._keys = keys
        for name, of_groups in files.items():
            at = {path: n for n, path in enumerate(dict.fromkeys(path for paths in of_groups.values() for path in paths))}
            pairs = [(self.number[key], at[path]) for key, paths in of_groups.items() for path in paths]
            self._given |= {
                name: [glob.escape(path) for path in at],
                f"{name}_keys": [key for key, _ in pairs],
                f"{name}_files": [file for _, file in pairs],
            }
            places = f"(SELECT unnest(${name}_keys::INT[]) AS group_key, unnest(${name}_files::UBIGINT[]) AS file_index)"
            read = f"(SELECT *, file_index FROM read_parquet(${name}, hive_partitioning = false))"
            self._relations.append(f"all_{name} AS (SELECT * FROM {read} JOIN {places} USING (file_index))")

    def run(
        self,
        connection: duckdb.DuckDBPyConnection,
        query: str,
        given: Mapping[str, Any] = MappingProxyType({}),
        relations: Sequence[str] = (),
    ) -> list[tuple[Any, ...]]:
        """The rows of a query, whose first column is a `group_key`: with its key in its place."""
        asked = f"WITH {', '.join([*self._relations, *relations])} {query}"
        found = connection.execute(asked, {**self._given, **given}).fetchall()
        return [(self._keys[number], *row) for number, *row in found]
