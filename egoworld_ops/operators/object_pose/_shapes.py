"""The shape of an object as a triangulated surface in its own frame: rays onto it, its outline, its visible edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from egoworld_ops.errors import BadSidecar
from egoworld_ops.operators.object_pose._symmetry import NONE, Symmetry, of_mesh, of_turns
from egoworld_ops.video.sidecar import wrong_unit
from egoworld_ops.vision.geometry import box_symmetries

if TYPE_CHECKING:
    import trimesh
    from scipy.spatial import ConvexHull

MAX_TRIANGLES = 600
"""Finer meshes are simplified: a pose needs the outline, not the relief."""
SHARP_COS = 0.87
"""Edges between faces that turn by more than 30 degrees show in the picture."""

MIN_FACE_SHARE = 0.05
_MESH_CURE = "Give a closed triangle mesh in metres (PLY, OBJ, STL, GLB)"
_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


@dataclass(frozen=True)
class Shape:
    """A closed surface.

    Args:
        vertices_m: (V, 3) corners in the object frame, metres.
        triangles: (F, 3) vertex numbers, counter-clockwise seen from outside.
        convex: whether no part of the surface can hide another that faces the camera.
        symmetry: the rotations that map it onto itself.
        scale_source: what fixed its size: `dimensions` or `mesh`.
        extents_m: along its axes, where the vertices are those of a coarser surface.
    """

    vertices_m: np.ndarray
    triangles: np.ndarray
    convex: bool
    symmetry: Symmetry
    scale_source: str
    extents_m: tuple[float, float, float] | None = None

    @cached_property
    def dimensions_m(self) -> np.ndarray:
        """(3,) extents along the object's own axes, metres."""
        return np.ptp(self.vertices_m, axis=0) if self.extents_m is None else np.asarray(self.extents_m)

    @cached_property
    def centre_m(self) -> np.ndarray:
        """(3,) middle of the bounding cuboid in the object frame, metres."""
        return (self.vertices_m.max(0) + self.vertices_m.min(0)) / 2

    @cached_property
    def normals(self) -> np.ndarray:
        """(F, 3) outward unit normals."""
        a, b, c = (self.vertices_m[self.triangles[:, i]] for i in range(3))
        n = np.cross(b - a, c - a)
        return n / np.linalg.norm(n, axis=1, keepdims=True)

    @cached_property
    def offsets_m(self) -> np.ndarray:
        """(F,) distance of each triangle's plane from the origin: n . x = offset."""
        return (self.normals * self.vertices_m[self.triangles[:, 0]]).sum(1)

    @cached_property
    def middles_m(self) -> np.ndarray:
        """(F, 3) middle of each triangle."""
        return np.asarray(self.vertices_m[self.triangles].mean(1))

    @cached_property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """(E, 2) vertex numbers and (E, 2) numbers of the two triangles that meet there."""
        pairs = np.sort(self.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        faces = np.repeat(np.arange(len(self.triangles)), 3)
        unique, inverse, count = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        first = np.concatenate([[0], np.cumsum(count)[:-1]])
        meet = np.stack([faces[order[first]], faces[order[first + np.minimum(count - 1, 1)]]], 1)
        return unique, meet

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """(F, 3) number of the edge along each side of the triangles, and (F, 3) 1 where the triangle runs along it as `edges` has it, else -1."""
        pairs = np.stack([self.triangles, self.triangles[:, [1, 2, 0]]], 2)
        _, number = np.unique(np.sort(pairs.reshape(-1, 2), axis=1), axis=0, return_inverse=True)
        return number.reshape(-1, 3), np.where(pairs[..., 0] < pairs[..., 1], 1.0, -1.0)

    @cached_property
    def sharp(self) -> np.ndarray:
        """(E,) bool: which edges show in the picture as the triangles that meet there turn by enough."""
        _, meet = self.edges
        return np.asarray((self.normals[meet[:, 0]] * self.normals[meet[:, 1]]).sum(1) < SHARP_COS)

    @cached_property
    def _hull(self) -> ConvexHull:
        from scipy.spatial import ConvexHull

        return ConvexHull(self.vertices_m)

    @cached_property
    def hull(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Convex hull: (H, 3) corners in metres, and per hull face its area in square metres and its (3,) normal."""
        hull = self._hull
        a, b, c = (self.vertices_m[hull.simplices[:, i]] for i in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
        return self.vertices_m[hull.vertices], area, hull.equations[:, :3]

    @cached_property
    def flat_faces(self) -> list[Sheet]:
        """Flat sides of the convex hull that make up a good part of it; none where it is round all over."""
        hull = self._hull
        _, area, normals = self.hull
        sides = np.round(np.column_stack([normals, hull.equations[:, 3] / float(self.dimensions_m.max())]), 3)
        _, side = np.unique(sides, axis=0, return_inverse=True)
        side = side.ravel()
        total = np.bincount(side, area)
        return [
            _sheet(self.vertices_m[np.unique(hull.simplices[side == i])], normals[side == i][0], float(total[i]))
            for i in np.flatnonzero(total > MIN_FACE_SHARE * total.sum())
        ]

    def cast(self, origin_m: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rays (N, 3) from one origin (3,), object frame, first meet the surface.

        Returns (N,) triangle numbers, -1 where a ray misses, and (N,) multiples of the ray, infinite there. Moeller and Trumbore, 1997.
        """
        a = self.vertices_m[self.triangles[:, 0]]
        e1, e2 = self.vertices_m[self.triangles[:, 1]] - a, self.vertices_m[self.triangles[:, 2]] - a
        s = origin_m - a
        q = np.cross(s, e1)
        facing = -(rays @ np.cross(e1, e2).T)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(facing > 1e-15, 1 / facing, np.nan)
            u, v = (rays @ np.cross(e2, s).T) * inverse, (rays @ q.T) * inverse
            far = (e2 * q).sum(1) * inverse
        hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (far > 0)
        far = np.where(hit, far, np.inf)
        face = far.argmin(1)
        nearest = far[np.arange(len(rays)), face]
        return np.where(np.isfinite(nearest), face, -1), nearest


@dataclass(frozen=True, slots=True)
class Sheet:
    """One flat side by itself: a thin surface with a front and a back, its outward normal (3,), its area in square metres."""

    surface: Shape
    normal: np.ndarray
    area_m2: float


def _sheet(corners_m: np.ndarray, normal: np.ndarray, area_m2: float) -> Sheet:
    """A convex flat side from its corners (n, 3) in any order."""
    spokes = corners_m - corners_m.mean(0)
    x = spokes[0] / np.linalg.norm(spokes[0])
    ordered = corners_m[np.argsort(np.arctan2(spokes @ np.cross(normal, x), spokes @ x))]
    fan = np.array([(0, i, i + 1) for i in range(1, len(ordered) - 1)])
    return Sheet(Shape(ordered, np.concatenate([fan, fan[:, ::-1]]), True, NONE, "dimensions"), normal, area_m2)


def cuboid(dimensions_m: tuple[float, float, float]) -> Shape:
    """A box centred on its origin. Its symmetries are the half turns about its axes, and quarter turns where two sides are equal."""
    size = np.asarray(dimensions_m, np.float64)
    triangles = np.array([t for q in _QUADS for t in ((q[0], q[1], q[2]), (q[0], q[2], q[3]))])
    return Shape(_CORNERS * size, triangles, True, of_turns(box_symmetries(size)), "dimensions")


def read_mesh(path: Path) -> Shape:
    """The shape in a mesh file, metres, in the file's own frame.

    Raises:
        BadSidecar: the file holds no surface.
    """
    mesh = load_mesh(path, path)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    symmetry = of_mesh(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))
    vertices, triangles = _coarser(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))
    if float(np.ptp(vertices, axis=0).min()) <= 0:
        raise BadSidecar(path, "the mesh is flat", _MESH_CURE)
    x_m, y_m, z_m = np.ptp(mesh.vertices, axis=0).tolist()
    return Shape(vertices, triangles, bool(mesh.is_convex), symmetry, "mesh", (x_m, y_m, z_m))


def load_mesh(source: Path | BinaryIO, path: Path) -> trimesh.Trimesh:
    """The mesh of a file, or of its content alone, which cannot lead to other files; in the file's own frame, metres.

    Args:
        source: the file or its content.
        path: the file, whose name says the format.

    Raises:
        BadSidecar: it holds no surface, or is of a size that no hand-held thing has in metres.
    """
    import trimesh

    try:
        mesh = trimesh.load(source, file_type=path.suffix.lower().removeprefix(".") or None, force="mesh", process=True)
    except Exception as error:  # the readers behind trimesh raise errors of any type
        raise BadSidecar(path, f"the mesh cannot be read: {error}", _MESH_CURE) from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) < 4 or not np.isfinite(mesh.vertices).all() or not mesh.area > 0:
        raise BadSidecar(path, "the mesh holds no surface", _MESH_CURE)
    if wrong := wrong_unit(tuple(map(float, mesh.extents))):
        raise BadSidecar(path, f"the mesh is {float(mesh.extents.max()):g} m long, no hand-held thing is", f"Scale the mesh. {wrong}")
    return mesh


def _coarser(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_TRIANGLES, by merging the vertices of a cell of a grid (Rossignac and Borrel, 1993), coarser until they are few enough.

    The middle of what was merged lies within what is round: the outline is kept as large as it was.
    """
    if len(triangles) <= MAX_TRIANGLES:
        return vertices, triangles
    low, size, cells = vertices.min(0), float(np.ptp(vertices, axis=0).max()), 64
    merged, faces = vertices, triangles
    while len(faces) > MAX_TRIANGLES and cells >= 2:
        cell = np.floor((vertices - low) / size * cells).astype(np.int64)
        _, owner = np.unique(cell, axis=0, return_inverse=True)
        owner = owner.ravel()
        merged = np.stack([np.bincount(owner, vertices[:, i]) / np.bincount(owner) for i in range(3)], 1)
        faces = owner[triangles]
        distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
        rolled = np.take_along_axis(faces, (faces.argmin(1)[:, None] + np.arange(3)) % 3, 1)
        faces = np.unique(rolled[distinct], axis=0)
        cells = int(cells / 1.4)
    area = np.linalg.norm(np.cross(merged[faces[:, 1]] - merged[faces[:, 0]], merged[faces[:, 2]] - merged[faces[:, 0]]), axis=1)
    return _as_large(merged, vertices), faces[area > 1e-14]


def _as_large(vertices: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Vertices (V, 3) about the middle of others (N, 3), scaled until their convex hull has as large an outline, on average over all views.

    That outline has a quarter of the hull's area (Cauchy). What is flat is left as it is.
    """
    from scipy.spatial import ConvexHull, QhullError

    try:
        share = np.sqrt(ConvexHull(others).area / ConvexHull(vertices).area)
    except QhullError:
        return vertices
    middle, middle_of_others = (np.add(points.max(0), points.min(0)) / 2 for points in (vertices, others))
    large: np.ndarray = middle_of_others + (vertices - middle) * share
    return large
