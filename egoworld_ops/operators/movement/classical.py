"""Movement of objects from their poses, the background's motion in the picture, and the hands. Needs no weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.movement._flow import Flow, apply, homography, shrink
from egoworld_ops.operators.movement._holding import held, slip_m_s, touch
from egoworld_ops.operators.movement._window import Window
from egoworld_ops.operators.rectifying import run_rectified
from egoworld_ops.operators.rows import by_frame, common, pose_of
from egoworld_ops.types import HANDS, Camera, Hand
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import make_transform, project, rotation_angle_deg, transform

NAME = "classical"
_PROBES = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
_UNKNOWN_SIZE_M = 0.08
_UNKNOWN_DEPTH_M = 0.5
MIN_OBJECT_POINTS = 6
SEEN_TO_GROW = 0.06
"""If an object approaches, its points shift across the line of sight by at least this share of its speed along it; otherwise its poses are wrong."""


class MovementSettings(BackendSettings):
    """Windows and thresholds."""

    window_s: Annotated[float, Field(gt=0, le=2)] = 0.13
    """Velocities are differences over this time, centred on the frame."""
    max_gap_s: Annotated[float, Field(gt=0, le=5)] = 0.5
    """Poses more than this time apart give no velocity."""
    start_m_s: Annotated[float, Field(gt=0)] = 0.045
    stop_m_s: Annotated[float, Field(gt=0)] = 0.03
    """An object starts to move above the first speed relative to the background and comes to rest below the second."""
    start_depth_m_s: Annotated[float, Field(gt=0)] = 0.15
    """The same for its speed along the line of sight, which the picture shows least well."""
    reach_m: Annotated[float, Field(gt=0)] = 0.008
    """A hand seen within this distance of an object borders it."""
    max_slip_m_s: Annotated[float, Field(gt=0)] = 0.06
    """A hand that moves faster than this against an object at rest does not hold it."""
    hold_window_s: Annotated[float, Field(gt=0, le=2)] = 0.3
    """Slip of a hand is averaged over this time."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """One object in one frame; `pose` is T_camera_object or None, `why` then says why. `position` counts the clip's processed frames."""

    position: int
    frame_index: int
    timestamp_s: float
    pose: np.ndarray | None
    why: Reason | None
    size_m: np.ndarray
    touches: dict[Hand, float]


@dataclass(frozen=True, slots=True)
class _Motion:
    """Between two moments around a frame.

    Args:
        velocity_m_s: (3,) in the camera frame.
        speed_m_s: of the object's middle relative to the background; None where the background is not known.
        turning_rad_s: the same for its rotation.
        seen_m_s: of points followed on the object relative to the background, across the line of sight; None where there are too few.
        depth_m_s: along the line of sight, relative to the background.
        slips_m_s: of each hand against the object.
    """

    velocity_m_s: np.ndarray
    speed_m_s: float | None
    turning_rad_s: float | None
    seen_m_s: float | None
    depth_m_s: float
    slips_m_s: dict[Hand, float]


@dataclass
class _Object:
    track_id: int
    label: str | None
    moments: dict[int, _Moment] = field(default_factory=dict)
    motions: dict[int, _Motion | Reason] = field(default_factory=dict)


class _Flows:
    """Points followed on the background, on each hand and on each object."""

    def __init__(self) -> None:
        self.background = Flow(160, 9)
        self.hands = {hand: Flow(50, 5) for hand in HANDS}
        self.objects: dict[int, Flow] = {}

    def see(
        self, position: int, rgb: np.ndarray, hands: dict[Hand, np.ndarray], objects: dict[int, np.ndarray], unseen: np.ndarray | None
    ) -> None:
        """Follow into a frame with its masks (H, W) bool, and where it shows nothing."""
        picture = shrink(rgb)
        things = np.zeros(rgb.shape[:2], bool) if unseen is None else unseen.copy()
        for mask in (*hands.values(), *objects.values()):
            things |= mask
        self.background.see(position, picture, picture.region(~things, 7))
        for hand, mask in hands.items():
            self.hands[hand].see(position, picture, picture.region(mask, 1))
        for track_id, mask in objects.items():
            self.objects.setdefault(track_id, Flow(60, 5)).see(position, picture, picture.region(mask, 2))

    def forget_before(self, position: int) -> None:
        """Forget points of the frames before that one: they are not needed any more."""
        for flow in (self.background, *self.hands.values(), *self.objects.values()):
            flow.forget_before(position)


class Backend(Operator):
    """The `classical` backend of movement."""

    version = "4"
    packages = ("opencv-python-headless", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = MovementSettings
    seconds_per_frame: ClassVar[float] = 0.02
    handles_lenses: ClassVar[bool] = True
    settings: MovementSettings

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Only if an object is masked."""
        return "object" in tables["masks"]["role"].unique().to_pylist()

    def run(self, item: ClipInput) -> pa.Table:
        """Table `movement`: one row for every frame in which an object is masked."""
        cv2.setNumThreads(self.threads)
        return run_rectified("movement", item, self._moved)

    def _moved(self, item: ClipInput) -> pa.Table:
        """The rows of a clip that a pinhole camera sees."""
        objects = self._watch(item)
        rows = [row for thing in objects for stretch in _stretches(thing.moments) for row in self._rows(item, thing, stretch)]
        return schema.from_rows("movement", rows) if rows else schema.empty("movement")

    def _watch(self, item: ClipInput) -> list[_Object]:
        """One pass over the frames. A frame's motion is known half a window later; points are held until then, but no pictures."""
        masks = by_frame(item.tables["masks"], ("frame_index", "track_id", "role", "label", "rle"))
        poses = {(r["frame_index"], r["track_id"]): r for r in item.tables["object_pose"].to_pylist()}
        if not any(row["role"] == "object" for rows in masks.values() for row in rows):
            return []
        flows, found, window = _Flows(), dict[int, _Object](), Window(self.settings.window_s / 2, self.settings.max_gap_s)
        for position, frame in enumerate(item.frames()):
            rows = masks.get(frame.index, [])
            size = (frame.rgb.shape[0], frame.rgb.shape[1])
            hands = {hand: rle.decode_at(row["rle"], size) for row in rows for hand in HANDS if row["role"] == f"hand_{hand}"}
            objects = {row["track_id"]: rle.decode_at(row["rle"], size) for row in rows if row["role"] == "object"}
            flows.see(position, frame.rgb, hands, objects, item.unseen)
            for row in rows:
                if row["role"] == "object":
                    thing = found.setdefault(row["track_id"], _Object(row["track_id"], row["label"]))
                    at = (position, frame.index, frame.timestamp_s)
                    pose_row = poses.get((frame.index, thing.track_id))
                    thing.moments[position] = self._moment(item.camera, at, objects[thing.track_id], hands, pose_row)
            for settled, reach in window.see(frame.timestamp_s):
                self._settle(item.camera, found, flows, settled, reach)
            flows.forget_before(window.oldest)
        for settled, reach in window.end():
            self._settle(item.camera, found, flows, settled, reach)
        return [thing for _, thing in sorted(found.items())]

    def _moment(
        self, camera: Camera, at: tuple[int, int, float], mask: np.ndarray, hands: dict[Hand, np.ndarray], row: dict[str, Any] | None
    ) -> _Moment:
        pose, why = _pose_of(row)
        given = row["dimensions_m"] if row else None
        size = np.full(3, _UNKNOWN_SIZE_M) if given is None else np.asarray(given, np.float64)
        outline = mask if pose is None or given is None else _completed(camera, mask, pose, size)
        depth_m = _UNKNOWN_DEPTH_M if pose is None else float(pose[2, 3])
        reach_px = max(round(self.settings.reach_m * camera.fx_px / depth_m), 1)
        return _Moment(*at, pose, why, size, {hand: touch(hand_mask, outline, reach_px) for hand, hand_mask in hands.items()})

    def _settle(self, camera: Camera, found: dict[int, _Object], flows: _Flows, position: int, reach: tuple[int, int]) -> None:
        """Work out the motion of all objects around one position, once the frames after it have been seen."""
        for thing in found.values():
            if position in thing.moments:
                thing.motions[position] = self._motion(camera, thing, flows, position, reach)

    def _motion(self, camera: Camera, thing: _Object, flows: _Flows, position: int, reach: tuple[int, int]) -> _Motion | Reason:
        moment = thing.moments[position]
        if moment.why is not None:
            return moment.why
        first, last = reach
        before = _farthest(thing.moments, range(position, first - 1, -1))
        after = _farthest(thing.moments, range(position, last + 1))
        elapsed_s = after.timestamp_s - before.timestamp_s
        if elapsed_s <= 0:
            return Reason("too_far_apart", "no other pose is near in time")
        if elapsed_s > self.settings.max_gap_s:
            return Reason("too_far_apart", f"the nearest poses are {elapsed_s:.2f} s apart")
        assert before.pose is not None
        assert after.pose is not None
        span = (before.position, after.position)
        slips = {
            hand: slip
            for hand, flow in flows.hands.items()
            if (slip := slip_m_s(camera, *flow.pairs(*span), before.pose, after.pose, elapsed_s)) is not None
        }
        velocity = (after.pose[:3, 3] - before.pose[:3, 3]) / elapsed_s
        H = homography(*flows.background.pairs(*span))
        still = None if H is None else carried_by(camera, H, before.pose, moment.size_m)
        if H is None or still is None:
            return _Motion(velocity, None, None, None, 0.0, slips)
        drift_m = after.pose[:3, 3] - still[:3, 3]
        turning = np.radians(rotation_angle_deg(still[:3, :3], after.pose[:3, :3])) / elapsed_s
        was, now = flows.objects[thing.track_id].pairs(*span)
        seen = float(np.median(np.linalg.norm(now - apply(H, was), axis=1))) if len(was) >= MIN_OBJECT_POINTS else None
        seen_m_s = None if seen is None or not np.isfinite(seen) else seen * float(after.pose[2, 3]) / camera.fx_px / elapsed_s
        return _Motion(
            velocity, float(np.linalg.norm(drift_m)) / elapsed_s, float(turning), seen_m_s, abs(float(drift_m[2])) / elapsed_s, slips
        )

    def _rows(self, item: ClipInput, thing: _Object, positions: range) -> list[dict[str, Any]]:
        """The rows of one unbroken stretch: an object's motion before a loss says nothing about its motion after it."""
        moments, motions = [thing.moments[p] for p in positions], [thing.motions[p] for p in positions]
        known = [None if isinstance(m, Reason) else m for m in motions]
        speeds = np.array([np.nan if m is None or m.speed_m_s is None else m.speed_m_s for m in known])
        states = self._states(known)
        touches = {hand: np.array([m.touches.get(hand, 0.0) for m in moments]) for hand in HANDS}
        slips = {hand: np.array([np.nan if m is None else m.slips_m_s.get(hand, np.nan) for m in known]) for hand in HANDS}
        moving = np.array([s == "moving" for s in states])
        times_s = np.array([m.timestamp_s for m in moments])
        confidence = held(touches, slips, speeds, moving, times_s, self.settings.hold_window_s, self.settings.max_slip_m_s)
        rows = []
        for i, (moment, motion) in enumerate(zip(moments, motions, strict=True)):
            row: dict[str, Any] = {
                **common(item, moment.frame_index, moment.timestamp_s, NAME),
                "track_id": thing.track_id,
                "label": thing.label,
                "state": states[i],
                "metric": item.camera.metric,
            }
            holders = [hand for hand in HANDS if confidence[hand][i] > 0]
            if holders:
                row["held_by"] = "both" if len(holders) == 2 else holders[0]
                row["hold_score"] = float(max(confidence[hand][i] for hand in holders))
            rows.append(row | _motion_columns(motion))
        return rows

    def _states(self, motions: list[_Motion | None]) -> list[str | None]:
        """Moving or still, with hysteresis; null where the background's motion is unknown.

        Points seen on the object decide if there are enough: they are more certain than the difference of two poses. The poses decide on motion along
        the line of sight, which points show least well.
        """
        s = self.settings
        states: list[str | None] = []
        moving = False
        for motion in motions:
            if motion is None or motion.speed_m_s is None:
                moving = False
                states.append(None)
                continue
            speed = motion.speed_m_s if motion.seen_m_s is None else motion.seen_m_s
            grows = motion.depth_m_s > s.start_depth_m_s and speed > SEEN_TO_GROW * motion.depth_m_s
            moving = speed > (s.stop_m_s if moving else s.start_m_s) or grows
            states.append("moving" if moving else "still")
        return states


def carried_by(camera: Camera, H: np.ndarray, T_camera_object: np.ndarray, size_m: np.ndarray) -> np.ndarray | None:
    """T_camera_object after the picture moved by H, if the object stayed in place on the background; None if that cannot be solved."""
    probes = _PROBES * size_m
    moved = apply(H, project(camera, transform(T_camera_object, probes)))
    if not np.isfinite(moved).all():
        return None
    rvec, tvec = cv2.Rodrigues(T_camera_object[:3, :3])[0], T_camera_object[:3, 3:].copy()
    rvec, tvec = cv2.solvePnPRefineLM(probes, moved, camera.K, None, rvec, tvec)
    return make_transform(cv2.Rodrigues(rvec)[0], tvec.ravel())


def _completed(camera: Camera, mask: np.ndarray, T_camera_object: np.ndarray, size_m: np.ndarray) -> np.ndarray:
    """The mask (H, W) bool with the outline of the object's bounding cuboid filled in: a hand also touches the part it hides."""
    corners = project(camera, transform(T_camera_object, _PROBES * size_m))
    if not np.isfinite(corners).all():
        return mask
    filled = mask.astype(np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.clip(corners, -1e4, 1e4).round().astype(np.int32)), 1)
    return filled.astype(bool)


def _stretches(moments: dict[int, _Moment]) -> list[range]:
    """The runs of processed frames in which an object is masked without a gap."""
    order = sorted(moments)
    starts = [p for p in order if p - 1 not in moments]
    ends = [p + 1 for p in order if p + 1 not in moments]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def _farthest(moments: dict[int, _Moment], order: range) -> _Moment:
    """The last moment of that order that has a pose, up to the first frame in which the object is lost; the first of the order always has one."""
    unbroken = itertools.takewhile(lambda p: p in moments, order)
    return [moments[p] for p in unbroken if moments[p].pose is not None][-1]


def _pose_of(row: dict[str, Any] | None) -> tuple[np.ndarray | None, Reason | None]:
    if row is None:
        return None, Reason("no_upstream", "the object has no pose: not in object_pose")
    pose = pose_of(row)
    if pose is None:
        return None, Reason("no_upstream", f"the object has no pose: {row['reason'] or 'unknown'}")
    if not row["converged"]:
        return None, Reason("not_converged", "the object's pose has not converged")
    return pose, None


def _motion_columns(motion: _Motion | Reason) -> dict[str, Any]:
    if isinstance(motion, Reason):
        return motion.columns()
    vx, vy, vz = (float(v) for v in motion.velocity_m_s)
    columns: dict[str, Any] = {"vx_m_s": vx, "vy_m_s": vy, "vz_m_s": vz}
    if motion.speed_m_s is None:
        return columns | Reason("too_few_points", "too few background points agree on the camera's motion").columns()
    return columns | {"speed_background_m_s": motion.speed_m_s, "turning_background_rad_s": motion.turning_rad_s}
