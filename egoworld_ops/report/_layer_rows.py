"""Rows of the tables as what is drawn: one function a layer, each takes the rows of one frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from egoworld_ops.errors import EgoworldError
from egoworld_ops.operators.rows import camera_of, pose_of, standing_pose_of
from egoworld_ops.report.layer_values import Box, CameraAt, Event, Flag, Hand, Hold, Line, Mask, Robot, Thing
from egoworld_ops.robots import find_robot
from egoworld_ops.types import Camera
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import matrix_from_quaternion, project, transform

if TYPE_CHECKING:
    from egoworld_ops.operators.mapping._kinematics import HandModel

Rows = Sequence[Mapping[str, Any]]

DEFAULT_AXIS_M = 0.05
FAR_PX = 10_000
"""Beyond this a point is taken for not shown: it is far from every picture, and drawing programs overflow."""
STRAIGHT_PX = 0.5
"""An outline is thinned to points from which it departs by no more than this."""
_BENT_PARTS = 8
"""Straight pieces of a line that a lens bends."""
R_VIEW_BASE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
"""Palm towards the viewer, fingers up: a robot hand is shown so where the wrist's orientation is not known."""


def mask(row: Mapping[str, Any]) -> Mask:
    """The outlines of one row of `masks`."""
    import cv2

    pixels = rle.decode(row["rle"]).astype(np.uint8)
    found, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thinned = [cv2.approxPolyDP(outline, STRAIGHT_PX, True)[:, 0] for outline in found]
    outlines = [plain((outline + 0.5) / row["mask_scale"] - 0.5) for outline in thinned]
    return Mask(row["track_id"], row["role"], name(row), row["score"], row["observed"], outlines, plain(row["bbox_px"]))


def box(row: Mapping[str, Any], events: Sequence[Event]) -> Box:
    """The box of one row of `detections`, with the phase of the event that is on with it."""
    phases = (e.phase for e in events if row["role"] == f"hand_{e.hand}" or row["track_id"] == e.track_id)
    return Box(row["track_id"], row["role"], name(row), row["score"], plain(row["box_px"]), row["source"], next(phases, None))


def found_hand(row: Mapping[str, Any]) -> Hand:
    """The skeleton of one row of `hand_pose`: its projection, or the image points where there is no pose."""
    solved = row["joints_m"] is not None
    at_px = project(camera_of(row), np.array(row["joints_m"])) if solved else np.array(row["joints_px"])
    return Hand(row["hand"], "hand_pose", points(at_px), solved, row["observed"], row["score"])


def fused_hand(row: Mapping[str, Any], camera: Camera | None) -> Hand | None:
    """The skeleton of one row of `fusion`; None where there is no pose, or no camera to see it with."""
    if row["joints_m"] is None or camera is None:
        return None
    return Hand(row["hand"], "fusion", points(project(camera, np.array(row["joints_m"]))), True, row["observed"], row["score"])


def thing(row: Mapping[str, Any]) -> Thing | None:
    """Axes and box of one row of `object_pose`; None where there is no pose."""
    T_camera_object = pose_of(row)
    if T_camera_object is None:
        return None
    half_m = np.array(row["dimensions_m"] or [2 * DEFAULT_AXIS_M] * 3) / 2
    camera = camera_of(row)

    def seen(segments_m: np.ndarray) -> list[Line]:
        return lines(camera, transform(T_camera_object, segments_m))

    ends_m = [np.eye(3)[axis] * max(half_m[axis], half_m.max() / 2) * 1.3 for axis in range(3)]
    axes = [next(iter(seen(np.array([[np.zeros(3), end_m]]))), []) for end_m in ends_m]
    edges = seen(_cuboid_edges(half_m)) if row["dimensions_m"] is not None else []
    return Thing(row["track_id"], name(row), row["score"], standing_pose_of(row) is not None, axes, edges, row["reason"])


def robot(row: Mapping[str, Any], camera: Camera | None) -> Robot:
    """The links of one row of `mapping`, at the person's wrist and alone."""
    if row["qpos_rad"] is None:
        return Robot(row["hand"], row["robot"], row["residual_m"], [], [], row["reason"] or "not mapped")
    model, values = robot_model(row["robot"], row["hand"]), dict(zip(row["joint_names"], row["qpos_rad"], strict=True))
    if model is None or not values.keys() >= set(model.joint_names):
        return Robot(row["hand"], row["robot"], row["residual_m"], [], [], f"no model of these joints: {row['robot']}")
    links_m = model.segments_m(np.array([values[joint] for joint in model.joint_names]))
    T_camera_wrist = pose_of(row)
    bones = [] if T_camera_wrist is None or camera is None else lines(camera, transform(T_camera_wrist, links_m))
    flat_m = (links_m @ _view(row).T)[..., :2]
    centred = (flat_m - (flat_m.min((0, 1)) + flat_m.max((0, 1))) / 2) / model.hand.hand_length_m
    return Robot(row["hand"], row["robot"], row["residual_m"], bones, centred.round(4).tolist(), None)


def hold(row: Mapping[str, Any]) -> Hold:
    """One row of `movement`."""
    return Hold(row["track_id"], name(row), row["state"], row["held_by"], row["hold_score"])


def event(row: Mapping[str, Any]) -> Event:
    """One row of `events`."""
    first, last = row["frame_index"], row["last_frame_index"]
    return Event(row["hand"], row["track_id"], name(row), row["phase"], first, last, row["event_score"])


def flag(row: Mapping[str, Any]) -> Flag | None:
    """One row of `agreement`; None where nothing is wrong."""
    return Flag(row["track_id"], row["role"], name(row), row["disagreement"]) if row["disagreement"] else None


def camera_at(row: Mapping[str, Any]) -> CameraAt | None:
    """One row of `camera`; None where it has no place."""
    position_m = [row[f"{a}_m"] for a in "xyz"]
    if None not in position_m:
        return CameraAt([round(x, 4) for x in position_m], "m")
    return None if row["position_units"] is None else CameraAt([round(x, 4) for x in row["position_units"]], "units")


def name(row: Mapping[str, Any]) -> str:
    """What a person calls the thing of a row."""
    role = row.get("role", "object")
    return row["label"] or (f"object {row['track_id']}" if role == "object" else role.removeprefix("hand_"))


def plain(values: Any) -> Any:
    """Nested lists of pixels, to a hundredth."""
    return np.round(np.asarray(values, np.float64), 2).tolist()


def points(at_px: np.ndarray) -> list[list[float] | None]:
    """(n, 2) points as plain numbers; None for those that are not shown."""
    return [point if seen else None for point, seen in zip(plain(at_px), _are_shown(at_px).tolist(), strict=True)]


def lines(camera: Camera, segments_m: np.ndarray) -> list[Line]:
    """The (n, 2, 3) straight segments of the camera's frame as the lens shows them; of one that it shows in part, the parts."""
    share = np.linspace(0, 1, 2 if camera.is_pinhole else _BENT_PARTS + 1)[:, None]
    along_px = project(camera, segments_m[:, :1] * (1 - share) + segments_m[:, 1:] * share)
    return [plain(part) for line in along_px for part in _shown_parts(line)]


def _shown_parts(line_px: np.ndarray) -> Iterator[np.ndarray]:
    shown = _are_shown(line_px)
    for part in np.split(np.arange(len(shown)), np.flatnonzero(np.diff(shown)) + 1):
        if shown[part[0]] and len(part) > 1:
            yield line_px[part]


def _are_shown(at_px: np.ndarray) -> np.ndarray:
    return np.asarray((np.abs(at_px) < FAR_PX).all(-1))


def _cuboid_edges(half_m: np.ndarray) -> np.ndarray:
    """(12, 2, 3) edges of a cuboid about the origin."""
    corners = np.array(list(product((-1, 1), repeat=3)))
    edges = [[a, b] for a in corners for b in corners if (b - a).sum() == 2 and np.count_nonzero(b - a) == 1]
    return half_m * np.array(edges, np.float64)


def _view(row: Mapping[str, Any]) -> np.ndarray:
    """(3, 3) rotation from the base frame to the view: the camera's, x right and y down."""
    q = [row[f"q{a}"] for a in "wxyz"]
    return R_VIEW_BASE if None in q else matrix_from_quaternion(np.array(q))


@cache
def robot_model(robot_name: str, hand: str) -> HandModel | None:
    """The kinematics of a robot known by name; None where it is described in the settings only."""
    from egoworld_ops.operators.mapping._kinematics import HandModel

    try:
        described = getattr(find_robot(robot_name, {}), hand)
        return HandModel(described) if described else None
    except EgoworldError:
        return None
