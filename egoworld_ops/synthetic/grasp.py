"""How a hand holds the cuboid: where the wrist is relative to it, and fingers closed until they touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.synthetic.hand import N_FINGERS, HandPose, flesh, skeleton
from egoworld_ops.synthetic.rigid import Array, rigid

# Degrees; rows thumb, index, middle, ring, little. The thumb's first number is its opposition.
OPEN_DEG = np.array([[12, 6, 6], [8, 10, 6], [7, 10, 6], [8, 11, 7], [10, 12, 8]], float)
READY_DEG = np.array([[48, 4, 4], [6, 18, 12], [5, 18, 12], [6, 20, 12], [8, 22, 14]], float)
CLOSED_DEG = np.array([[80, 34, 34], [40, 80, 56], [40, 80, 56], [42, 82, 56], [46, 84, 58]], float)
_SAMPLES = np.linspace(0.0, 1.0, 6)
_CONTACT_M = 0.0005
_BISECTIONS = 14


@dataclass(frozen=True, slots=True)
class Grasp:
    """A held cuboid: `T_object_wrist` (4, 4) and the fingers' flexion (5, 3) in radians."""

    T_object_wrist: Array
    flex_rad: Array


def cuboid_distance(points_m: Array, dimensions_m: Array) -> Array:
    """Signed distance of points (..., 3) in the cuboid's frame to its surface, metres."""
    beyond = np.abs(points_m) - dimensions_m / 2
    return np.asarray(np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0))


def overhand_grasp(hand: str, dimensions_m: tuple[float, float, float], scale: float) -> Grasp:
    """From above and from the near side, across the cuboid's y: fingers over the far face, thumb at the near one."""
    x_m, y_m, z_m = dimensions_m
    side = -1.0 if hand == "left" else 1.0
    wrist_m = (side * 0.20 * x_m, -y_m / 2 - 0.056, z_m / 2 + 0.026)
    T_object_wrist = rigid(wrist_m, (side * 5.0, 2.0, side * 4.0))
    extents_m = np.asarray(dimensions_m)
    flex_rad = np.stack([_closed_finger(hand, finger, T_object_wrist, extents_m, scale) for finger in range(N_FINGERS)])
    return Grasp(T_object_wrist, flex_rad)


def _closed_finger(hand: str, finger: int, T_object_wrist: Array, extents_m: Array, scale: float) -> Array:
    """Flexion (3,) in radians between ready and closed at which the finger first touches the cuboid."""
    free, touching = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (free + touching) / 2
        if _clearance_m(hand, finger, middle, T_object_wrist, extents_m, scale) > _CONTACT_M:
            free = middle
        else:
            touching = middle
    return np.asarray(np.radians(READY_DEG + free * (CLOSED_DEG - READY_DEG))[finger])


def _clearance_m(hand: str, finger: int, share: float, T_object_wrist: Array, extents_m: Array, scale: float) -> float:
    flex_rad = np.radians(READY_DEG + share * (CLOSED_DEG - READY_DEG))
    pose = HandPose(hand, T_object_wrist, flex_rad, np.zeros(N_FINGERS), np.array([0.0, -1.0, 0.0]), scale)
    bones = flesh(pose, skeleton(pose))
    rows = slice(len(bones.start_m) - 3 * (N_FINGERS - finger), len(bones.start_m) - 3 * (N_FINGERS - finger - 1))
    start, end, radius = bones.start_m[rows, None], bones.end_m[rows, None], bones.radius_m[rows]
    points_m = start + _SAMPLES[:, None] * (end - start)
    radii_m = radius[:, :1] + _SAMPLES * (radius[:, 1:] - radius[:, :1])
    return float((cuboid_distance(points_m, extents_m) - radii_m).min())
