"""Signed distance to smoothly joined capsules, and the tracing of camera rays against it. float32, camera frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from egoworld_ops.synthetic.hand import Capsules
from egoworld_ops.types import Camera
from egoworld_ops.vision.lenses import project, unproject

Floats = np.ndarray
Distance = Callable[[Floats], Floats]
_CHUNK = 8192
_BLOCK_PX = 4
_COARSE_STEPS = 40
_FINE_STEPS = 48
_HIT_M = 2e-4
_LEAST_COSINE = 0.035
_BALLS = 5


@dataclass(frozen=True, slots=True)
class Flesh:
    """Capsules prepared for fast evaluation; build with `prepare`."""

    centre_m: Floats
    start_m: Floats
    along_m: Floats
    per_length2: Floats
    start_along: Floats
    start_norm2: Floats
    radius_m: Floats
    widening_m: Floats
    blend_m: Floats

    def distance(self, points_m: Floats) -> Floats:
        """Signed distance (n,) of points (n, 3); capsules blend by the polynomial smooth minimum (Quilez)."""
        out = np.empty(len(points_m), np.float32)
        for first in range(0, len(points_m), _CHUNK):
            out[first : first + _CHUNK] = self._chunk(points_m[first : first + _CHUNK])
        return out

    def _chunk(self, points_m: Floats) -> Floats:
        p = (points_m - self.centre_m).T
        towards = self.along_m @ p - self.start_along[:, None]
        share = np.clip(towards * self.per_length2[:, None], 0, 1)
        norm2 = (p * p).sum(0) - 2 * (self.start_m @ p) + self.start_norm2[:, None]
        norm2 += share * (share / self.per_length2[:, None] - 2 * towards)
        each = np.sqrt(np.maximum(norm2, 0)) - self.radius_m[:, None] - share * self.widening_m[:, None]
        joined = each[0]
        for row, blend in zip(each[1:], self.blend_m[1:], strict=True):
            melt = np.maximum(blend - np.abs(joined - row), 0)
            joined = np.minimum(joined, row) - melt * melt * (0.25 / blend)
        return np.asarray(joined)


def prepare(capsules: Capsules) -> Flesh:
    """Precompute everything that does not depend on the point."""
    centre = capsules.start_m.mean(0)
    start, along = capsules.start_m - centre, capsules.end_m - capsules.start_m
    parts = (
        centre,
        start,
        along,
        1 / (along**2).sum(1),
        (start * along).sum(1),
        (start**2).sum(1),
        capsules.radius_m[:, 0],
        capsules.radius_m[:, 1] - capsules.radius_m[:, 0],
        capsules.blend_m,
    )
    return Flesh(*(np.asarray(part, np.float32) for part in parts))


def rays(camera: Camera, columns_px: Floats, rows_px: Floats) -> Floats:
    """Ray of each pixel, scaled to depth 1: (..., 3); NaN where the lens shows nothing less than 88 degrees from its axis."""
    if not camera.is_pinhole:
        unit = unproject(camera, np.stack(np.broadcast_arrays(columns_px, rows_px), -1))
        depth = np.where(unit[..., 2] > _LEAST_COSINE, unit[..., 2], np.nan)
        return (unit / depth[..., None]).astype(np.float32)
    x = (columns_px - camera.cx_px) / camera.fx_px
    y = (rows_px - camera.cy_px) / camera.fy_px
    return np.stack([x, y, np.ones_like(x)], -1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Hits:
    """Pixels that see a surface: rows, columns, depth (n,) in metres, points (n, 3) in the camera frame."""

    rows: np.ndarray
    columns: np.ndarray
    depth_m: Floats
    points_m: Floats


def trace(distance: Distance, camera: Camera, bounds: Capsules) -> Hits:
    """Sphere-trace the pixels around `bounds`: blocks of pixels first, as cones, then the pixels of blocks that come near."""
    rows, columns, near_m, far_m = _window(camera, bounds)
    half = (_BLOCK_PX - 1) / 2
    block_rays = rays(camera, columns + half, rows + half)
    cone = _cones(camera, columns + half, rows + half, block_rays)
    depth = np.full(len(rows), near_m, np.float32)
    alive = np.arange(len(rows))
    reached = np.zeros(len(rows), bool)
    for _ in range(_COARSE_STEPS):
        gap = distance(block_rays[alive] * depth[alive, None]) - (cone if camera.is_pinhole else cone[alive]) * depth[alive]
        close = gap < _HIT_M
        reached[alive[close]] = True
        wide = np.linalg.norm(block_rays[alive], axis=1) + (cone if camera.is_pinhole else cone[alive])
        depth[alive] += np.where(close, 0, gap / wide)
        alive = alive[~close & (depth[alive] < far_m)]
        if not len(alive):
            break
    reached[alive] = True
    return _trace_pixels(distance, camera, rows[reached], columns[reached], depth[reached], far_m)


def _cones(camera: Camera, columns_px: Floats, rows_px: Floats, middle: Floats) -> Floats:
    """How far the rays of a block of pixels spread from its middle ray at depth 1: one number for a pinhole, (n,) for another lens."""
    reach = (_BLOCK_PX - 1) / 2 + 1
    if camera.is_pinhole:
        return np.asarray(np.float32(np.sqrt(2) * reach / camera.fx_px))
    corners = [rays(camera, columns_px + dx, rows_px + dy) - middle for dx in (-reach, reach) for dy in (-reach, reach)]
    spread = np.linalg.norm(corners, axis=-1)
    return np.nanmax(np.where(np.isfinite(spread).any(0), spread, 0), axis=0).astype(np.float32)


def _trace_pixels(distance: Distance, camera: Camera, rows: np.ndarray, columns: np.ndarray, depth: Floats, far_m: float) -> Hits:
    offsets = np.arange(_BLOCK_PX)
    shape = (len(rows), _BLOCK_PX, _BLOCK_PX)
    rows = np.broadcast_to(rows[:, None, None] + offsets[:, None], shape).ravel()
    columns = np.broadcast_to(columns[:, None, None] + offsets, shape).ravel()
    depth = np.repeat(depth, _BLOCK_PX * _BLOCK_PX)
    inside = (rows < camera.height) & (columns < camera.width) & (rows >= 0) & (columns >= 0)
    rows, columns, depth = rows[inside], columns[inside], depth[inside]
    pixel_rays = rays(camera, columns, rows)
    lengths = np.linalg.norm(pixel_rays, axis=1)
    hit = np.zeros(len(rows), bool)
    alive = np.arange(len(rows))
    for _ in range(_FINE_STEPS):
        gap = distance(pixel_rays[alive] * depth[alive, None])
        depth[alive] += gap / lengths[alive]
        close = gap < _HIT_M
        hit[alive[close]] = True
        alive = alive[~close & (depth[alive] < far_m)]
        if not len(alive):
            break
    return Hits(rows[hit], columns[hit], depth[hit], pixel_rays[hit] * depth[hit, None])


def _window(camera: Camera, bounds: Capsules) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Top-left pixels of the blocks that may see `bounds`, and the range of depth around it."""
    ends = np.concatenate([bounds.start_m, bounds.end_m])
    radii = np.concatenate([bounds.radius_m[:, 0], bounds.radius_m[:, 1]]) + 0.01
    near_m, far_m = max(0.02, float((ends[:, 2] - radii).min())), float((ends[:, 2] + radii).max())
    z = np.maximum(ends[:, 2], 0.05)
    if camera.is_pinhole:
        u, v = camera.fx_px * ends[:, 0] / z + camera.cx_px, camera.fy_px * ends[:, 1] / z + camera.cy_px
        reach_px = 1.4 * radii / np.maximum(z - radii, 0.04) * camera.fx_px
        low, high = np.array([(u - reach_px).min(), (v - reach_px).min()]), np.array([(u + reach_px).max(), (v + reach_px).max()])
    else:
        low, high = _bounds_px(camera, bounds)
    left, right = np.clip([low[0], high[0]], 0, camera.width - 1)
    top, bottom = np.clip([low[1], high[1]], 0, camera.height - 1)
    rows = np.arange(int(top), int(bottom) + 1, _BLOCK_PX)
    columns = np.arange(int(left), int(right) + 1, _BLOCK_PX)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return grid[0].ravel(), grid[1].ravel(), near_m, far_m


def _bounds_px(camera: Camera, bounds: Capsules) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest pixel (2,) of boxes around many balls along each capsule; the whole picture where one of them is beside the lens."""
    share = np.linspace(0, 1, _BALLS)[:, None, None]
    middles = bounds.start_m + share * (bounds.end_m - bounds.start_m)
    radii = 1.4 * (bounds.radius_m.max(1) + 0.01)
    corners = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    pixels = project(camera, middles[:, :, None] + radii[:, None, None] * corners).reshape(-1, 2)
    if not np.isfinite(pixels).all():
        return np.zeros(2), np.array([camera.width, camera.height]) - 1.0
    return pixels.min(0), pixels.max(0)


def normals(distance: Distance, points_m: Floats, step_m: float = 6e-4) -> Floats:
    """Unit outward normals (n, 3) by the tetrahedron difference (Quilez)."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    gradient = sum(corner * distance(points_m + step_m * corner)[:, None] for corner in corners)
    return np.asarray(gradient / (np.linalg.norm(gradient, axis=1, keepdims=True) + 1e-12), np.float32)
