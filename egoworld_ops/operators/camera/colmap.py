"""The path of the camera by structure from motion: COLMAP on keyframes, every other frame registered on the points that they give.

The world of a clip is the camera of its first posed frame: x right, y down, z forward there. Hands, arms and masked objects are left out. What
cannot be known is null with its reason: a camera that does not move, or only turns; a picture without texture; motions that contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.camera._initial import window
from egoworld_ops.operators.camera._motion import moved_px, turned
from egoworld_ops.operators.camera._register import Registered, register
from egoworld_ops.operators.camera._scale import Scale, Seen, scale_of
from egoworld_ops.operators.camera._sfm import Keyframe, Mapped, describe, reconstruct
from egoworld_ops.operators.corners import View, straightened, views
from egoworld_ops.operators.rows import common, intrinsics, pose_columns
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert, transform
from egoworld_ops.vision.tracks import WIDTH_PX, Sight, to_full
from egoworld_ops.vision.triangulation import Triangulated, triangulate_all

NAME = "colmap"
MIN_CORNERS = 25
"""Corners that a keyframe must have; with fewer there is too little texture."""
_LEAST_GAP_S, _LONGEST_GAP_S = 0.1, 0.5
_KEY_MOVED, _KEY_SHARED = 0.03, 0.6
"""A new keyframe: the corners moved by so much of the picture's longer side, or so few of the last keyframe's are left."""
STILL_PX, _TURNING_PX, _AGREE_PX = (px / WIDTH_PX for px in (0.75, 1.0, 2.0))
"""As shares of the longer side: corners that move less are at rest; what a rotation leaves of them is parallax only beyond; points agree within."""
_DRIFT = 0.04
"""Corners drift by up to so much of their motion, as what they lie on is turned; parallax must be more."""
_LEAST_AGREED = 0.6
"""Share of the corners that must be explained by one rigid world: below, something else moves in as much of the picture."""
_ALIKE, _BIAS_PX = 3.0, 0.5
"""Errors of the corners of one track, and of neighbours, are alike, so that rotations err more than if each were by itself; and what they lie on is
turned, which moves all a little. The error of the position holds that of the length of the path's first part, and is larger as it is."""
_LAGS = (1, 4, 16, 64)


class ColmapSettings(BackendSettings):
    """Settings of the backend `colmap`."""

    min_posed: Annotated[int, Field(ge=3)] = 3
    """Keyframes that must be registered, at least; else no frame has a pose."""


@dataclass(slots=True)
class Watched:
    """What one pass over the frames gives."""

    sights: list[Sight] = field(default_factory=list)
    keyframes: list[Keyframe] = field(default_factory=list)


class Backend(Operator):
    """The `colmap` backend of camera."""

    version = "1"
    packages = ("opencv-python-headless", "pycolmap", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = ColmapSettings
    handles_lenses: ClassVar[bool] = True
    seconds_per_frame: ClassVar[float] = 0.08

    def run(self, item: ClipInput) -> pa.Table:
        """Table `camera`: one row a frame."""
        cv2.setNumThreads(self.threads)
        watched = watch(item)
        solved = _solve(item.camera, watched, self.settings)
        rows = (
            [_unposed(item, s) | solved.columns() for s in watched.sights] if isinstance(solved, Reason) else _posed(item, watched, solved)
        )
        return schema.from_rows("camera", rows) if rows else schema.empty("camera")


def watch(item: ClipInput) -> Watched:
    """Follow corners through the frames, and describe keyframes."""
    watched, view = Watched(), None
    for view in views(item):
        watched.sights.append(view.sight)
        if not watched.keyframes or _is_new(watched.keyframes[-1].sight, view.sight, max(item.camera.width, item.camera.height)):
            watched.keyframes.append(_keyframe(item.camera, view))
    if view and watched.keyframes[-1].sight is not view.sight:
        watched.keyframes.append(_keyframe(item.camera, view))
    return watched


def _keyframe(camera: Camera, view: View) -> Keyframe:
    px, vectors = describe(view.grey, view.free)
    straight, shown = straightened(camera, to_full(px, view.scale))
    return Keyframe(view.sight, straight, vectors[shown])


def _is_new(last: Sight, now: Sight, side_px: int) -> bool:
    gap_s = now.timestamp_s - last.timestamp_s
    if gap_s < _LEAST_GAP_S:
        return False
    moved, shared = moved_px(last, now)
    return gap_s >= _LONGEST_GAP_S or not moved <= _KEY_MOVED * side_px or shared < _KEY_SHARED * len(last.ids)


@dataclass(frozen=True, slots=True)
class _Solved:
    """A reconstruction that counts; `points` by the number of the corner."""

    mapped: Mapped
    points: Mapping[int, Triangulated]


def _solve(camera: Camera, watched: Watched, settings: BackendSettings) -> _Solved | Reason:
    """The reconstruction, or why there is none."""
    assert isinstance(settings, ColmapSettings)
    side_px, keyframes = max(camera.width, camera.height), watched.keyframes
    sights = [keyframe.sight for keyframe in keyframes]
    rich = sum(len(sight.ids) >= MIN_CORNERS for sight in sights)
    if rich < settings.min_posed:
        return Reason("no_texture", f"too little texture: {rich} of {len(sights)} keyframes have {MIN_CORNERS} corners")
    if (moved := most_moved(sights)) < STILL_PX * side_px:
        return Reason("no_motion", f"the camera does not move: the picture moves by {moved / side_px:.2%} of its width at most")
    reference, left_px, parallax = most_parallax(camera, sights)
    if parallax < 1:
        return Reason(
            "rotation_only",
            f"the camera only turns, or moves too little for what it sees: a rotation leaves {left_px / side_px:.2%} of the picture's width",
        )
    mapped = reconstruct(camera, keyframes, reference)
    if mapped is None or len(mapped.T_world_camera) < settings.min_posed:
        return Reason("not_registered", "no rigid world explains what is seen: too little parallax, or too much that moves by itself")
    return _judged(camera, sights, mapped)


def most_moved(sights: Sequence[Sight]) -> float:
    """The largest median motion of corners between two keyframes that share enough of them, px; 0 where none do."""
    pairs = (moved_px(sights[at - lag], sights[at]) for lag in _LAGS for at in range(lag, len(sights)))
    return max((moved for moved, shared in pairs if shared >= MIN_CORNERS), default=0.0)


def most_parallax(camera: Camera, sights: Sequence[Sight]) -> tuple[int, float, float]:
    """The keyframe around which a rotation explains least; the median of what it leaves of the corners, px; and that in errors of the corners."""
    side_px, best = max(camera.width, camera.height), (0, 0.0, 0.0)
    for reference in range(0, len(sights), max(1, len(sights) // 16)):
        views = window(sights, reference)
        for view in (views[0], views[-1]):
            _, left_px = turned(camera, sights[reference], sights[view])
            if len(left_px) >= MIN_CORNERS:
                left, (moved, _) = float(np.median(left_px)), moved_px(sights[reference], sights[view])
                ratio = left / max(_TURNING_PX * side_px, _DRIFT * moved)
                best = max(best, (reference, left, ratio), key=lambda each: each[2])
    return best


def _judged(camera: Camera, sights: Sequence[Sight], mapped: Mapped) -> _Solved | Reason:
    """The reconstruction with all points, unless too few of the corners agree with it."""
    agree_px = _AGREE_PX * max(camera.width, camera.height)
    found = triangulate_all(camera, sights, mapped.T_world_camera, least_seen=3)
    points = {number: point for number, point in found.items() if point.error_px <= agree_px}
    posed = [sight for sight in sights if sight.frame_index in mapped.T_world_camera]
    numbers, counts = np.unique(np.concatenate([sight.ids for sight in posed]), return_counts=True)
    followed = int((counts >= 3).sum()) if len(numbers) else 0
    agreed = len(points) / max(followed, 1)
    if agreed < _LEAST_AGREED:
        return Reason(
            "ambiguous_motion",
            f"{agreed:.0%} of the followed corners fit one rigid world, want {_LEAST_AGREED:.0%}: something else moves in as much of the picture",
        )
    return _Solved(mapped, points)


def _posed(item: ClipInput, watched: Watched, solved: _Solved) -> list[dict[str, Any]]:
    """The rows of a clip that was reconstructed; the world is turned and moved to the camera of the first posed frame."""
    outcomes = _outcomes(item.camera, watched.sights, solved)
    first = next(T for T in (outcomes[s.frame_index].T_world_camera for s in watched.sights if s.frame_index in outcomes))
    scale = scale_of(_seen(item.camera, watched, outcomes, solved), item.tables["object_pose"].to_pylist(), _straight_hands(item))
    rows = []
    for sight in watched.sights:
        row = _unposed(item, sight)
        if sight.frame_index in outcomes:
            row |= _columns(outcomes[sight.frame_index], invert(first), scale, item.camera.focal_error_share)
        else:
            row |= Reason("not_registered", "too few of the points that the other frames give are seen").columns()
        rows.append(row)
    return rows


def _straight_hands(item: ClipInput) -> list[dict[str, Any]]:
    """The rows of `hand_pose` with their joints where a pinhole camera shows them."""
    rows = item.tables["hand_pose"].select(["frame_index", "joints_px", "joints_m"]).to_pylist()
    return [row | {"joints_px": px} for row in rows if len(px := straightened(item.camera, np.array(row["joints_px"], np.float64))[0])]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The pose of one frame; `sigma` in units and radians."""

    T_world_camera: np.ndarray
    method: str
    inliers: int
    error_px: float
    sigma: tuple[float, float] | None


def _outcomes(camera: Camera, sights: Sequence[Sight], solved: _Solved) -> dict[int, _Outcome]:
    """The pose of each frame that sees enough points, by frame; each begins at the pose of the nearest frame solved before."""
    agree_px = _AGREE_PX * max(camera.width, camera.height)
    poses, found = solved.mapped.T_world_camera, {}
    near = invert(poses[min(poses)])
    for sight in sights:
        known = np.array([int(i) in solved.points for i in sight.ids], bool)
        world = np.array([solved.points[int(i)].position for i in sight.ids[known]]).reshape(-1, 3)
        own = poses.get(sight.frame_index)
        near = invert(own) if own is not None else near
        made = register(camera, near, world, sight.px[known], agree_px)
        if made is None:
            continue
        mapped = own is not None
        near = near if mapped else made.T_camera_world
        found[sight.frame_index] = _Outcome(
            invert(near),
            "mapped" if mapped else "registered",
            made.inliers,
            made.error_px,
            _sigma(camera, sight.frame_index, made, solved.mapped),
        )
    return found


def _sigma(camera: Camera, frame: int, made: Registered, mapped: Mapped) -> tuple[float, float] | None:
    """Standard errors of a pose: of the keyframes around, and of its own where it is none of them; None where the keyframes have none."""
    if not mapped.sigma:
        return None
    frames = sorted(mapped.sigma)
    position, rotation = mapped.sigma[min(frames, key=lambda each: abs(each - frame))]
    if frame not in mapped.T_world_camera:
        position, rotation = float(np.hypot(position, made.sigma_position)), float(np.hypot(rotation, made.sigma_rotation_rad))
    bias = _BIAS_PX * max(1.0, max(camera.width, camera.height) / WIDTH_PX) / camera.fx_px
    return position, float(np.hypot(_ALIKE * rotation, bias))


def _seen(camera: Camera, watched: Watched, outcomes: Mapping[int, _Outcome], solved: _Solved) -> dict[int, Seen]:
    """The points that each posed keyframe sees, with their depths."""
    found = {}
    for keyframe in watched.keyframes:
        sight = keyframe.sight
        if sight.frame_index in outcomes:
            known = np.array([int(i) in solved.points for i in sight.ids], bool)
            world = np.array([solved.points[int(i)].position for i in sight.ids[known]]).reshape(-1, 3)
            found[sight.frame_index] = Seen(sight.px[known], transform(invert(outcomes[sight.frame_index].T_world_camera), world)[:, 2])
    return found


def _unposed(item: ClipInput, sight: Sight) -> dict[str, Any]:
    return common(item, sight.frame_index, sight.timestamp_s, NAME) | intrinsics(item.camera) | {"scale_source": "none"}


def _columns(outcome: _Outcome, T_first_world: np.ndarray, scale: Scale | None, focal_error_share: float) -> dict[str, Any]:
    T = T_first_world @ outcome.T_world_camera
    made: dict[str, Any] = pose_columns(T[:3, :3], T[:3, 3] * (scale.metres_per_unit if scale else 1.0)) | {
        "position_units": T[:3, 3].tolist(),
        "method": outcome.method,
        "inliers": outcome.inliers,
        "reprojection_px": outcome.error_px,
    }
    if outcome.sigma:
        made |= {"position_error_units": outcome.sigma[0], "rotation_error_deg": float(np.degrees(outcome.sigma[1]))}
    if scale:
        return made | {
            "metres_per_unit": scale.metres_per_unit,
            "scale_source": scale.source,
            "scale_error_share": float(np.hypot(scale.error_share, focal_error_share)),
        }
    unknown = Reason(
        "no_scale", "neither a hand nor an object of known size is near points of the world: the path is known up to its scale"
    )
    return made | dict.fromkeys(("x_m", "y_m", "z_m")) | unknown.columns()
