"""Soft shadows of capsules and of one cuboid, for a distant lamp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.synthetic.hand import Capsules
from egoworld_ops.synthetic.rigid import Array
from egoworld_ops.synthetic.sdf import Floats
from egoworld_ops.vision.geometry import invert, transform

_LAMP_RADIUS = 0.10
_SHARPEST_M = 0.003
_CHUNK = 8192
_LAMP_SAMPLES = 12
_GOLDEN_RAD = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True, slots=True)
class Occluders:
    """The objects that cast shadows, in the world; `T_world_cuboid` is None if the cuboid casts none."""

    capsules: list[Capsules]
    T_world_cuboid: Array | None
    dimensions_m: Array


def shadow(points_m: Floats, to_light: Array, occluders: Occluders) -> Floats:
    """Share (n,) of the lamp that is hidden from world points (n, 3)."""
    helper = np.eye(3)[np.argmin(np.abs(to_light))]
    across = np.cross(to_light, helper)
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(to_light, across), to_light], 1)
    local = (points_m @ axes).astype(np.float32)
    hidden = np.zeros(len(points_m), np.float32)
    for capsules in occluders.capsules:
        _cast(hidden, local, capsules.start_m @ axes, capsules.end_m @ axes, capsules.radius_m)
    if occluders.T_world_cuboid is not None:
        hidden = np.maximum(hidden, _cuboid(points_m, axes, occluders.T_world_cuboid, occluders.dimensions_m))
    return hidden


def _cast(hidden: Floats, local: Floats, start: Array, end: Array, radius: Array) -> None:
    """Darken `hidden` in place: each capsule seen along the light is a round-ended bar."""
    low = np.minimum(start, end)[:, :2].min(0) - 0.1
    high = np.maximum(start, end)[:, :2].max(0) + 0.1
    near = np.flatnonzero(((local[:, :2] > low) & (local[:, :2] < high)).all(1))
    along = (end - start).astype(np.float32)
    length2 = np.maximum((along[:, :2] ** 2).sum(1), 1e-9)[:, None]
    start, radius = start.astype(np.float32), radius.astype(np.float32)
    for first in range(0, len(near), _CHUNK):
        where = near[first : first + _CHUNK]
        x, y, z = (local[where, k] - start[:, k : k + 1] for k in range(3))
        share = np.clip((x * along[:, :1] + y * along[:, 1:2]) / length2, 0, 1)
        gap = np.hypot(x - share * along[:, :1], y - share * along[:, 1:2])
        gap -= radius[:, :1] + share * (radius[:, 1:] - radius[:, :1])
        height = share * along[:, 2:] - z
        blur = _SHARPEST_M + _LAMP_RADIUS * np.maximum(height, 0)
        dark = np.where(height > 0, np.clip(0.5 - gap / (2 * blur), 0, 1), 0).max(0)
        hidden[where] = np.maximum(hidden[where], dark)


def _cuboid(points_m: Floats, axes: Array, T_world_cuboid: Array, dimensions_m: Array) -> Floats:
    """Mean over a disc of lamp directions of whether the cuboid is in the way."""
    T_cuboid_world = invert(T_world_cuboid)
    origins = transform(T_cuboid_world, points_m)
    half = dimensions_m / 2
    hidden = np.zeros(len(points_m), np.float32)
    near = np.flatnonzero(np.linalg.norm(origins, axis=1) < 6 * dimensions_m.max())
    for k in range(_LAMP_SAMPLES):
        radius, angle = _LAMP_RADIUS * np.sqrt((k + 0.5) / _LAMP_SAMPLES), k * _GOLDEN_RAD
        direction = T_cuboid_world[:3, :3] @ axes @ np.array([radius * np.cos(angle), radius * np.sin(angle), 1.0])
        first, second = (-half - origins[near]) / direction, (half - origins[near]) / direction
        leave = np.maximum(first, second).min(1)
        hidden[near] += (np.minimum(first, second).max(1) < leave) & (leave > 0)
    return hidden / np.float32(_LAMP_SAMPLES)
