"""One clip in two runs compared: how each result was made, and which of its rows are others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import EgoworldError
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import lineage, runs
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.lineage import Origin
from egoworld_ops.lake.runs import Difference

MOST_FRAMES = 12
"""That are named of a stage."""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """The rows of a stage in two runs, matched by the table's key.

    Args:
        same: rows that are equal in every column.
        only_a, only_b: rows that the other run does not have.
        columns: of rows that both have, in how many each column differs, and by how much at most where it is a number.
        frames: the first frames in which something differs.
    """

    same: int
    only_a: int
    only_b: int
    differ: int
    columns: Mapping[str, tuple[int, float | None]]
    frames: tuple[int, ...]

    @property
    def total(self) -> int:
        """Rows that any of the two has."""
        return self.same + self.differ + self.only_a + self.only_b


@dataclass(frozen=True, slots=True)
class StageDifference:
    """A stage of a clip in two runs.

    Args:
        a, b: where each result comes from.
        made: what of its making differs: backend, version, settings, weights and all else that its digest is made of, but its inputs.
        inputs: the stages before it whose tables differ.
        rows: None where the digests are equal, and so the rows.
        trouble: why rows cannot be compared; else empty.
    """

    stage: str
    a: Origin
    b: Origin
    made: list[Difference]
    inputs: list[str]
    rows: RowDifference | None
    trouble: str

    @property
    def same(self) -> bool:
        """Whether both are one result."""
        return bool(self.a.digest) and self.a.digest == self.b.digest


def compare(a: Run, b: Run, video_id: str, clip_id: str) -> list[StageDifference]:
    """Every stage of a clip that is in both runs, in the order of the chain."""
    found = [(run, {origin.stage: origin for origin in lineage.of_every_stage(run, video_id, clip_id)}) for run in (a, b)]
    return [_stage(stage, video_id, clip_id, found) for stage in operators.stages() if all(stage in of_run for _, of_run in found)]


def _stage(stage: str, video_id: str, clip_id: str, found: list[tuple[Run, dict[str, Origin]]]) -> StageDifference:
    (a, of_a), (b, of_b) = ((run, of_run[stage]) for run, of_run in found)
    made = runs.differences(*({"operator": o.operator, **o.other} for o in (of_a, of_b)))
    inputs = [one.name for one in runs.differences(of_a.inputs, of_b.inputs)]
    if of_a.digest and of_a.digest == of_b.digest:
        return StageDifference(stage, of_a, of_b, made, inputs, None, "")
    trouble = "" if of_a.state == of_b.state == "done" else f"not compared: {of_a.state} in A, {of_b.state} in B"
    if trouble:
        return StageDifference(stage, of_a, of_b, made, inputs, None, trouble)
    try:
        tables = [read_table(run.clip_table(stage, video_id, clip_id), stage) for run in (a, b)]
        rows = [{tuple(row[name] for name in schema.table(stage).key): row for row in table.to_pylist()} for table in tables]
    except EgoworldError as error:  # it was removed or damaged in this moment
        return StageDifference(stage, of_a, of_b, made, inputs, None, str(error))
    return StageDifference(stage, of_a, of_b, made, inputs, row_difference(*rows), "")


def row_difference(a: Mapping[tuple[Any, ...], Mapping[str, Any]], b: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> RowDifference:
    """The rows of two tables, by their keys."""
    columns: dict[str, tuple[int, float | None]] = {}
    frames, differ = set(), 0
    for key in a.keys() & b.keys():
        unlike = [name for name in a[key] if name in b[key] and not _equal(a[key][name], b[key][name])]
        differ += bool(unlike)
        for name in unlike:
            n, most = columns.get(name, (0, None))
            columns[name] = n + 1, _larger(most, _gap(a[key][name], b[key][name]))
        frames |= {a[key].get("frame_index")} if unlike else set()
    only_a, only_b = a.keys() - b.keys(), b.keys() - a.keys()
    frames |= {a[key].get("frame_index") for key in only_a} | {b[key].get("frame_index") for key in only_b}
    first = tuple(sorted(frame for frame in frames if frame is not None)[:MOST_FRAMES])
    return RowDifference(len(a.keys() & b.keys()) - differ, len(only_a), len(only_b), differ, dict(sorted(columns.items())), first)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def _gap(a: Any, b: Any) -> float | None:
    """How far two numbers, or the numbers of two equally long lists, are apart at most; None where they are none."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        gaps = [gap for pair in zip(a, b, strict=True) if (gap := _gap(*pair)) is not None]
        return max(gaps, default=None)
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in (a, b))
    return abs(float(a) - float(b)) if plain else None


def _larger(a: float | None, b: float | None) -> float | None:
    return max((x for x in (a, b) if x is not None), default=None)
