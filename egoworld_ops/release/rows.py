"""The rows that a release or an export takes from the files of a run: those of frames that clips own, and the links of clips."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egoworld_ops.contract import schema
from egoworld_ops.contract.links import LINKS
from egoworld_ops.errors import ContractError
from egoworld_ops.files.tables import digest_at, read_result
from egoworld_ops.lake.states import contract_of_rows
from egoworld_ops.release.plan import DELETE_AND_MAKE, Source, changed

_OLD = f"{DELETE_AND_MAKE}; where the whole run is of that version, release it with the code that made it"


def released_rows(source: Source, assumed_metric: bool) -> pa.Table:
    """The rows of a file of the run that a release takes: those of the frames its clip owns; or the links of a video's clips.

    Args:
        assumed_metric: whether to keep lengths and speeds that rest on an assumed focal length; they are null otherwise.

    Raises:
        InputChanged, ContractError: as `owned_rows`.
    """
    if source.table in LINKS:
        return _linked(source)
    rows = owned_rows(source)
    return rows if assumed_metric else _without_assumed(source.table, rows)


def _without_assumed(table: str, rows: pa.Table) -> pa.Table:
    for name in schema.table(table).assumed_lengths:
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        rows = rows.set_column(at, field, pc.if_else(rows["metric"], rows[name], pa.scalar(None, field.type)))
    return rows


def owned_rows(source: Source) -> pa.Table:
    """The rows of a file of the run that are of the frames its clip owns.

    Raises:
        InputChanged: the file is not the one that was planned with.
        ContractError: it is damaged, of another schema, or its rows are out of order.
    """
    try:
        rows, provenance = read_result(source.path, source.table)
    except ContractError as error:
        if source.table != "failures" and digest_at(source.path) == source.digest:
            raise
        raise changed(source.path) from error
    if source.table != "failures" and provenance.get("digest") != source.digest:
        raise changed(source.path)
    if (version := contract_of_rows(rows)) != schema.SCHEMA_VERSION:
        raise ContractError(source.path, f"was written under schema version {version}, this is version {schema.SCHEMA_VERSION}", _OLD)
    if rows.schema != schema.table(source.table).arrow_schema():
        raise ContractError(source.path, "has columns of other types than the contract", DELETE_AND_MAKE)
    return rows if source.owned is None else _owned(source, rows, *source.owned)


def _owned(source: Source, rows: pa.Table, first: int, end: int) -> pa.Table:
    """A view of the rows of frames `[first, end)`: they are sorted by frame within a clip."""
    frames = rows["frame_index"].to_numpy()
    if (np.diff(frames) < 0).any():
        raise ContractError(source.path, "has frames out of order", DELETE_AND_MAKE)
    start, stop = np.searchsorted(frames, (first, end))
    return rows.slice(int(start), int(stop - start))


def _linked(source: Source) -> pa.Table:
    """The links of the clips of a video, from all rows of the files they are made of."""
    link, (first, *others) = LINKS[source.table], source.made_of
    clips = owned_rows(first)
    edges = _edges(clips)
    seen = [link.needed(owned_rows(each), *edges[each.key]) for each in others]
    nothing = schema.empty(link.seen).select(list(link.columns))
    return link.rows(clips, pa.concat_tables([nothing, *seen]))


def _edges(clips: pa.Table) -> dict[str, list[int]]:
    """By clip, where the clip before it in its scene ends and where the one after it begins: other frames are its alone."""
    listed = sorted(clips.to_pylist(), key=lambda clip: clip["frame_start"])
    ends = [0, *(clip["frame_end"] for clip in listed)]
    starts = [*(clip["frame_start"] for clip in listed[1:]), ends[-1]]
    return {clip["clip_id"]: edge for clip, *edge in zip(listed, ends, starts, strict=False)}
