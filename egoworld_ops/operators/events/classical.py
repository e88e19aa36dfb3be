"""Phases around each hold of table `contacts`. Needs no frames and no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.rows import passed_on
from egoworld_ops.types import HANDS, sampled_frames

NAME = "classical"
Row = Mapping[str, Any]


class EventSettings(BackendSettings):
    """Times and distances."""

    shortest_s: Annotated[float, Field(ge=0, le=5)] = 0.2
    """A shorter hold is no event, unless the clip cuts it."""
    longest_gap_s: Annotated[float, Field(ge=0, le=5)] = 0.25
    """Two holds of one object by one hand that are no farther apart are one."""
    longest_reach_s: Annotated[float, Field(gt=0, le=10)] = 1.5
    longest_touch_s: Annotated[float, Field(gt=0, le=10)] = 1.5
    """A hand at an object for longer before or after a hold was not grasping or releasing it then."""
    standing_s: Annotated[float, Field(gt=0, le=2)] = 0.2
    """A reach has begun after the last time that the hand came no nearer for so long."""
    standing_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Coming nearer by less than this share of a hand's size is none."""


class Backend(Operator):
    """The `classical` backend of events."""

    version = "3"
    Settings: ClassVar[type[BackendSettings]] = EventSettings
    seconds_per_frame: ClassVar[float] = 0.0002
    settings: EventSettings

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """Table `events`: up to four rows for each hold."""
        frames = sampled_frames(item.clip.frame_start, item.clip.frame_end, item.sample_stride)
        contacts = item.tables["contacts"].to_pylist()
        found = [
            event
            for hand in HANDS
            for event in self._of_hand(sorted((r for r in contacts if r["hand"] == hand), key=lambda r: r["frame_index"]), frames)
        ]
        return schema.from_rows("events", found) if found else schema.empty("events")

    def _of_hand(self, rows: Sequence[Row], frames: range) -> Iterator[dict[str, Any]]:
        holds = [hold for hold in self._holds(rows) if self._lasts(rows, hold, frames)]
        free_from = 0
        for number, (start, end) in enumerate(holds):
            until = holds[number + 1][0] if number + 1 < len(holds) else len(rows)
            track_id = rows[start]["track_id"]
            touched = self._touched_since(rows, start, free_from, track_id)
            reached = self._reached_since(rows, touched, free_from, track_id)
            left = self._touched_until(rows, end, until, track_id)
            score = float(np.mean([row["hold_score"] for row in rows[start:end] if row["state"] == "holding"]))
            for phase, first, last in (
                ("reach", reached, touched),
                ("grasp", touched, start),
                ("carry", start, end),
                ("release", end, left),
            ):
                if first < last:
                    yield _event(phase, rows[first], rows[last - 1], rows[start], score, frames)
            free_from = left

    def _holds(self, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """First and one past the last row of each hold; short losses are bridged."""
        holds: list[tuple[int, int]] = []
        for i, row in enumerate(rows):
            if row["state"] != "holding":
                continue
            before = holds[-1] if holds else None
            same = before is not None and rows[before[0]]["track_id"] == row["track_id"]
            if before is not None and same and _s(rows, before[1] - 1, i) <= self.settings.longest_gap_s:
                holds[-1] = (before[0], i + 1)
            else:
                holds.append((i, i + 1))
        return holds

    def _lasts(self, rows: Sequence[Row], hold: tuple[int, int], frames: range) -> bool:
        cut = rows[hold[0]]["frame_index"] == frames[0] or rows[hold[1] - 1]["frame_index"] == frames[-1]
        return cut or _s(rows, hold[0], hold[1] - 1) >= self.settings.shortest_s

    def _touched_since(self, rows: Sequence[Row], start: int, free_from: int, track_id: int) -> int:
        first = start
        while first > free_from and _at(rows[first - 1], track_id) and _s(rows, first - 1, start) <= self.settings.longest_touch_s:
            first -= 1
        return first

    def _touched_until(self, rows: Sequence[Row], end: int, until: int, track_id: int) -> int:
        last = end
        while last < until and _at(rows[last], track_id) and _s(rows, end - 1, last) <= self.settings.longest_touch_s:
            last += 1
        return last

    def _reached_since(self, rows: Sequence[Row], touched: int, free_from: int, track_id: int) -> int:
        """The row at which the hand began to come nearer: before it, it came no nearer for `standing_s`."""
        first = nearest_before = touched
        gap = 0.0
        while nearest_before > free_from:
            row = rows[nearest_before - 1]
            if (
                row["track_id"] != track_id
                or row["gap_share"] is None
                or _s(rows, nearest_before - 1, touched) > self.settings.longest_reach_s
            ):
                break
            nearest_before -= 1
            if row["gap_share"] >= gap + self.settings.standing_share:
                first, gap = nearest_before, row["gap_share"]
            elif _s(rows, nearest_before, first) > self.settings.standing_s:
                break
        return first


def _event(phase: str, first: Row, last: Row, hold: Row, score: float, frames: range) -> dict[str, Any]:
    about = {"hand": hold["hand"], "track_id": hold["track_id"], "label": hold["label"], "phase": phase, "event_score": score}
    until = {"last_frame_index": last["frame_index"], "end_s": last["timestamp_s"]}
    cut = {"begun_before": first["frame_index"] == frames[0], "goes_on": last["frame_index"] == frames[-1]}
    return passed_on(first, NAME) | about | until | cut


def _at(row: Row, track_id: int) -> bool:
    """Whether the hand is at the object, and that is seen."""
    return row["track_id"] == track_id and row["gap_share"] is not None and row["state"] in ("contact", "holding", "unknown")


def _s(rows: Sequence[Row], first: int, last: int) -> float:
    return float(rows[last]["timestamp_s"] - rows[first]["timestamp_s"])
