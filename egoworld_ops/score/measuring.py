"""Makes the truth card of a video from its tables and its truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa

from egoworld_ops.score import camera, hands, masks, movement, objects
from egoworld_ops.score.card import Card, Measured, Score, share
from egoworld_ops.score.truth import HandTruth, MaskTruth, ObjectTruth, Truth

_STRIDE = "sample_stride"
Seen = TypeVar("Seen", HandTruth, ObjectTruth, MaskTruth)


def make_card(tables: Mapping[str, pa.Table], truth: Truth) -> Card:
    """Everything that the tables and the truth allow.

    Args:
        tables: of one video, each owned frame once, by table name; tables that are not there are not scored.
        truth: of the same video, at the resolution at which it is shown. Of frames that the tables' stride passes over nothing is scored.
    """
    truth = _sampled(truth, tables)
    rows = {name: _within(table, truth) for name, table in tables.items()}
    stages: dict[str, Measured] = {}
    if truth.cuts is not None and "clips" in tables:
        stages["manifest"] = Measured(cuts(rows["clips"], truth.cuts))
    parts = [(part.STAGE, part.measure) for part in (masks, hands, objects, movement, camera)]
    parts.insert(2, (hands.FUSED, hands.measure_fused))
    for stage, measure in parts:
        measured = measure(rows, truth)
        if measured is not None:
            stages[stage] = measured
    return Card(truth.source, len(truth.frames), stages)


def cuts(clips: Sequence[Mapping[str, Any]], true: Sequence[int]) -> tuple[Score, ...]:
    """Precision and recall of cuts that are found at the very frame."""
    starts: dict[int, int] = {}
    for clip in clips:
        starts[clip["scene_index"]] = min(clip["own_start"], starts.get(clip["scene_index"], clip["own_start"]))
    found, wanted = {start for start in starts.values() if start > 0}, set(true)
    return (
        Score("cuts: precision, at the very frame", share(len(found & wanted), len(found)), "share", len(found)),
        Score("cuts: recall, at the very frame", share(len(found & wanted), len(wanted)), "share", len(wanted)),
    )


def stride_of(tables: Mapping[str, pa.Table]) -> int:
    """Frames from one processed frame to the next, as the rows name it; 1 where there are none."""
    return min((n for table in tables.values() if _STRIDE in table.column_names for n in table[_STRIDE].unique().to_pylist()), default=1)


def _sampled(truth: Truth, tables: Mapping[str, pa.Table]) -> Truth:
    """The truth of the frames that were processed, by the stride that the rows name."""
    stride = stride_of(tables)
    frames = frozenset(frame for frame in truth.frames if frame % stride == 0)
    path = None if truth.camera is None else {frame: T for frame, T in truth.camera.items() if frame in frames}
    return replace(
        truth,
        frames=frames,
        hands=_of_frames(truth.hands, frames),
        objects=_of_frames(truth.objects, frames),
        masks=_of_frames(truth.masks, frames),
        camera=path,
    )


def _of_frames(listed: tuple[Seen, ...] | None, frames: frozenset[int]) -> tuple[Seen, ...] | None:
    return None if listed is None else tuple(row for row in listed if row.frame_index in frames)


def _within(table: pa.Table, truth: Truth) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return [row for row in rows if row["frame_index"] in truth.frames] if "frame_index" in table.column_names else rows
