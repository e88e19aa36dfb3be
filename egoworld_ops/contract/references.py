"""Which rows of a clip must have a row in another table, as foreign keys: a mask has a detection, a mapped hand a pose. Frames and ids only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from egoworld_ops.contract import gathered

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """Each combination of `columns` in table `child` is in table `parent` of the same clip, or in one of `others`.

    `role` and `hand` say the same where a table has only one of them: hand `left` is role `hand_left`; tables without either are about objects.
    """

    child: str
    parent: str
    columns: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parent:
    """What a stage says of its own rows: each combination of `columns` is in table `table` of the same clip, or in one of `others`."""

    table: str
    columns: tuple[str, ...]
    others: tuple[str, ...] = ()


def references() -> tuple[Reference, ...]:
    """All references, as the stages declare them."""
    return tuple(Reference(stage.name, p.table, p.columns, p.others) for stage in gathered.stages().values() for p in stage.parents)


def dangling(tables: Mapping[str, pa.Table], before: Mapping[str, pa.Table] | None = None) -> Iterator[tuple[Reference, str]]:
    """The references that tables of one clip break, with a sentence on each. Tables that are not given are not looked at.

    Args:
        before: by stage the table of the clip before that the clip's own goes on with: what that has, needs no other parent.
    """
    for reference in references():
        if reference.child in tables and reference.parent in tables:
            have = set().union(*(_keys(tables[name], reference) for name in (reference.parent, *reference.others) if name in tables))
            have |= _keys(before[reference.child], reference) if before and reference.child in before else set()
            if lost := sorted(_keys(tables[reference.child], reference) - have):
                names = ", ".join(reference.columns)
                shown = ", ".join(str(key) for key in lost[:_SHOWN]) + (", ..." if len(lost) > _SHOWN else "")
                yield reference, f"has {len(lost)} ({names}) that are not in {reference.parent} of the clip: {shown}"


def _keys(rows: pa.Table, reference: Reference) -> set[tuple[object, ...]]:
    return set(zip(*(_values(rows, name) for name in reference.columns), strict=True))


def _values(rows: pa.Table, column: str) -> list[object]:
    if column in rows.schema.names:
        return list(rows[column].to_pylist())
    if "hand" in rows.schema.names:
        return [f"hand_{hand}" for hand in rows["hand"].to_pylist()]
    return ["object"] * rows.num_rows
