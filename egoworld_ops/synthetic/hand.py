"""The hand of the synthetic scene: a skeleton of 21 joints, and the capsules that are its flesh.

Hand frame, right hand: origin at the wrist, x towards the little finger, y towards the fingers, z out of the back of
the hand, metres. The left hand is its mirror image in x. Joint order: wrist; thumb CMC, MCP, IP, TIP; index MCP,
PIP, DIP, TIP; middle; ring; little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.synthetic.rigid import Array
from egoworld_ops.vision.geometry import make_transform, transform

N_JOINTS = 21
N_FINGERS = 5
BONES = tuple((0 if j % 4 == 1 else j - 1, j) for j in range(1, N_JOINTS))
_BASES_M = np.array(
    [[-0.028, 0.035, -0.007], [-0.026, 0.107, 0.000], [-0.003, 0.108, 0.002], [0.018, 0.104, 0.000], [0.036, 0.095, -0.004]]
)
_WRIST_M = np.array([0.002, 0.017, 0.0])
_LENGTHS_M = np.array([[0.037, 0.034, 0.028], [0.037, 0.025, 0.022], [0.044, 0.028, 0.023], [0.038, 0.026, 0.022], [0.028, 0.020, 0.019]])
_AIMS_RAD = np.array([-0.60, -0.12, -0.01, 0.10, 0.24])
_THUMB_TWIST_RAD = 0.85
_RADII_M = np.array(
    [
        [0.0150, 0.0118, 0.0100, 0.0088],
        [0.0105, 0.0092, 0.0083, 0.0072],
        [0.0108, 0.0095, 0.0085, 0.0074],
        [0.0102, 0.0090, 0.0080, 0.0070],
        [0.0090, 0.0078, 0.0070, 0.0062],
    ]
)
_PALM_ROOTS_M = np.array([[-0.013, 0.018, -0.003], [-0.011, 0.015, 0], [-0.004, 0.013, 0], [0.005, 0.013, 0], [0.012, 0.015, -0.002]])
_HEEL_M = np.array([[0.0210, 0.0220, -0.0050], [0.0300, 0.0640, -0.0030]])
_PALM_RADII_M = np.array([[0.0165, 0.0155], [0.0165, 0.0125], [0.0170, 0.0130], [0.0170, 0.0125], [0.0165, 0.0115]])
_FOREARM_SKIN_M = 0.065
_WRIST_RADIUS_M = 0.018
_CUFF_M = 0.040
_FINGER_BLEND_M = 0.004
_PALM_BLEND_M = 0.012


@dataclass(frozen=True, slots=True)
class HandPose:
    """One hand at one instant.

    `flex_rad` (5, 3): for the fingers flexion at MCP, PIP, DIP; for the thumb opposition at CMC, flexion at MCP, IP.
    `spread_rad` (5,): abduction of each finger towards the little finger. `elbow_m` (3,): in the world.
    """

    hand: str
    T_world_wrist: Array
    flex_rad: Array
    spread_rad: Array
    elbow_m: Array
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse wrong shapes."""
        for name, shape in (("T_world_wrist", (4, 4)), ("flex_rad", (5, 3)), ("spread_rad", (5,)), ("elbow_m", (3,))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: want {shape}, got {getattr(self, name).shape}")


@dataclass(frozen=True, slots=True)
class Capsules:
    """Rounded cones: ends (n, 3), radii (n, 2) in metres, and the width over which each blends into those before it."""

    start_m: Array
    end_m: Array
    radius_m: Array
    blend_m: Array

    def moved(self, T_dst_src: Array) -> Capsules:
        """The same capsules in another frame."""
        return Capsules(transform(T_dst_src, self.start_m), transform(T_dst_src, self.end_m), self.radius_m, self.blend_m)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Joints (21, 3) of one hand in the world, and per finger joint (5, 4, 3) the direction its nail side faces."""

    joints_m: Array
    dorsal: Array

    @property
    def fingers_m(self) -> Array:
        """Joints as (5 fingers, 4 joints, 3)."""
        return self.joints_m[1:].reshape(N_FINGERS, 4, 3)


def skeleton(pose: HandPose) -> Skeleton:
    """Forward kinematics: joints and dorsal directions in the world."""
    joints = np.zeros((N_JOINTS, 3))
    joints[0] = _WRIST_M
    dorsal = np.zeros((N_FINGERS, 4, 3))
    for finger in range(N_FINGERS):
        chain = _thumb(pose) if finger == 0 else _finger(pose, finger)
        joints[1 + 4 * finger : 5 + 4 * finger], dorsal[finger] = chain
    mirror = np.array([-1.0 if pose.hand == "left" else 1.0, 1.0, 1.0])
    joints *= mirror * pose.scale
    return Skeleton(transform(pose.T_world_wrist, joints), (dorsal * mirror) @ pose.T_world_wrist[:3, :3].T)


def _finger(pose: HandPose, finger: int) -> tuple[Array, Array]:
    aim = _AIMS_RAD[finger] + pose.spread_rad[finger]
    outwards = np.array([np.sin(aim), np.cos(aim), 0.0])
    return _chain(_BASES_M[finger], outwards, np.array([0.0, 0.0, 1.0]), pose.flex_rad[finger], _LENGTHS_M[finger])


def _thumb(pose: HandPose) -> tuple[Array, Array]:
    aim, opposition = _AIMS_RAD[0] + pose.spread_rad[0], pose.flex_rad[0, 0]
    along = np.array([np.sin(aim) * np.cos(opposition), np.cos(aim) * np.cos(opposition), -np.sin(opposition)])
    up = np.array([0.0, 0.0, 1.0]) - along[2] * along
    up /= np.linalg.norm(up)
    radial = np.cross(up, along)
    nail = np.cos(_THUMB_TWIST_RAD) * up + np.sin(_THUMB_TWIST_RAD) * radial
    return _chain(_BASES_M[0], along, nail, np.array([0.0, *pose.flex_rad[0, 1:]]), _LENGTHS_M[0])


def _chain(base_m: Array, along: Array, nail: Array, flex_rad: Array, lengths_m: Array) -> tuple[Array, Array]:
    """Joints (4, 3) and dorsal directions (4, 3) of one finger that bends away from its nail."""
    joints, dorsal, total = [base_m], [], 0.0
    for flex, length in zip(flex_rad, lengths_m, strict=True):
        total += flex
        dorsal.append(np.cos(total) * nail + np.sin(total) * along)
        joints.append(joints[-1] + length * (np.cos(total) * along - np.sin(total) * nail))
    return np.array(joints), np.array([*dorsal, dorsal[-1]])


def flesh(pose: HandPose, bones: Skeleton) -> Capsules:
    """Palm, wrist, bare end of the forearm, then the fingers, as capsules in the world."""
    fingers = bones.fingers_m
    mirror = np.array([-1.0 if pose.hand == "left" else 1.0, 1.0, 1.0]) * pose.scale
    palm_roots = transform(pose.T_world_wrist, _PALM_ROOTS_M * mirror)
    rows = [(root, fingers[f, 0], *_PALM_RADII_M[f], _PALM_BLEND_M) for f, root in enumerate(palm_roots)]
    web = (fingers[0, 0] + fingers[0, 1]) / 2, (palm_roots[1] + fingers[1, 0]) / 2
    rows.append((fingers[0, 0], fingers[1, 0], 0.0100, 0.0095, _PALM_BLEND_M))
    rows.append((*web, 0.0095, 0.0110, _PALM_BLEND_M))
    heel = transform(pose.T_world_wrist, _HEEL_M * mirror)
    rows.append((heel[0], heel[1], 0.0140, 0.0125, _PALM_BLEND_M))
    rows += _wrist_rows(pose)
    for finger, joints in enumerate(fingers):
        radius = _RADII_M[finger]
        rows += [(joints[j], joints[j + 1], radius[j], radius[j + 1], _FINGER_BLEND_M) for j in range(3)]
    start, end, radius_start, radius_end, blend = zip(*rows, strict=True)
    radii = np.stack([radius_start, radius_end], -1) * pose.scale
    return Capsules(np.array(start), np.array(end), radii, np.array(blend))


def _wrist_rows(pose: HandPose) -> list[tuple[Array, Array, float, float, float]]:
    """Two capsules side by side: a forearm is broader than thick."""
    frame = forearm_frame(pose)
    rows = []
    for side in (-0.0085, 0.0085):
        ends = transform(frame, np.array([[side * pose.scale, 0.004, 0.0], [1.2 * side * pose.scale, -_FOREARM_SKIN_M, 0.0]]))
        rows.append((ends[0], ends[1], 0.0168, 0.0190, _PALM_BLEND_M))
    return rows


def forearm_frame(pose: HandPose) -> Array:
    """`T_world_forearm`: origin at the wrist, y from elbow to wrist, z nearest to the back of the hand."""
    wrist_m = pose.T_world_wrist[:3, 3]
    y = wrist_m - pose.elbow_m
    y = y / np.linalg.norm(y)
    z = pose.T_world_wrist[:3, 2] - (pose.T_world_wrist[:3, 2] @ y) * y
    z = z / np.linalg.norm(z)
    return make_transform(np.stack([np.cross(y, z), y, z], 1), wrist_m)


def sleeve(pose: HandPose) -> tuple[Capsules, Array, Array]:
    """Clothed forearm in the world: capsules, and the plane (point, normal) at its cuff; cloth ends where normal begins."""
    frame = forearm_frame(pose)
    length_m = float(np.linalg.norm(pose.T_world_wrist[:3, 3] - pose.elbow_m))
    rows = []
    for side in (-0.0095, 0.0095):
        ends = np.array([[side * pose.scale, 0.0, 0.0], [1.3 * side * pose.scale, -length_m, 0.0]])
        rows.append(transform(frame, ends))
    ends = np.array(rows)
    radii = np.tile(np.array([0.0250, 0.0400]) * pose.scale, (2, 1))
    cuff_m = transform(frame, np.array([0.0, -_CUFF_M * pose.scale, 0.0]))
    return Capsules(ends[:, 0], ends[:, 1], radii, np.full(2, _PALM_BLEND_M)), cuff_m, frame[:3, 1]


def joint_radii_m(scale: float) -> Array:
    """Half the thickness of the flesh at each joint (21,), metres."""
    return np.concatenate([[_WRIST_RADIUS_M], _RADII_M.ravel()]) * scale
