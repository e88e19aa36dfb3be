"""Movement of objects from their poses, the background's motion in the picture, and the hands. Needs no weights."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops import rle, schema
from egoworld_ops.geometry import make_transform, matrix_from_quaternion, project, rotation_angle_deg, transform
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.movement._background import Background
from egoworld_ops.operators.movement._holding import HandSighting, held, slip_m_s, touch
from egoworld_ops.types import HANDS, Camera, Hand

NAME = "classical"
_PROBES = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
_UNKNOWN_SIZE_M = 0.08


class MovementSettings(BackendSettings):
    """Windows and thresholds."""

    window_s: Annotated[float, Field(gt=0, le=2)] = 0.13
    """Velocities are differences over this time, centred on the frame."""
    max_gap_s: Annotated[float, Field(gt=0, le=5)] = 0.5
    """Poses farther apart than this give no velocity."""
    start_m_s: Annotated[float, Field(gt=0)] = 0.045
    stop_m_s: Annotated[float, Field(gt=0)] = 0.03
    """An object starts to move above the one speed relative to the background and comes to rest below the other."""
    start_rad_s: Annotated[float, Field(gt=0)] = 0.35
    stop_rad_s: Annotated[float, Field(gt=0)] = 0.25
    reach_m: Annotated[float, Field(gt=0)] = 0.02
    """A fingertip touches an object it is seen this near to."""
    depth_slack_m: Annotated[float, Field(gt=0)] = 0.15
    max_slip_m_s: Annotated[float, Field(gt=0)] = 0.06
    """A hand that moves faster than this against an object at rest does not hold it."""
    hold_window_s: Annotated[float, Field(gt=0, le=2)] = 0.4
    """Slip of a hand is averaged over this time."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """One object in one frame; `pose` is T_camera_object or None, `why` then says why."""

    position: int
    frame_index: int
    timestamp_s: float
    pose: np.ndarray | None
    why: str
    size_m: np.ndarray
    touches: dict[Hand, float]
    hands: dict[Hand, HandSighting]


@dataclass(frozen=True, slots=True)
class _Motion:
    """Between two moments around a frame: velocity (3,) in the camera frame, and speed and turning relative to the background."""

    velocity_m_s: np.ndarray
    speed_m_s: float | None
    turning_rad_s: float | None
    slips_m_s: dict[Hand, float]


@dataclass
class _Object:
    track_id: int
    label: str | None
    moments: list[_Moment] = field(default_factory=list)
    motions: list[_Motion | str] = field(default_factory=list)


class Backend(Operator):
    """The `classical` backend of movement."""

    version = "1"
    Settings: ClassVar[type[BackendSettings]] = MovementSettings
    settings: MovementSettings

    def run(self, item: ClipInput) -> pa.Table:
        """Table `movement`: one row for every frame in which an object is masked."""
        cv2.setNumThreads(self.threads)
        objects = self._watch(item)
        rows = [row for thing in objects for row in self._rows(item, thing)]
        return schema.from_rows("movement", rows) if rows else schema.empty("movement")

    def _watch(self, item: ClipInput) -> list[_Object]:
        """One pass over the frames. A frame's motion is known half a window later; that many frames of points are held."""
        masks = _by_frame(item.tables["masks"].select(["frame_index", "track_id", "role", "label", "rle"]))
        poses = {(r["frame_index"], r["track_id"]): r for r in item.tables["object_pose"].to_pylist()}
        hands = _hands(item.tables["hand_pose"])
        objects: dict[int, _Object] = {}
        if not any(row["role"] == "object" for rows in masks.values() for row in rows):
            return []
        step_s = item.sample_stride / float(item.clip.fps)
        half = max(round(self.settings.window_s / 2 / step_s), 1)
        background = Background(2 * half + 1)
        homographies: dict[tuple[int, int], np.ndarray | None] = {}
        last = -1
        for position, frame in enumerate(item.frames()):
            things = np.zeros(frame.rgb.shape[:2], bool)
            for row in masks.get(frame.index, []):
                mask = _full_size(row, things.shape)
                things |= mask
                if row["role"] == "object":
                    thing = objects.setdefault(row["track_id"], _Object(row["track_id"], row["label"]))
                    moment = self._moment(item.camera, position, frame.index, frame.timestamp_s, mask, poses, hands, thing.track_id)
                    thing.moments.append(moment)
            background.see(position, frame.rgb, things)
            start = max(position - 2 * half, 0)
            homographies[(start, position)] = background.homography(start, position)
            last = position
        for start in range(max(last - 2 * half + 1, 0), last + 1):
            homographies[(start, last)] = background.homography(start, last)
        for thing in objects.values():
            self._compare(item.camera, thing, homographies, half, last)
        return [thing for _, thing in sorted(objects.items())]

    def _moment(
        self,
        camera: Camera,
        position: int,
        frame_index: int,
        timestamp_s: float,
        mask: np.ndarray,
        poses: dict[tuple[int, int], dict[str, Any]],
        hands: dict[int, dict[Hand, HandSighting]],
        track_id: int,
    ) -> _Moment:
        row = poses.get((frame_index, track_id))
        pose, why = _pose_of(row)
        given = row["dimensions_m"] if row else None
        size = np.full(3, _UNKNOWN_SIZE_M) if given is None else np.asarray(given, np.float64)
        depth = None if pose is None else float(pose[2, 3])
        seen = hands.get(frame_index, {})
        slack = self.settings.depth_slack_m
        whole = mask if pose is None or given is None else _completed(camera, mask, pose, size)
        touches = {hand: touch(camera, sighting, whole, depth, self.settings.reach_m, slack) for hand, sighting in seen.items()}
        return _Moment(position, frame_index, timestamp_s, pose, why, size, touches, seen)

    def _compare(self, camera: Camera, thing: _Object, homographies: dict[tuple[int, int], np.ndarray | None], half: int, last: int) -> None:
        by_position = {m.position: m for m in thing.moments}
        for moment in thing.moments:
            thing.motions.append(self._motion(camera, moment, by_position, homographies, half, last))

    def _motion(
        self,
        camera: Camera,
        moment: _Moment,
        by_position: dict[int, _Moment],
        homographies: dict[tuple[int, int], np.ndarray | None],
        half: int,
        last: int,
    ) -> _Motion | str:
        if moment.pose is None:
            return f"the object has no pose: {moment.why}"
        before = _nearest(by_position, range(max(moment.position - half, 0), moment.position + 1))
        after = _nearest(by_position, range(min(moment.position + half, last), moment.position - 1, -1))
        elapsed_s = after.timestamp_s - before.timestamp_s
        if elapsed_s <= 0:
            return "no other pose is near in time"
        if elapsed_s > self.settings.max_gap_s:
            return f"the nearest poses are {elapsed_s:.2f} s apart"
        assert before.pose is not None and after.pose is not None
        velocity = (after.pose[:3, 3] - before.pose[:3, 3]) / elapsed_s
        slips = {
            hand: slip
            for hand in HANDS
            if hand in before.hands and hand in after.hands
            and (slip := slip_m_s(camera, before.hands[hand], after.hands[hand], before.pose, after.pose, elapsed_s)) is not None
        }
        H = homographies.get((before.position, after.position))
        still = None if H is None else carried_by(camera, H, before.pose, moment.size_m)
        if still is None:
            return _Motion(velocity, None, None, slips)
        speed = float(np.linalg.norm(after.pose[:3, 3] - still[:3, 3])) / elapsed_s
        turning = np.radians(rotation_angle_deg(still[:3, :3], after.pose[:3, :3])) / elapsed_s
        return _Motion(velocity, speed, float(turning), slips)

    def _rows(self, item: ClipInput, thing: _Object) -> list[dict[str, Any]]:
        known = [None if isinstance(m, str) else m for m in thing.motions]
        speeds = np.array([np.nan if m is None or m.speed_m_s is None else m.speed_m_s for m in known])
        turning = np.array([np.nan if m is None or m.turning_rad_s is None else m.turning_rad_s for m in known])
        states = self._states(speeds, turning)
        touches = {hand: np.array([m.touches.get(hand, 0.0) for m in thing.moments]) for hand in HANDS}
        slips = {hand: np.array([np.nan if m is None else m.slips_m_s.get(hand, np.nan) for m in known]) for hand in HANDS}
        moving = np.array([s == "moving" for s in states])
        window = max(round(self.settings.hold_window_s * float(item.clip.fps) / item.sample_stride), 1)
        confidence = held(touches, slips, speeds, moving, window, self.settings.max_slip_m_s)
        rows = []
        for i, (moment, motion) in enumerate(zip(thing.moments, thing.motions, strict=True)):
            row: dict[str, Any] = {
                "video_id": item.clip.video_id,
                "clip_id": item.clip.clip_id,
                "frame_index": moment.frame_index,
                "timestamp_s": moment.timestamp_s,
                "sample_stride": item.sample_stride,
                "track_id": thing.track_id,
                "label": thing.label,
                "state": states[i],
                "backend": NAME,
            }
            holders = [hand for hand in HANDS if confidence[hand][i] > 0]
            if holders:
                row["held_by"] = "both" if len(holders) == 2 else holders[0]
                row["hold_score"] = float(max(confidence[hand][i] for hand in holders))
            rows.append(row | _motion_columns(motion))
        return rows

    def _states(self, speeds_m_s: np.ndarray, turning_rad_s: np.ndarray) -> list[str | None]:
        """Moving or still with hysteresis; null where the speed is unknown."""
        s = self.settings
        states: list[str | None] = []
        moving = False
        for speed, turning in zip(speeds_m_s, turning_rad_s, strict=True):
            if np.isnan(speed):
                moving = False
                states.append(None)
                continue
            starts, goes_on = speed > s.start_m_s or turning > s.start_rad_s, speed > s.stop_m_s or turning > s.stop_rad_s
            moving = starts or (moving and goes_on)
            states.append("moving" if moving else "still")
        return states


def carried_by(camera: Camera, H: np.ndarray, T_camera_object: np.ndarray, size_m: np.ndarray) -> np.ndarray | None:
    """T_camera_object after the picture moved by H, had the object stayed where it was on the background; None where that cannot be solved."""
    probes = _PROBES * size_m
    pixels = project(camera, transform(T_camera_object, probes))
    moved = np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ H.T
    if not np.isfinite(moved).all() or (moved[:, 2] <= 0).any():
        return None
    rvec, tvec = cv2.Rodrigues(T_camera_object[:3, :3])[0], T_camera_object[:3, 3:].copy()
    rvec, tvec = cv2.solvePnPRefineLM(probes, moved[:, :2] / moved[:, 2:], camera.K, None, rvec, tvec)
    return make_transform(cv2.Rodrigues(rvec)[0], tvec.ravel())


def _completed(camera: Camera, mask: np.ndarray, T_camera_object: np.ndarray, size_m: np.ndarray) -> np.ndarray:
    """The mask (H, W) bool with the outline of the object's bounding cuboid filled in: what a hand hides is touched all the same."""
    corners = project(camera, transform(T_camera_object, _PROBES * size_m))
    if not np.isfinite(corners).all():
        return mask
    filled = mask.astype(np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.clip(corners, -1e4, 1e4).round().astype(np.int32)), 1)
    return filled.astype(bool)


def _nearest(by_position: dict[int, _Moment], order: range) -> _Moment:
    """The first moment of that order that has a pose; the last of the order always has one."""
    return next(by_position[p] for p in order if p in by_position and by_position[p].pose is not None)


def _pose_of(row: dict[str, Any] | None) -> tuple[np.ndarray | None, str]:
    if row is None:
        return None, "not in object_pose"
    if row["qw"] is None:
        return None, row["reason"] or "unknown"
    q_wxyz = np.array([row["qw"], row["qx"], row["qy"], row["qz"]])
    return make_transform(matrix_from_quaternion(q_wxyz), np.array([row["x_m"], row["y_m"], row["z_m"]])), ""


def _hands(table: pa.Table) -> dict[int, dict[Hand, HandSighting]]:
    found: dict[int, dict[Hand, HandSighting]] = defaultdict(dict)
    for row in table.select(["frame_index", "hand", "joints_px", "joints_m"]).to_pylist():
        joints_m = None if row["joints_m"] is None else np.asarray(row["joints_m"], np.float64)
        found[row["frame_index"]][row["hand"]] = HandSighting(np.asarray(row["joints_px"], np.float64), joints_m)
    return found


def _by_frame(table: pa.Table) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        found[row["frame_index"]].append(row)
    return found


def _full_size(row: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
    """The mask (H, W) bool at the picture's size."""
    mask = rle.decode(row["rle"])
    if mask.shape == tuple(size):
        return mask
    enlarged: np.ndarray = cv2.resize(mask.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return enlarged.astype(bool)


def _motion_columns(motion: _Motion | str) -> dict[str, Any]:
    if isinstance(motion, str):
        return {"reason": motion}
    vx, vy, vz = (float(v) for v in motion.velocity_m_s)
    columns: dict[str, Any] = {"vx_m_s": vx, "vy_m_s": vy, "vz_m_s": vz}
    if motion.speed_m_s is None:
        return columns | {"reason": "too few background points agree on the camera's motion"}
    return columns | {"speed_background_m_s": motion.speed_m_s, "turning_background_rad_s": motion.turning_rad_s}
