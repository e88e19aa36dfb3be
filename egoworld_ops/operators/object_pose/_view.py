"""Seeing a shape from a pose: pixels, outline, visible edges, points lifted from pixels; and small steps of a pose.

A step is (6,): a rotation vector about the object's own origin, in camera axes, then a shift in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, project, transform

PAINTED_PX = 160
BESIDE = 2.0
"""Pixels of a painting, beside an edge, at which the shape must end if the edge is outline."""
FEW_TRIANGLES = 100
"""Shapes of so few triangles are cast rays at; the others are painted."""


def step(T_camera_object: np.ndarray, move: np.ndarray) -> np.ndarray:
    """The pose after a step (6,)."""
    return make_transform(cv2.Rodrigues(move[:3])[0] @ T_camera_object[:3, :3], T_camera_object[:3, 3] + move[3:])


def project_with_jacobian(camera: Camera, T_camera_object: np.ndarray, points_object_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) and their derivative (N, 2, 6) with respect to a step."""
    turned = points_object_m @ T_camera_object[:3, :3].T
    return project(camera, turned + T_camera_object[:3, 3]), jacobian(camera, turned, turned + T_camera_object[:3, 3])


def jacobian(camera: Camera, turned_m: np.ndarray, points_camera_m: np.ndarray) -> np.ndarray:
    """Derivative (N, 2, 6) of the pixels of points (N, 3); `turned_m` are the points less the object's position."""
    d = pixel_derivative(camera, points_camera_m)
    across, along, down, away = d[:, 0, 0], d[:, 0, 2], d[:, 1, 1], d[:, 1, 2]
    x, y, z = turned_m.T
    J = np.empty((len(turned_m), 2, 6))
    J[:, :, 3:] = d
    J[:, 0, 0], J[:, 0, 1], J[:, 0, 2] = y * along, z * across - x * along, -y * across
    J[:, 1, 0], J[:, 1, 1], J[:, 1, 2] = y * away - z * down, -x * away, x * down
    return J


def pixel_derivative(camera: Camera, points_camera_m: np.ndarray) -> np.ndarray:
    """Derivative (N, 2, 3) of the pixel with respect to the point."""
    x, y, z = points_camera_m.T
    across, down = camera.fx_px / z, camera.fy_px / z
    d = np.zeros((len(points_camera_m), 2, 3))
    d[:, 0, 0], d[:, 1, 1] = across, down
    d[:, 0, 2], d[:, 1, 2] = -across * x / z, -down * y / z
    return d


def rays(camera: Camera, points_px: np.ndarray) -> np.ndarray:
    """Directions (N, 3) with z = 1 in the camera frame."""
    x = (points_px[:, 0] - camera.cx_px) / camera.fx_px
    y = (points_px[:, 1] - camera.cy_px) / camera.fy_px
    return np.stack([x, y, np.ones(len(points_px))], 1)


@dataclass(frozen=True, slots=True)
class Painting:
    """Which triangle is seen where: picture (h, w) of triangle numbers plus one, 0 beside the shape; pixel p is at (p - low_px) * scale."""

    faces: np.ndarray
    low_px: np.ndarray
    scale: float

    def at(self, points_px: np.ndarray) -> np.ndarray:
        """(N,) triangle numbers, -1 beside the shape."""
        column, row = np.round((points_px - self.low_px) * self.scale).astype(int).T
        inside = (row >= 0) & (row < self.faces.shape[0]) & (column >= 0) & (column < self.faces.shape[1])
        return np.where(inside, self.faces[np.where(inside, row, 0), np.where(inside, column, 0)].astype(np.int64) - 1, -1)

    def ends_beside(self, samples: EdgeSamples) -> np.ndarray:
        """(N,) bool: whether the shape ends on one side of a sample."""
        beside = samples.normals * (BESIDE / self.scale)
        return np.asarray((self.at(samples.pixels + beside) < 0) | (self.at(samples.pixels - beside) < 0))


def paint(camera: Camera, shape: Shape, T_camera_object: np.ndarray) -> Painting | None:
    """Triangles that face the camera, painted from back to front; None where part of the shape is behind the camera."""
    corners = transform(T_camera_object, shape.vertices_m)
    if corners[:, 2].min() <= 1e-3:
        return None
    pixels = project(camera, corners)
    low, scale = _frame_of(pixels)
    eye = -T_camera_object[:3, :3].T @ T_camera_object[:3, 3]
    front = np.flatnonzero(shape.normals @ eye > shape.offsets_m)
    front = front[np.argsort(-((shape.middles_m[front] - eye) ** 2).sum(1))]
    picture = np.zeros((PAINTED_PX + 2, PAINTED_PX + 2), np.int32)
    for number, triangle in zip(
        (front + 1).tolist(), ((pixels - low) * scale * 16).round().astype(np.int32)[shape.triangles[front]], strict=True
    ):
        cv2.fillConvexPoly(picture, triangle, number, shift=4)
    return Painting(picture, low, scale)


def _frame_of(corners_px: np.ndarray) -> tuple[np.ndarray, float]:
    """The place (2,) of a painting's first pixel, and its pixels per pixel of the image."""
    return corners_px.min(0), PAINTED_PX / max(float(np.ptp(corners_px, axis=0).max()), 1e-6)


def lift(camera: Camera, shape: Shape, T_camera_object: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle numbers (N,), -1 beside the object, and points (N, 3) in the object frame where rays of pixels meet it."""
    R, t = T_camera_object[:3, :3], T_camera_object[:3, 3]
    origin, directions = -R.T @ t, rays(camera, points_px) @ R
    if len(shape.triangles) <= FEW_TRIANGLES:
        face, far = shape.cast(origin, directions)
    else:
        painting = paint(camera, shape, T_camera_object)
        face = np.full(len(points_px), -1) if painting is None else painting.at(points_px)
        far = _reach(shape, face, origin, directions)
        face = np.where(np.isfinite(far) & (far > 0), face, -1)
    return face, origin + directions * np.where(face >= 0, far, 0)[:, None]


def _reach(shape: Shape, face: np.ndarray, origin_m: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(N,) multiples of rays (N, 3) from one origin, object frame, at which they meet the plane of a triangle, but no nearer or farther than that."""
    n = shape.normals[face]
    with np.errstate(divide="ignore", invalid="ignore"):
        far = (shape.offsets_m[face] - n @ origin_m) / (n * directions).sum(1)
    along = ((shape.vertices_m[shape.triangles[face]] - origin_m) * directions[:, None]).sum(2) / (directions**2).sum(1)[:, None]
    return np.clip(np.nan_to_num(far, nan=np.inf), along.min(1), along.max(1))


@dataclass(frozen=True, slots=True)
class EdgeSamples:
    """Points on the visible edges: (N, 3) object frame, pixels (N, 2), unit normals (N, 2) of the edge, and whether it is outline."""

    points_m: np.ndarray
    pixels: np.ndarray
    normals: np.ndarray
    outline: np.ndarray


def edge_samples(
    camera: Camera, shape: Shape, T_camera_object: np.ndarray, spacing_px: float, outline_alone: bool = False
) -> EdgeSamples | None:
    """Sample the outline and the sharp visible edges about every `spacing_px`; None where part of the shape is behind the camera."""
    corners = transform(T_camera_object, shape.vertices_m)
    if corners[:, 2].min() <= 1e-3:
        return None
    front = _faces_camera(shape, T_camera_object)
    ends, meet = shape.edges
    one, other = front[meet[:, 0]], front[meet[:, 1]]
    outline = one != other
    shown = outline if outline_alone else outline | (one & other & shape.sharp)
    ends, outline = ends[shown], outline[shown]
    pixels = project(camera, corners)
    start, way = pixels[ends[:, 0]], pixels[ends[:, 1]] - pixels[ends[:, 0]]
    length = np.hypot(way[:, 0], way[:, 1])
    count = np.maximum((length / spacing_px).astype(int), 0)
    count[length > spacing_px / 2] = np.maximum(count[length > spacing_px / 2], 1)
    owner = np.repeat(np.arange(len(ends)), count)
    if len(owner) == 0:
        return None
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    share = (rank + 0.5) / count[owner]
    za, zb = corners[ends[owner, 0], 2], corners[ends[owner, 1], 2]
    along = share * za / (share * za + (1 - share) * zb)
    a, b = shape.vertices_m[ends[owner, 0]], shape.vertices_m[ends[owner, 1]]
    normal = np.stack([-way[owner, 1], way[owner, 0]], 1) / length[owner, None]
    made = EdgeSamples(a + along[:, None] * (b - a), start[owner] + share[:, None] * way[owner], normal, outline[owner])
    if shape.convex:
        return made
    return _at_rim(shape, front, pixels, made) if outline_alone else _not_hidden(camera, shape, T_camera_object, made)


def _at_rim(shape: Shape, front: np.ndarray, corners_px: np.ndarray, samples: EdgeSamples) -> EdgeSamples | None:
    """Only the samples beside which the shape ends: what a nearer part covers is not among them. For outlines alone, as nothing is painted."""
    low, scale = _frame_of(corners_px)
    whole = Painting(_within((corners_px - low) * scale, *_border(shape, front), (PAINTED_PX + 2,) * 2), low, scale)
    ends = whole.ends_beside(samples)
    if not ends.any():
        return None
    return EdgeSamples(samples.points_m[ends], samples.pixels[ends], samples.normals[ends], samples.outline[ends])


def _not_hidden(camera: Camera, shape: Shape, T_camera_object: np.ndarray, samples: EdgeSamples) -> EdgeSamples | None:
    """Only the samples that no nearer part of the shape covers; of these, outline is where the shape ends on one side."""
    painting = paint(camera, shape, T_camera_object)
    if painting is None:
        return None
    origin = -T_camera_object[:3, :3].T @ T_camera_object[:3, 3]
    towards = samples.points_m - origin
    if len(shape.triangles) <= FEW_TRIANGLES:
        face, far = shape.cast(origin, towards)
    else:
        face = painting.at(samples.pixels)
        far = _reach(shape, face, origin, towards)
    slack = 0.02 * float(shape.dimensions_m.max()) / float(np.linalg.norm(T_camera_object[:3, 3]))
    seen = (face < 0) | (far > 1 - slack)
    if not seen.any():
        return None
    outline = samples.outline & painting.ends_beside(samples)
    return EdgeSamples(samples.points_m[seen], samples.pixels[seen], samples.normals[seen], outline[seen])


def silhouette(
    camera: Camera, shape: Shape, T_camera_object: np.ndarray, size: tuple[int, int], scale: float, shift_px: np.ndarray
) -> np.ndarray:
    """(h, w) uint8 picture, 1 where the middle of a pixel is on the shape: image pixels p appear at (p - shift_px) * scale."""
    corners = transform(T_camera_object, shape.vertices_m)
    if corners[:, 2].min() <= 1e-3:
        return np.zeros(size, np.uint8)
    ends, along = _border(shape, _faces_camera(shape, T_camera_object))
    return _within((project(camera, corners) - shift_px) * scale, ends, along, size)


def _faces_camera(shape: Shape, T_camera_object: np.ndarray) -> np.ndarray:
    """(F,) bool."""
    return np.asarray(shape.normals @ (-T_camera_object[:3, :3].T @ T_camera_object[:3, 3]) > shape.offsets_m)


def _border(shape: Shape, front: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the triangles chosen (F,), the edges (E, 2) at which they end, and how often (E,) these are passed from first to second end, less back."""
    number, way = shape.sides
    times = np.bincount(number[front].ravel(), way[front].ravel(), len(shape.edges[0]))
    ends = np.flatnonzero(times)
    return shape.edges[0][ends], times[ends]


def _within(corners_px: np.ndarray, ends: np.ndarray, times: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8, 1 where closed lines along edges (E, 2) of corners (V, 2) wind about the middle of a pixel, however many lie there."""
    picture = np.zeros(size, np.uint8)
    low = np.ceil(corners_px.min(0)).clip(0, size[::-1]).astype(int)
    w, h = np.ceil(corners_px.max(0)).clip(low, size[::-1]).astype(int) - low
    (xa, xb), (ya, yb) = (corners_px - low).T[:, ends.T]
    top, bottom = (np.ceil(edge(ya, yb)).clip(0, h).astype(np.int64) for edge in (np.minimum, np.maximum))
    count = bottom - top
    owner = np.repeat(np.arange(len(ends)), count)
    row = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count - top, count)
    slope = (xb - xa) / np.where(ya == yb, 1.0, yb - ya)
    column = np.ceil(xa[owner] + (row - ya[owner]) * slope[owner]).clip(0, w).astype(np.int64)
    turns = np.zeros((h, w + 1), np.int8)
    np.add.at(turns.reshape(-1), row * (w + 1) + column, (np.sign(yb - ya) * times).astype(np.int8)[owner])
    picture[low[1] : low[1] + h, low[0] : low[0] + w] = turns.cumsum(1, np.int8)[:, :w] != 0
    return picture
