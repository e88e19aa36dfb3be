"""What each hand is at, from masks and from who holds what. Needs no frames and no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.rows import by_frame, passed_on
from egoworld_ops.types import HANDS, Hand
from egoworld_ops.vision import rle

NAME = "classical"
AREA_PX = 320 * 240
"""Masks are scaled to about this many pixels before distances are measured, so that these do not depend on the resolution."""
_COLUMNS = ("video_id", "clip_id", "frame_index", "timestamp_s", "sample_stride", "track_id", "role", "label", "rle", "observed")


@dataclass(frozen=True, slots=True)
class _LastSeen:
    """An object when it was last seen: its label, and the hands that were at it."""

    label: str | None
    hands: set[Hand]


class ContactSettings(BackendSettings):
    """Distances in the picture, in hand sizes: the root of the area of the hand's mask, about 12 cm."""

    touch_share: Annotated[float, Field(ge=0, le=1)] = 0.07
    """A hand within this distance of an object is at it."""
    near_share: Annotated[float, Field(gt=0, le=5)] = 0.5
    """A hand within this distance of an object is near it."""


class Backend(Operator):
    """The `classical` backend of contacts."""

    version = "3"
    packages = ("opencv-python-headless", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = ContactSettings
    seconds_per_frame: ClassVar[float] = 0.002
    settings: ContactSettings

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """Table `contacts`: one row for every mask of a hand."""
        cv2.setNumThreads(self.threads)
        holds = by_frame(item.tables["movement"], ("frame_index", "track_id", "held_by", "hold_score"))
        last_seen: dict[int, _LastSeen] = {}
        rows = [
            row
            for index, masks in sorted(by_frame(item.tables["masks"], _COLUMNS).items())
            for row in self._frame(masks, holds.get(index, []), last_seen)
        ]
        return schema.from_rows("contacts", rows) if rows else schema.empty("contacts")

    def _frame(self, masks: list[dict[str, Any]], holds: list[dict[str, Any]], last_seen: dict[int, _LastSeen]) -> list[dict[str, Any]]:
        hands = {hand: m for hand in HANDS for m in masks if m["role"] == f"hand_{hand}"}
        objects = {m["track_id"]: m for m in masks if m["role"] == "object"}
        away_px = {track_id: _away_px(m) for track_id, m in objects.items()} if hands else {}
        gaps = {hand: _gaps(m, away_px) for hand, m in hands.items()}
        rows = [self._row(hand, m, objects, gaps[hand], holds) for hand, m in hands.items()]
        for track_id, m in objects.items():
            at_it = {hand for hand in hands if gaps[hand].get(track_id, np.inf) <= self.settings.touch_share}
            last_seen[track_id] = _LastSeen(m["label"], at_it)
        gone = {track_id: last for track_id, last in last_seen.items() if track_id not in objects}
        return [_with_hidden(row, gone) for row in rows]

    def _row(
        self,
        hand: str,
        mask: dict[str, Any],
        objects: Mapping[int, dict[str, Any]],
        gaps: Mapping[int, float],
        holds: list[dict[str, Any]],
    ) -> dict[str, Any]:
        row = passed_on(mask, NAME) | {"hand": hand, "observed": mask["observed"], "state": "free"}
        held = [h for h in holds if h["held_by"] in (hand, "both") and h["track_id"] in gaps]
        if held:
            best = max(held, key=lambda h: (h["hold_score"], -h["track_id"]))
            return row | _at(objects[best["track_id"]], gaps) | {"state": "holding", "hold_score": best["hold_score"]}
        if not gaps:
            return row
        at_it = {h["track_id"]: h for h in holds if gaps.get(h["track_id"], np.inf) <= self.settings.touch_share}
        unknown = [track_id for track_id, h in at_it.items() if h["held_by"] == "unknown"]
        nearest = min(unknown or gaps, key=lambda track_id: (gaps[track_id], track_id))
        gap = gaps[nearest]
        state = "contact" if gap <= self.settings.touch_share else "near" if gap <= self.settings.near_share else "free"
        score = at_it[nearest]["hold_score"] if nearest in at_it else None
        return row | _at(objects[nearest], gaps) | {"state": "unknown" if unknown else state, "hold_score": score}


def _with_hidden(row: dict[str, Any], gone: Mapping[int, _LastSeen]) -> dict[str, Any]:
    """The row of a hand that is at nothing that is seen: whether it holds what was last seen at it, and is hidden since, is unknown. At another
    thing it no longer has that one.
    """
    mine = sorted(track_id for track_id, last in gone.items() if row["hand"] in last.hands)
    if row["state"] in ("free", "near"):
        return row | {"state": "unknown", "track_id": mine[0], "label": gone[mine[0]].label, "gap_share": None} if mine else row
    for track_id in mine:
        gone[track_id].hands.discard(row["hand"])
    return row


def _gaps(mask: Mapping[str, Any], away_px: Mapping[int, np.ndarray]) -> dict[int, float]:
    """How far a hand is from each object, in hand sizes."""
    seen = _small(mask)
    return {track_id: float(away[seen].min()) / float(seen.sum()) ** 0.5 for track_id, away in away_px.items() if seen.any()}


def _at(mask: Mapping[str, Any], gaps: Mapping[int, float]) -> dict[str, Any]:
    return {"track_id": mask["track_id"], "label": mask["label"], "gap_share": gaps[mask["track_id"]]}


def _small(mask: Mapping[str, Any]) -> np.ndarray:
    """(h, w) bool: a mask scaled to about AREA_PX."""
    full = rle.decode(mask["rle"])
    scale = (AREA_PX / full.size) ** 0.5
    size = (max(round(full.shape[1] * scale), 1), max(round(full.shape[0] * scale), 1))
    covered = cv2.resize(full.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.asarray(covered > 127)


def _away_px(mask: Mapping[str, Any]) -> np.ndarray:
    """(h, w) float32: distance of each small pixel beyond the object's edge, 0 on it and beside it."""
    away: np.ndarray = cv2.distanceTransform((~_small(mask)).astype(np.uint8), cv2.DIST_L2, 5)
    return np.maximum(away - 1, 0)
