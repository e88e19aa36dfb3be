"""What one frame shows of one object and of the hands at it, measured in the small picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.movement._background import PROBES
from egoworld_ops.operators.movement._flow import Scale
from egoworld_ops.operators.movement._grip import bordered, cues
from egoworld_ops.operators.movement._holding import touch
from egoworld_ops.operators.rows import pose_of, standing_pose_of
from egoworld_ops.types import Camera, Hand
from egoworld_ops.vision.geometry import project, transform

_UNKNOWN_SIZE_M = 0.08
_HAND_M = 0.12
"""The root of the area of a hand's mask, to the wrist: 0.12 to 0.13 m of open and of grasping hands in the rendered scene. Where an object's
pose is not known, lengths at it are measured by the hands in the picture."""

Joints = tuple[np.ndarray, np.ndarray | None]
"""Of one hand: (21, 2) small pixels, and (21, 3) in the camera frame or None."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One object in one frame; `pose` is T_camera_object or None, `why` then says why. `position` counts the clip's processed frames.

    Args:
        depth_error_share: of the pose; None where it is not stated.
        m_per_px: metres of a small pixel at the object's distance; None where neither its pose nor a hand tells.
        touches: of the hands that are seen, from 0 to 1.
        cues: (3,) of the hands at it that have joints, see `_grip.cues`.
        bordered: of the hands at it, see `_grip.bordered`.
    """

    position: int
    frame_index: int
    timestamp_s: float
    pose: np.ndarray | None
    why: Reason | None
    size_m: np.ndarray
    depth_error_share: float | None
    m_per_px: float | None
    touches: dict[Hand, float]
    cues: dict[Hand, np.ndarray]
    bordered: dict[Hand, float]


def joints_of(row: Mapping[str, Any], scale: Scale) -> Joints:
    """The joints of a row of table `hand_pose`."""
    joints_m = row["joints_m"]
    return scale.points(np.asarray(row["joints_px"], np.float64)), None if joints_m is None else np.asarray(joints_m, np.float64)


def moment(
    camera: Camera,
    at: tuple[int, int, float],
    mask: np.ndarray,
    hands: Mapping[Hand, np.ndarray],
    joints: Mapping[Hand, Joints],
    row: dict[str, Any] | None,
    hand_px: float | None,
    reach_m: float,
) -> Moment:
    """What is seen of one object.

    Args:
        camera: takes the small picture.
        at: position, frame index, timestamp.
        mask: (h, w) bool, of the object.
        hands: (h, w) bool, those that are seen.
        joints: of the hands that have any.
        row: the object's pose.
        hand_px: the root of a hand's area, now or before; None where no hand was seen yet.
        reach_m: a hand seen within this distance of the object borders it.
    """
    pose, why = _pose_of(row)
    given = row["dimensions_m"] if row else None
    size = np.full(3, _UNKNOWN_SIZE_M) if given is None else np.asarray(given, np.float64)
    outline = mask if pose is None or given is None else _completed(camera, mask, pose, size)
    depth_m = None if pose is None else float(pose[2, 3])
    m_per_px = depth_m / camera.fx_px if depth_m else _HAND_M / hand_px if hand_px else None
    reach_px = max(reach_m / m_per_px, 1.0) if m_per_px else 1.0
    touches = {hand: touch(hand_mask, outline, reach_px) for hand, hand_mask in hands.items()}
    at_it = [hand for hand in hands if touches[hand] > 0] if mask.any() else []
    body = _hull(mask) if at_it and outline is mask else outline
    grips = {hand: cues(*joints[hand], body, mask, hands[hand], depth_m) for hand in at_it if hand in joints}
    borders = {hand: bordered(hands[hand], mask, reach_px) for hand in at_it}
    depth_error_share = row["depth_error_share"] if row else None
    return Moment(*at, pose, why, size, depth_error_share, m_per_px, touches, grips, borders)


def _completed(camera: Camera, mask: np.ndarray, T_camera_object: np.ndarray, size_m: np.ndarray) -> np.ndarray:
    """The mask (h, w) bool with the outline of the object's bounding cuboid filled in: a hand also touches the part it hides."""
    corners = project(camera, transform(T_camera_object, PROBES * size_m))
    if not np.isfinite(corners).all():
        return mask
    filled = mask.astype(np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.clip(corners, -1e4, 1e4).round().astype(np.int32)), 1)
    return filled.astype(bool)


def _hull(mask: np.ndarray) -> np.ndarray:
    """(h, w) bool, the convex hull of a mask (h, w) bool: what is seen of an object whose pose is not known, and the part between."""
    filled = mask.astype(np.uint8)
    points = cv2.findNonZero(filled)
    if points is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled.astype(bool)


def _pose_of(row: dict[str, Any] | None) -> tuple[np.ndarray | None, Reason | None]:
    if row is None:
        return None, Reason("no_upstream", "the object has no pose: not in object_pose")
    if pose_of(row) is None:
        return None, Reason("no_upstream", f"the object has no pose: {row['reason'] or 'unknown'}")
    pose = standing_pose_of(row)
    return pose, Reason("not_converged", f"the object's pose has not converged: {row['reason'] or 'unknown'}") if pose is None else None
