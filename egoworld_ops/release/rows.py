"""The rows that a release or an export takes from the files of a run: those of frames that clips own, and the links of clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egoworld_ops.contract import schema
from egoworld_ops.contract.links import LINKS
from egoworld_ops.errors import ContractError
from egoworld_ops.files.tables import digest_at, read_result
from egoworld_ops.lake.states import contract_of_rows
from egoworld_ops.release.plan import DELETE_AND_MAKE, Source, changed

_VIDEOS_AT_ONCE = 50
"""Of which links are computed by one query: a query takes 0.1 s, of however few rows."""
_OLD = f"{DELETE_AND_MAKE}; where the whole run is of that version, release it with the code that made it"


def released_rows(files: Sequence[Source], assumed_metric: bool) -> Iterator[pa.Table]:
    """The rows that a release takes from each of these sources of one table, in order: those of the frames its clip owns; or the links of a video.

    Args:
        assumed_metric: whether to keep lengths and speeds that rest on an assumed focal length; they are null otherwise.

    Raises:
        InputChanged, ContractError: as `owned_rows`.
    """
    if files and files[0].table in LINKS:
        for first in range(0, len(files), _VIDEOS_AT_ONCE):
            yield from _linked(files[first : first + _VIDEOS_AT_ONCE])
        return
    for source in files:
        rows = owned_rows(source)
        yield rows if assumed_metric else _without_assumed(source.table, rows)


def _without_assumed(table: str, rows: pa.Table) -> pa.Table:
    names = schema.table(table).assumed_lengths
    if not names or pc.all(rows["metric"], skip_nulls=False).as_py():
        return rows
    for name in names:
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        rows = rows.set_column(at, field, pc.if_else(rows["metric"], rows[name], pa.scalar(None, field.type)))
    return rows


def owned_rows(source: Source, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a file of the run that are of the frames its clip owns.

    Args:
        columns: those that are read, in the contract's order; all if None.

    Raises:
        InputChanged: the file is not the one that was planned with.
        ContractError: it is damaged, of another schema, or its rows are out of order.
    """
    try:
        rows, provenance = read_result(source.path, source.table, columns)
    except ContractError as error:
        if source.table != "failures" and digest_at(source.path) == source.digest:
            raise
        raise changed(source.path) from error
    if source.table != "failures" and provenance.get("digest") != source.digest:
        raise changed(source.path)
    if (version := contract_of_rows(rows)) != schema.SCHEMA_VERSION:
        raise ContractError(source.path, f"was written under schema version {version}, this is version {schema.SCHEMA_VERSION}", _OLD)
    contract = schema.table(source.table).arrow_schema()
    if list(rows.schema) != [field for field in contract if columns is None or field.name in columns]:
        raise ContractError(source.path, "has columns of other types than the contract", DELETE_AND_MAKE)
    if source.some:
        return rows.filter(pc.is_in(rows["clip_id"], pa.array(source.clips)))
    return rows if source.owned is None else _owned(source, rows, *source.owned)


def _owned(source: Source, rows: pa.Table, first: int, end: int) -> pa.Table:
    """A view of the rows of frames `[first, end)`: they are sorted by frame within a clip."""
    frames = rows["frame_index"].to_numpy()
    if (np.diff(frames) < 0).any():
        raise ContractError(source.path, "has frames out of order", DELETE_AND_MAKE)
    start, stop = np.searchsorted(frames, (first, end))
    return rows.slice(int(start), int(stop - start))


def _linked(files: Sequence[Source]) -> Iterator[pa.Table]:
    """The links of the clips of some videos, from all rows of the files they are made of."""
    link = LINKS[files[0].table]
    clips, seen = [], [schema.empty(link.seen).select(list(link.columns))]
    for first, *others in (source.made_of for source in files):
        clips.append(owned_rows(first))
        edges = _edges(clips[-1])
        seen += [link.needed(owned_rows(each, link.columns), *edges[each.key]) for each in others]
    made = link.rows(pa.concat_tables(clips), pa.concat_tables(seen))
    yield from (made.filter(pc.equal(made["video_id"], source.video_id)) for source in files)


def _edges(clips: pa.Table) -> dict[str, list[int]]:
    """By clip, where the clip before it in its scene ends and where the one after it begins: other frames are its alone."""
    listed = sorted(clips.to_pylist(), key=lambda clip: clip["frame_start"])
    ends = [0, *(clip["frame_end"] for clip in listed)]
    starts = [*(clip["frame_start"] for clip in listed[1:]), ends[-1]]
    return {clip["clip_id"]: edge for clip, *edge in zip(listed, ends, starts, strict=False)}
