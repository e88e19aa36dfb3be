"""Movement of objects from their poses, the camera's poses or the background's motion in the picture, and the hands. Needs no weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.movement._background import (
    MIN_OBJECT_POINTS,
    PROBES,
    Background,
    CameraPath,
    InPicture,
    InWorld,
    Thing,
    depths_on,
    shift_px,
)
from egoworld_ops.operators.movement._cuts import Cuts
from egoworld_ops.operators.movement._flow import Flow, Scale, homography, shrunk
from egoworld_ops.operators.movement._grip import CUES, left_to
from egoworld_ops.operators.movement._holding import slip_in_picture_px, slip_m_s
from egoworld_ops.operators.movement._moment import Moment, joints_of, moment
from egoworld_ops.operators.movement._motion import Motion, judged_m_s, least, over_cut, unless_it_rests
from egoworld_ops.operators.movement._verdict import Evidence, judge
from egoworld_ops.operators.movement._walking import Ways, resting, ways
from egoworld_ops.operators.movement._window import Window
from egoworld_ops.operators.rectifying import run_rectified
from egoworld_ops.operators.rows import by_frame, common
from egoworld_ops.types import HANDS, Camera, Hand
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import project, rotation_angle_deg, transform

NAME = "classical"
_JOINTS = ("frame_index", "hand", "joints_px", "joints_m")
_HAND_ERROR_SHARE = 0.25
"""Standard error of distances that hands in the picture tell, of objects without a pose."""
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


@dataclass
class _Object:
    track_id: int
    label: str | None
    moments: dict[int, Moment] = field(default_factory=dict)
    motions: dict[int, Motion] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Positions at which another scene begins."""

    def goes_over_cut(self, position: int) -> bool:
        """Whether it was seen in the frame before, of another scene."""
        return position in self.cuts and position - 1 in self.moments


class _Flows:
    """Points followed on the background, on each hand and on each object; and the path of the camera."""

    def __init__(self, path: CameraPath) -> None:
        self.path = path
        self.background = Flow(160, 9)
        self.cuts = Cuts()
        self.hands = {hand: Flow(50, 5, of_thing=True) for hand in HANDS}
        self.objects: dict[int, Flow] = {}
        self._ways: tuple[tuple[int, int], Ways | None] = ((-1, -1), None)

    def ways(self, camera: Camera, start: int, end: int) -> Ways | None:
        """What the camera may have done between two frames, by the background alone; None where that shows too few points."""
        if self._ways[0] != (start, end):
            self._ways = ((start, end), ways(camera, *self.background.pairs(start, end)))
        return self._ways[1]

    def see(
        self, position: int, grey: np.ndarray, hands: dict[Hand, np.ndarray], objects: dict[int, np.ndarray], unseen: np.ndarray
    ) -> None:
        """Follow into a small picture (h, w) uint8 with its masks (h, w) bool, and where it shows nothing."""
        things = np.logical_or.reduce([unseen, *hands.values(), *objects.values()])
        self.background.see(position, grey, shrunk(~things, 7))
        for hand, mask in hands.items():
            self.hands[hand].see(position, grey, shrunk(mask, 1))
        for track_id, mask in objects.items():
            self.objects.setdefault(track_id, Flow(60, 4, of_thing=True)).see(position, grey, shrunk(mask, 2))

    def forget_before(self, position: int) -> None:
        """Forget points of the frames before that one: they are not needed any more."""
        for flow in (self.background, *self.hands.values(), *self.objects.values()):
            flow.forget_before(position)


class Backend(Operator):
    """The `classical` backend of movement."""

    version = "15"
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
        rows = [row for thing in objects for stretch in _stretches(thing) for row in self._rows(item, thing, stretch)]
        return schema.from_rows("movement", rows) if rows else schema.empty("movement")

    def _watch(self, item: ClipInput) -> list[_Object]:
        """One pass over the frames. A frame's motion is known half a window later; points are held until then, but no pictures."""
        masks = by_frame(item.tables["masks"], ("frame_index", "track_id", "role", "label", "rle"))
        poses = {(r["frame_index"], r["track_id"]): r for r in item.tables["object_pose"].to_pylist()}
        joints = {(r["frame_index"], r["hand"]): r for r in item.tables["hand_pose"].select(list(_JOINTS)).to_pylist()}
        if not any(row["role"] == "object" for rows in masks.values() for row in rows):
            return []
        hand_px: float | None = None
        scale = Scale.of(item.camera.width, item.camera.height)
        camera = scale.camera(item.camera)
        unseen = np.zeros(scale.small_px[::-1], bool) if item.unseen is None else scale.mask(item.unseen)
        flows = _Flows(CameraPath(camera, item.tables["camera"]))
        found, window = dict[int, _Object](), Window(self.settings.window_s / 2, self.settings.max_gap_s)
        for position, frame in enumerate(item.frames()):
            rows = masks.get(frame.index, [])
            small = {row["track_id"]: scale.mask(rle.decode_at(row["rle"], frame.rgb.shape[:2])) for row in rows}
            hands = {hand: small[row["track_id"]] for row in rows for hand in HANDS if row["role"] == f"hand_{hand}"}
            objects = {row["track_id"]: small[row["track_id"]] for row in rows if row["role"] == "object"}
            flows.see(position, scale.grey(frame.rgb), hands, objects, unseen)
            flows.cuts.see(position, frame.rgb, flows.background)
            if hands:
                hand_px = max(float(np.count_nonzero(mask)) for mask in hands.values()) ** 0.5 or hand_px
            seen = {hand: joints_of(row, scale) for hand in hands if (row := joints.get((frame.index, hand))) is not None}
            for row in rows:
                if row["role"] == "object":
                    thing = found.setdefault(row["track_id"], _Object(row["track_id"], row["label"], cuts=flows.cuts.found))
                    at = (position, frame.index, frame.timestamp_s)
                    pose_row = poses.get((frame.index, thing.track_id))
                    thing.moments[position] = moment(
                        camera, at, objects[thing.track_id], hands, seen, pose_row, hand_px, self.settings.reach_m
                    )
            for settled, reach in window.see(frame.timestamp_s):
                self._settle(camera, found, flows, settled, reach)
            flows.forget_before(window.oldest)
        for settled, reach in window.end():
            self._settle(camera, found, flows, settled, reach)
        return [thing for _, thing in sorted(found.items())]

    def _settle(self, camera: Camera, found: dict[int, _Object], flows: _Flows, position: int, reach: tuple[int, int]) -> None:
        """Work out the motion of all objects around one position, once the frames after it have been seen."""
        for thing in found.values():
            if position in thing.moments:
                thing.motions[position] = self._motion(camera, thing, flows, position, flows.cuts.within(position, reach))

    def _motion(self, camera: Camera, thing: _Object, flows: _Flows, position: int, reach: tuple[int, int]) -> Motion:
        span = self._poses_around(thing, position, reach)
        if isinstance(span, Reason):
            return self._seen(camera, thing, flows, position, reach, span)
        before, after = span
        elapsed_s, at = after.timestamp_s - before.timestamp_s, (before.position, after.position)
        was_pose, now_pose = before.pose, after.pose
        assert was_pose is not None
        assert now_pose is not None
        slips = {
            hand: slip
            for hand, flow in flows.hands.items()
            if (slip := slip_m_s(camera, *flow.pairs(*at), was_pose, now_pose, elapsed_s)) is not None
        }
        m_s_per_px = float(now_pose[2, 3]) / camera.fx_px / elapsed_s
        seen_slips = _seen_slips(camera, thing, flows, at, m_s_per_px)
        velocity = (now_pose[:3, 3] - was_pose[:3, 3]) / elapsed_s
        was, points = Thing(was_pose, thing.moments[position].size_m), flows.objects[thing.track_id].pairs(*at)

        def against(background: Background) -> Motion | None:
            still = background.carried(was)
            if still is None:
                return None
            drift_m = now_pose[:3, 3] - still[:3, 3]
            turning = np.radians(rotation_angle_deg(still[:3, :3], now_pose[:3, :3])) / elapsed_s
            seen_px = shift_px(background, *points, was, float(was_pose[2, 3]))
            seen_m_s = None if seen_px is None else seen_px * m_s_per_px
            speed_m_s, away_m_s = float(np.linalg.norm(drift_m)) / elapsed_s, abs(float(drift_m[2])) / elapsed_s
            return Motion(velocity, speed_m_s, float(turning), seen_m_s, away_m_s, slips, seen_slips, source=background.source)

        size_m = thing.moments[position].size_m
        of_thing = points if len(points[0]) >= MIN_OBJECT_POINTS else _corners(camera, was_pose, now_pose, size_m)
        found = self._least(
            camera, flows, span, before.depth_error_share, against, (*of_thing, depths_on(camera, of_thing[0], was, float(was_pose[2, 3])))
        )
        return found or Motion(velocity, None, None, None, 0.0, slips, seen_slips)

    def _least(
        self,
        camera: Camera,
        flows: _Flows,
        span: tuple[Moment, Moment],
        depth_error_share: float | None,
        against: Callable[[Background], Motion | None],
        points: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> Motion | None:
        """The motion of an object against the background, by the camera's poses where they are known, else by the picture.

        `points` are those of the object before and after, (M, 2) each, and their depths (M,) before.
        """
        before, after = span
        known = () if depth_error_share is None else flows.path.between(before.frame_index, after.frame_index, depth_error_share)

        def picture() -> Background | None:
            H = homography(*flows.background.pairs(before.position, after.position), _diagonal_px(camera))
            return None if H is None else InPicture(camera, H)

        found = least(known, picture, against, self.settings.start_m_s)
        if known or found is None or not judged_m_s(found) > self.settings.start_m_s:
            return found
        walked = flows.ways(camera, before.position, after.position)
        if walked is None:
            return found
        best, elapsed_s = walked.explaining(*points), after.timestamp_s - before.timestamp_s
        return unless_it_rests(found, against(InWorld(camera, best.T_after_before, "picture")), best.nearer, best.way_m / elapsed_s)

    def _poses_around(self, thing: _Object, position: int, reach: tuple[int, int]) -> tuple[Moment, Moment] | Reason:
        """The two moments with poses whose difference is the velocity at a position, or why there is none."""
        moment = thing.moments[position]
        if moment.why is not None:
            return moment.why
        before = _farthest(thing.moments, range(position, reach[0] - 1, -1))
        after = _farthest(thing.moments, range(position, reach[1] + 1))
        elapsed_s = after.timestamp_s - before.timestamp_s
        if elapsed_s <= 0:
            return Reason("too_far_apart", "no other pose is near in time")
        if elapsed_s > self.settings.max_gap_s:
            return Reason("too_far_apart", f"the nearest poses are {elapsed_s:.2f} s apart")
        return before, after

    def _seen(self, camera: Camera, thing: _Object, flows: _Flows, position: int, reach: tuple[int, int], why: Reason) -> Motion:
        """What the picture alone tells of the motion, of an object whose pose is not known; lengths are measured by the hands in the picture."""
        first = _last_in(thing.moments, range(position, reach[0] - 1, -1))
        last = _last_in(thing.moments, range(position, reach[1] + 1))
        elapsed_s = last.timestamp_s - first.timestamp_s
        m_per_px = thing.moments[position].m_per_px
        if m_per_px is None or not 0 < elapsed_s <= self.settings.max_gap_s:
            return Motion(None, None, None, None, 0.0, {}, {}, why)
        span, m_s_per_px = (first.position, last.position), m_per_px / elapsed_s
        points = flows.objects[thing.track_id].pairs(*span)
        slips = _seen_slips(camera, thing, flows, span, m_s_per_px)

        def against(background: Background) -> Motion | None:
            seen_px = shift_px(background, *points, None, m_per_px * camera.fx_px)
            return None if seen_px is None else Motion(None, None, None, seen_px * m_s_per_px, 0.0, slips, slips, why, background.source)

        found = self._least(
            camera, flows, (first, last), _HAND_ERROR_SHARE, against, (*points, np.full(len(points[0]), m_per_px * camera.fx_px))
        )
        return found or Motion(None, None, None, None, 0.0, slips, slips, why)

    def _rows(self, item: ClipInput, thing: _Object, positions: range) -> list[dict[str, Any]]:
        """The rows of one unbroken stretch: an object's motion before a loss says nothing about its motion after it."""
        moments, motions = [thing.moments[p] for p in positions], [thing.motions[p] for p in positions]
        touched, times_s = np.array([any(m.touches.values()) for m in moments]), np.array([m.timestamp_s for m in moments])
        states = resting(motions, self._states(motions), touched, times_s, self.settings.start_m_s)
        moving = np.array([s == "moving" or (s is None and m.walks) for s, m in zip(states, motions, strict=True)])
        edges = {hand: np.array([m.bordered.get(hand, np.nan) for m in moments]) for hand in HANDS}
        evidence = {
            hand: Evidence(
                np.array([hand in m.touches for m in moments]),
                np.array([m.touches.get(hand, 0.0) for m in moments]),
                np.array([m.slips_m_s.get(hand, np.nan) for m in motions]),
                np.array([m.cues.get(hand, np.full(len(CUES), np.nan)) for m in moments]),
                left_to(edges[hand], edges[other]),
                np.array([m.seen_slips_m_s.get(hand, np.nan) for m in motions]),
            )
            for hand, other in zip(HANDS, reversed(HANDS), strict=True)
        }
        verdicts = judge(
            evidence,
            np.array([m.likely_m_s if m.walks else np.nan if s is None else m.fastest_m_s for m, s in zip(motions, states, strict=True)]),
            moving,
            times_s,
            self.settings.hold_window_s,
            self.settings.max_slip_m_s,
        )
        rows = [
            {
                **common(item, moment.frame_index, moment.timestamp_s, NAME),
                "track_id": thing.track_id,
                "label": thing.label,
                "state": state,
                "held_by": verdict.held_by,
                "hold_score": verdict.score,
                "hold_reason": verdict.why,
                "metric": item.camera.metric,
            }
            | motion.columns()
            | (motion.undecided() if state is None else {})
            for moment, motion, state, verdict in zip(moments, motions, states, verdicts, strict=True)
        ]
        return [over_cut(row) if thing.goes_over_cut(position) else row for position, row in zip(positions, rows, strict=True)]

    def _states(self, motions: list[Motion]) -> list[str | None]:
        """Moving or still, with hysteresis; null where the motion is unknown, or is one only if the camera's way or its scale is as it is said to be.

        Points seen on the object decide if there are enough: they are more certain than the difference of two poses. The poses decide on motion along
        the line of sight, which points show least well.
        """
        s = self.settings
        states: list[str | None] = []
        moving = False
        for motion in motions:
            speed = judged_m_s(motion)
            if np.isnan(speed):
                moving = False
                states.append(None)
                continue
            grows = not motion.walks and motion.depth_m_s > s.start_depth_m_s and speed > SEEN_TO_GROW * motion.depth_m_s
            moving = speed > (s.stop_m_s if moving else s.start_m_s) or grows
            undecided = not moving and motion.likely_m_s is not None and motion.likely_m_s > s.start_m_s
            states.append("moving" if moving else None if undecided else "still")
        return states


def _corners(camera: Camera, was: np.ndarray, now: np.ndarray, size_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners (8, 2) of an object's cuboid before and after, by its poses."""
    return project(camera, transform(was, PROBES * size_m)), project(camera, transform(now, PROBES * size_m))


def _diagonal_px(camera: Camera) -> float:
    return float(np.hypot(camera.width, camera.height))


def _seen_slips(camera: Camera, thing: _Object, flows: _Flows, span: tuple[int, int], m_s_per_px: float) -> dict[Hand, float]:
    """Speed of each hand against the object, by their points in the picture."""
    points = flows.objects[thing.track_id].pairs(*span)
    slips = {hand: slip_in_picture_px(*points, *flow.pairs(*span), _diagonal_px(camera)) for hand, flow in flows.hands.items()}
    return {hand: slip_px * m_s_per_px for hand, slip_px in slips.items() if slip_px is not None}


def _stretches(thing: _Object) -> list[range]:
    """The runs of processed frames of one scene in which an object is masked without a gap."""
    order = sorted(thing.moments)
    starts = [p for p in order if p - 1 not in thing.moments or p in thing.cuts]
    ends = [p + 1 for p in order if p + 1 not in thing.moments or p + 1 in thing.cuts]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def _farthest(moments: dict[int, Moment], order: range) -> Moment:
    """The last moment of that order that has a pose, up to the first frame in which the object is lost; the first of the order always has one."""
    unbroken = itertools.takewhile(lambda p: p in moments, order)
    return [moments[p] for p in unbroken if moments[p].pose is not None][-1]


def _last_in(moments: dict[int, Moment], order: range) -> Moment:
    """The last moment of that order before the first frame in which the object is lost."""
    return moments[list(itertools.takewhile(lambda p: p in moments, order))[-1]]
