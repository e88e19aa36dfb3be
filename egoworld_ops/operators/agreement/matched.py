"""Detections, masks and poses matched frame by frame. Needs no frames and no weights.

In each frame things are assigned to masks one to one so that they fit best in sum (the Hungarian method, `scipy.optimize.linear_sum_assignment`).
All thresholds are shares of the thing's own size, so that they hold at each resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.operators.agreement import _over_time
from egoworld_ops.operators.agreement._things import Thing, by_frame_and_track, doubled, fit, outline
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.rows import passed_on

NAME = "matched"


class AgreementSettings(BackendSettings):
    """When things disagree."""

    inside_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Least share of a hand's joints in its mask, before and after fusion."""
    box_iou: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Least overlap of the boxes of a detection and its mask."""
    outline_iou: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Least overlap of the outline of an object's verified pose and its mask, where it was taken for a cuboid."""
    mask_in_outline_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Least share of an object's mask in the outline of its cuboid, whatever its shape."""
    projection_share: Annotated[float, Field(gt=0)] = 0.3
    """Greatest distance of projected joints from their image points, in hand sizes."""
    jitter_share: Annotated[float, Field(gt=0)] = 0.12
    """Greatest distance of joints from the middle between the frames before and after, in hand sizes."""
    doubled_iou: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Tracks whose masks overlap by more are one thing."""
    empty_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """A mask with less than this share of the pixels of its thing's box is empty."""


class Backend(Operator):
    """The `matched` backend of agreement."""

    version = "3"
    packages = ("scipy", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = AgreementSettings
    seconds_per_frame: ClassVar[float] = 0.003
    settings: AgreementSettings

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """Table `agreement`: one row for every thing that was found, masked or posed in a frame."""
        frames = by_frame_and_track(item.tables)
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        for index, things in frames.items():
            for track_id, row in self._frame(things).items():
                rows[index, track_id] = row
        for found in (_over_time.frozen, _over_time.jitter, _over_time.side, _over_time.elsewhere, _over_time.lag):
            for key, columns in found(frames, item.sample_stride).items():
                rows[key].update(columns)
        done = [row | {"disagreement": self._disagreement(row, frames[index][track])} for (index, track), row in sorted(rows.items())]
        wanted = {column.name for column in schema.table("agreement").columns}
        return schema.from_rows("agreement", [{k: v for k, v in row.items() if k in wanted} for row in done])

    def _frame(self, things: Mapping[int, Thing]) -> dict[int, dict[str, Any]]:
        fits, own = fit(things)
        twins = doubled(things, self.settings.doubled_iou)
        return {
            track_id: passed_on(thing.any_row, NAME)
            | {"track_id": track_id, "role": thing.role, "label": thing.label, "doubled": track_id in twins}
            | {"matched_track_id": fits.get(track_id), "own_fit": own.get(track_id)}
            | {"box_iou": thing.box_iou, "joints_inside_share": thing.inside_share}
            | {"fused_inside_share": thing.fused_inside_share, "projection_share": thing.projection_share}
            | outline(thing, things)
            for track_id, thing in things.items()
        }

    def _disagreement(self, row: Mapping[str, Any], thing: Thing) -> str | None:
        """The first thing that is wrong, in the order of `DISAGREEMENTS`."""
        s = self.settings
        of_another = row["matched_track_id"] not in (None, row["track_id"])
        tests = {
            "collapsed": thing.collapsed,
            "doubled": row["doubled"],
            "frozen": row.get("frozen", False),
            "other_thing": of_another and (row["own_fit"] is None or row["own_fit"] < s.box_iou),
            "wrong_side": row.get("bends_away", False) and _below(row.get("side_score"), _over_time.OTHER_SIDE),
            "shifted": bool(row.get("lag_frames")),
            "projection": _above(row["projection_share"], s.projection_share),
            "jumping": _above(row.get("jitter_share"), s.jitter_share),
            "elsewhere": row.get("elsewhere", False),
            "no_mask": thing.mask is None,
            "empty_mask": thing.filled_share is not None and thing.filled_share < s.empty_share,
            "box_off_mask": _below(row["box_iou"], s.box_iou),
            "joints_off_mask": _below(row["joints_inside_share"], s.inside_share),
            "fused_off_mask": _below(row["fused_inside_share"], s.inside_share),
            "outline_off_mask": _below(row.get("mask_in_outline_share"), s.mask_in_outline_share)
            or (not thing.has_mesh and _below(row.get("outline_iou"), s.outline_iou)),
        }
        return next((name for name, holds in tests.items() if holds), None)


def _below(value: float | None, bound: float) -> bool:
    return value is not None and value < bound


def _above(value: float | None, bound: float) -> bool:
    return value is not None and value > bound
