"""Backend `smoothing`: hands of one size that move smoothly, from the poses of single frames. Reads no frames.

A hand's rows are cut into tracks at gaps longer than `gap_s`; shorter gaps are filled. The bones of both hands have one set of lengths in a clip:
they are one person's. Each frame's hand is scaled about the camera to these lengths, so that it stays where it is in the picture. Then wrist and
bones are smoothed along each track (`_smooth`), those of the palm together (`_palm`). Where somebody knows the size of the hands better than the
network that saw them (`operators/hand_size.py`), these lengths are brought to it. scipy is imported only when a clip is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.hand_size import ASSUMED, HandSize, hand_size
from egoworld_ops.operators.rows import common, passed_on, pose_columns
from egoworld_ops.types import HANDS, Hand, sampled_frames
from egoworld_ops.vision.hand_frame import in_wrist_frame, wrist_rotations

NAME = "smoothing"
Row = Mapping[str, Any]


class SmoothingSettings(BackendSettings):
    """Settings of the backend `smoothing`. A value one standard error off counts as much as the acceleration given here."""

    acceleration_m_s2: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Usual acceleration of a wrist relative to the camera."""
    turning_rad_s2: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 75.0
    """Usual angular acceleration of a finger's bone."""
    palm_rad_s2: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25.0
    """Usual angular acceleration of the palm."""
    bending_rad_s2: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """That of its bones against each other: a palm hollows slowly."""
    gap_s: Annotated[float, Field(gt=0, le=2)] = 0.3
    """The longest time between two poses that is filled; after a longer one a new track begins."""
    size: Literal["surest", "network"] = "surest"
    """Whose word the size of the hands is: the sidecar's, else that of depth of known error, else the network's; or the network's always."""
    outlier_errors: Annotated[float, Field(ge=3, allow_inf_nan=False)] = 6.0
    """A pose farther off than so many standard errors is an outlier."""


@dataclass(frozen=True)
class _Timeline:
    """The T frames of one hand that get a pose: those in which hand_pose has one, and those of gaps that are filled.

    Attributes:
        frames: (T,) int, in order.
        times_s: (T,) their times.
        joints_m: (T, 21, 3) joints as measured; NaN where there are none.
        seen: (T,) bool: there are some.
    """

    frames: np.ndarray
    times_s: np.ndarray
    joints_m: np.ndarray
    seen: np.ndarray


class Backend(Operator):
    """Smooths the hands of a clip along their tracks."""

    version = "3"
    packages = ("scipy",)
    Settings: ClassVar[type[BackendSettings]] = SmoothingSettings
    seconds_per_frame: ClassVar[float] = 0.0005
    settings: SmoothingSettings

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never ahead. Only where neither a row nor an index tells the time of a frame that is filled, frames are decoded for their times."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """A row for each row of hand_pose, and for each frame of a gap that is filled."""
        rows = item.tables["hand_pose"].drop_columns("vertices_wrist_m").to_pylist()
        if not rows:
            return schema.empty("fusion")
        from egoworld_ops.operators.fusion._hands import person_lengths

        times_s = {row["frame_index"]: row["timestamp_s"] for row in rows}
        by_hand = {hand: {row["frame_index"]: row for row in rows if row["hand"] == hand} for hand in HANDS}
        solved = {hand: _solved(found) for hand, found in by_hand.items()}
        measured = [np.array(list(joints.values())) for joints in solved.values() if joints]
        size = hand_size(item.tables, item.sidecar) if self.settings.size == "surest" else ASSUMED
        lengths_m = person_lengths(measured) * size.factor if measured else np.zeros(0)
        made: list[dict[str, Any]] = []
        for hand, found in by_hand.items():
            fused = self._fused(item, hand, found, solved[hand], times_s, lengths_m) if solved[hand] else {}
            error_share = _depth_error_share(found, size)
            made += [row | {"depth_error_share": error_share} if "joints_m" in row else row for row in fused.values()]
            made += [_without(row) for frame, row in found.items() if frame not in fused]
        return schema.from_rows("fusion", [row | {"size_source": size.source} for row in made])

    def _fused(
        self,
        item: ClipInput,
        hand: Hand,
        rows: Mapping[int, Row],
        solved: Mapping[int, np.ndarray],
        times_s: Mapping[int, float],
        lengths_m: np.ndarray,
    ) -> dict[int, dict[str, Any]]:
        """The rows of one hand in its tracks, by frame."""
        from egoworld_ops.operators.fusion._hands import Motion, fuse

        line = self._timeline(item, times_s, solved)
        tracks = Tracks.of(line.times_s, self.settings.gap_s)
        s = self.settings
        motion = Motion(s.acceleration_m_s2, s.turning_rad_s2, s.palm_rad_s2, s.bending_rad_s2, s.outlier_errors)
        fused = fuse(tracks, line.joints_m, line.seen, lengths_m, motion)
        known = fused.within(line.times_s, tracks.track, self.settings.gap_s)
        R = wrist_rotations(fused.joints_m, np.full(len(line.frames), hand == "right"))
        speeds = {
            "speed_m_s": _speeds(tracks, fused.joints_m[:, 0], known),
            "measured_speed_m_s": _speeds(tracks, line.joints_m[:, 0], line.seen),
        }
        shift_m = np.linalg.norm(fused.joints_m[:, 0] - line.joints_m[:, 0], axis=1)
        metric = next(iter(rows.values()))["metric"]
        made = {}
        for i, frame in enumerate(line.frames.tolist()):
            row = rows.get(frame)
            of_frame = passed_on(row, NAME) if row else common(item, frame, float(line.times_s[i]), NAME)
            new = of_frame | {"hand": hand, "metric": metric, "track": int(tracks.track[i]), "observed": bool(fused.used[i])}
            new["measured_speed_m_s"] = _or_null(speeds["measured_speed_m_s"][i])
            if row and line.seen[i]:
                new |= {"score": row["score"], "scaling": float(fused.scaling[i])}
            if not fused.used[i]:
                new["filled"] = "outlier" if line.seen[i] else "gap"
            if not known[i]:
                new |= Reason(
                    "outlier",
                    f"the pose contradicts those around it, of which there are none before and after within {self.settings.gap_s:g} s",
                ).columns()
            elif np.isnan(R[i]).any():
                new |= Reason("degenerate", "wrist, index and middle knuckle lie on a line: the wrist frame is not defined").columns()
            else:
                joints_m = fused.joints_m[i]
                new |= {"joints_m": joints_m, "joints_wrist_m": in_wrist_frame(joints_m, R[i]), **pose_columns(R[i], joints_m[0])}
                new |= {"shift_m": _or_null(shift_m[i]), "speed_m_s": _or_null(speeds["speed_m_s"][i])}
            made[frame] = new
        return made

    def _timeline(self, item: ClipInput, times_s: Mapping[int, float], solved: Mapping[int, np.ndarray]) -> _Timeline:
        """All frames of one hand that get a pose."""
        processed = sampled_frames(item.clip.frame_start, item.clip.frame_end, item.sample_stride)
        filled = [
            frame
            for before, after in pairwise(solved)
            if times_s[after] - times_s[before] <= self.settings.gap_s
            for frame in processed[processed.index(before) + 1 : processed.index(after)]
        ]
        known = times_s if all(frame in times_s for frame in filled) else item.times_s()
        frames = sorted([*solved, *filled])
        nowhere = np.full((21, 3), np.nan)
        joints_m = np.array([solved.get(frame, nowhere) for frame in frames])
        return _Timeline(np.array(frames), np.array([known[f] for f in frames]), joints_m, np.array([f in solved for f in frames]))


def _depth_error_share(rows: Mapping[int, Row], size: HandSize) -> float | None:
    """Of a hand's poses: that of its size, which is the same in all of them; where it is the network's, the median of what hand_pose says."""
    if size.error_share is not None:
        return size.error_share
    known = [row["depth_error_share"] for row in rows.values() if row["depth_error_share"] is not None]
    return float(np.median(known)) if known else None


def _solved(rows: Mapping[int, Row]) -> dict[int, np.ndarray]:
    """The joints (21, 3) of each frame that has a pose, in order."""
    joints = {frame: np.array(rows[frame]["joints_m"], np.float64) for frame in sorted(rows) if rows[frame]["joints_m"] is not None}
    return {frame: joints_m for frame, joints_m in joints.items() if np.isfinite(joints_m).all()}


def _without(row: Row) -> dict[str, Any]:
    """The row of a frame in which a hand has no pose, and whose gap is too long to be filled."""
    reason = Reason("no_upstream", f"no hand pose: {row['reason'] or 'it is not finite'}")
    return passed_on(row, NAME) | {"hand": row["hand"], "metric": row["metric"], "observed": False, "filled": "gap"} | reason.columns()


def _speeds(tracks: Tracks, positions_m: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(T,) speed of (T, 3) positions since the frame before, m/s; NaN in the first of a track and where one of the two is not known."""
    moved_m = np.linalg.norm(np.diff(positions_m, axis=0), axis=1)
    speeds = np.full(len(positions_m), np.nan)
    speeds[1:] = np.where(tracks.joined & known[1:] & known[:-1], moved_m / tracks.step_s, np.nan)
    return speeds


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
