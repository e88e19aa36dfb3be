"""Poses from angles, and interpolation between two poses: 4x4 float64 matrices, metres."""

from __future__ import annotations

import numpy as np

from egoworld_ops.vision.geometry import make_transform

Array = np.ndarray


def rotation_about(axis: int, angle_rad: float) -> Array:
    """Right-handed rotation (3, 3) about coordinate axis 0, 1 or 2."""
    rotation = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation[i, i] = rotation[j, j] = np.cos(angle_rad)
    rotation[j, i] = np.sin(angle_rad)
    rotation[i, j] = -rotation[j, i]
    return rotation


def rigid(position_m: Array | tuple[float, float, float], yaw_pitch_roll_deg: tuple[float, float, float]) -> Array:
    """Build (4, 4) from a position and angles about z, then x, then y (intrinsic)."""
    yaw, pitch, roll = np.radians(yaw_pitch_roll_deg)
    return make_transform(rotation_about(2, yaw) @ rotation_about(0, pitch) @ rotation_about(1, roll), np.asarray(position_m))


def rotation_vector(rotation: Array) -> Array:
    """Axis times angle (3,) of a rotation whose angle is below pi."""
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1, 1)
    angle_rad = float(np.arccos(cosine))
    skew = rotation - rotation.T
    axis = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    return axis / 2 if angle_rad < 1e-9 else axis * angle_rad / (2 * np.sin(angle_rad))


def rotation_from_vector(vector: Array) -> Array:
    """Rodrigues' formula: axis times angle (3,) to (3, 3)."""
    angle_rad = float(np.linalg.norm(vector))
    if angle_rad < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle_rad
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle_rad) * cross + (1 - np.cos(angle_rad)) * cross @ cross)


def between(T_a: Array, T_b: Array, share: float) -> Array:
    """Rigid motion `share` of the way from `T_a` (0) to `T_b` (1): straight line, constant-axis turn."""
    turn = rotation_vector(T_a[:3, :3].T @ T_b[:3, :3])
    rotation = T_a[:3, :3] @ rotation_from_vector(share * turn)
    return make_transform(rotation, (1 - share) * T_a[:3, 3] + share * T_b[:3, 3])
