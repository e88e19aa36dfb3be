"""A room of textured rectangles seen by a moving camera: fast pictures with an exact path, for what reconstructs the camera. No hands.

World frame: z up, the table's top at z = 0; the room is seen from its front, y negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from egoworld_ops.synthetic import surfaces
from egoworld_ops.synthetic.rigid import Array
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert

_NOISE_RGB = 1.3
_CELLS_PER_M = 30.0
"""Of the coarsest octave of the texture."""
_PSF = (0.2, 0.6, 0.2)
_PLAIN_GREY, _DARK_GREY = 150.0, 40.0
_TEXEL_M = 0.003
_EDGE_ON = 1e-9
"""Determinant below which a patch is seen along its plane."""
_NEAREST_M = 0.02
_BOXES = (((-0.28, 0.10), (0.16, 0.12, 0.10)), ((0.12, 0.22), (0.14, 0.16, 0.18)), ((0.25, -0.05), (0.10, 0.10, 0.06)))
"""Centre (x, y) and size of the boxes on the table, metres."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle: corner (3,), edges (3,) at right angles, metres; `texture` tells patches apart, None is plain."""

    corner_m: tuple[float, float, float]
    edge_u_m: tuple[float, float, float]
    edge_v_m: tuple[float, float, float]
    texture: int | None


def room(plain_table: bool = False, plain_walls: bool = False) -> tuple[Patch, ...]:
    """Table, floor, two walls, and three boxes on the table."""
    table, wall = (None if plain_table else 1), (None if plain_walls else 2)
    patches = [
        Patch((-0.7, -0.5, 0.0), (1.4, 0, 0), (0, 1.1, 0), table),
        Patch((-1.6, -1.2, -0.72), (3.2, 0, 0), (0, 2.4, 0), wall and 3),
        Patch((-1.6, 1.2, -0.72), (3.2, 0, 0), (0, 0, 2), wall),
        Patch((-1.6, -1.2, -0.72), (0, 2.4, 0), (0, 0, 2), wall and 4),
    ]
    for number, ((x, y), (w, d, h)) in enumerate(_BOXES):
        x0, y0, texture = x - w / 2, y - d / 2, 10 + 5 * number
        patches += [
            Patch((x0, y0, h), (w, 0, 0), (0, d, 0), texture),
            Patch((x0, y0, 0), (w, 0, 0), (0, 0, h), texture + 1),
            Patch((x0, y0 + d, 0), (w, 0, 0), (0, 0, h), texture + 2),
            Patch((x0, y0, 0), (0, d, 0), (0, 0, h), texture + 3),
            Patch((x0 + w, y0, 0), (0, d, 0), (0, 0, h), texture + 4),
        ]
    return tuple(patches)


def looking(eye_m: Sequence[float], target_m: Sequence[float]) -> Array:
    """`T_world_camera` of a level camera at `eye_m` that looks at `target_m`."""
    z = np.subtract(target_m, eye_m)
    z = z / np.linalg.norm(z)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x = x / np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.stack([x, np.cross(z, x), z], 1), eye_m
    return T


def render_room(
    camera: Camera, T_world_camera: Array, patches: Sequence[Patch], seed: int, frame_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H, W, 3) uint8, and which patch each pixel sees (H, W), -1 where none."""
    size = camera.height, camera.width
    depth, seen, grey = np.full(size, np.inf, np.float32), np.full(size, -1), np.full(size, _DARK_GREY, np.float32)
    for number, patch in enumerate(patches):
        texture = _texture(seed, patch)
        H = camera.K @ invert(T_world_camera)[:3] @ _of_texels(patch, texture.shape)  # texel (column, row, 1) to w (u, v, 1)
        if abs(np.linalg.det(H)) < _EDGE_ON:
            continue
        column, row, nearness = _linear(np.linalg.inv(H), size)  # of the pixel (u, v, 1): (column, row, 1) / w
        with np.errstate(divide="ignore"):
            w = 1 / nearness
        x, y = column * w, row * w
        here = (w > _NEAREST_M) & (w < depth) & (x >= -0.5) & (y >= -0.5) & (x <= texture.shape[1] - 0.5) & (y <= texture.shape[0] - 0.5)
        if here.any():
            painted = cv2.warpPerspective(texture, H, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            depth[here], seen[here], grey[here] = w[here], number, painted[here]
    rgb = surfaces.blurred(np.repeat(grey[..., None], 3, 2), _PSF)
    rgb += np.float32(_NOISE_RGB) * np.random.default_rng([seed, 5, frame_index]).standard_normal(rgb.shape, dtype=np.float32)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), seen


def _of_texels(patch: Patch, shape: tuple[int, ...]) -> Array:
    """(4, 3) from texel (column, row, 1) to the homogeneous point of the world."""
    along, down = np.array(patch.edge_u_m) / shape[1], np.array(patch.edge_v_m) / shape[0]
    corner = np.array(patch.corner_m) + 0.5 * (along + down)
    return np.vstack([np.stack([along, down, corner], 1), [0, 0, 1]])


def _linear(A: Array, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three rows of A (3, 3) times (u, v, 1), each (H, W) float32."""
    v, u = np.arange(size[0])[:, None], np.arange(size[1])[None]
    first, second, third = ((r[0] * u + (r[1] * v + r[2])).astype(np.float32) for r in A)
    return first, second, third


@lru_cache(maxsize=64)
def _texture(seed: int, patch: Patch) -> np.ndarray:
    """Blotches of several sizes, of high contrast: (rows, columns) float32 of the whole patch."""
    columns, rows = (max(2, round(float(np.linalg.norm(edge)) / _TEXEL_M)) for edge in (patch.edge_u_m, patch.edge_v_m))
    if patch.texture is None:
        return np.full((rows, columns), _PLAIN_GREY, np.float32)
    noise = surfaces.Noise(np.random.default_rng([seed, 9, patch.texture]))
    b, a = np.mgrid[0:rows, 0:columns] * (_TEXEL_M * _CELLS_PER_M)
    return np.asarray(30 + 190 / (1 + np.exp(-14 * (noise.octaves(a, b, 3) - 0.5))), np.float32)
