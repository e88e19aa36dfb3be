"""The mesh of an object with its colours, as it is rendered: all its faces, about the middle of its box."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from egoworld_ops.errors import BadSidecar
from egoworld_ops.operators.object_pose._shapes import load_mesh
from egoworld_ops.operators.object_pose._symmetry import NONE, Symmetry, of_mesh, of_turns, surface_points
from egoworld_ops.vision.geometry import make_transform, rotations, transform

if TYPE_CHECKING:
    import trimesh

PLAIN = (0.5, 0.5, 0.5)
"""The colour of what has none."""
SAME_COLOUR = 0.1
"""Colours of a turned surface are the same if they differ by less than this on average, of 1."""
_BY_TURN_RAD = (0.7, np.pi / 2, 2.3, np.pi)
_ELSEWHERE = {".obj": b"\nmtllib ", ".ply": b"\ncomment TextureFile "}
"""How a file says that its colours are in others."""
_SAMPLES = 2000
_DIRECTIONS = 100


@dataclass(frozen=True)
class PaintedMesh:
    """Triangles with colours.

    Args:
        vertices_m: (V, 3) float32 about the middle of the mesh's box.
        triangles: (F, 3) int32 vertex numbers.
        normals: (V, 3) float32 unit normals; which side is outside does not matter.
        corner_colours: (F, 3, 3) float32, RGB 0 to 1 of each triangle's corners; white where there is a texture.
        corner_uv: (F, 3, 2) float32 places in the texture, (0, 0) at its lower left; zeros where there is none.
        texture: (h, w, 3) float32, RGB 0 to 1; one white pixel where there is none.
        centre_m: (3,) float64 the middle of the mesh's box in the object frame.
        diameter_m: largest distance of two vertices.
        symmetry: the rotations that leave it as it is, colours included.
    """

    vertices_m: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray
    corner_colours: np.ndarray
    corner_uv: np.ndarray
    texture: np.ndarray
    centre_m: np.ndarray
    diameter_m: float
    symmetry: Symmetry

    @property
    def dimensions_m(self) -> np.ndarray:
        """(3,) extents along the object's own axes."""
        return np.ptp(self.vertices_m, axis=0)

    def equal_nearest_to(self, T_camera_object: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Of the poses (4, 4) that no picture can tell from this one that whose rotation is nearest to another's."""
        R = self.symmetry.equal_nearest_to(T_camera_object[:3, :3], wanted[:3, :3])
        return make_transform(R, transform(T_camera_object, self._middle_m) - R @ self._middle_m)

    @cached_property
    def _middle_m(self) -> np.ndarray:
        """(3,) middle of the surface in the object frame: symmetries leave it where it is."""
        a, b, c = (self.vertices_m[self.triangles[:, i]].astype(np.float64) for i in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        return np.asarray(area @ (a + b + c) / (3 * area.sum()) + self.centre_m)


def read_painted_mesh(path: Path) -> PaintedMesh:
    """The mesh of a file that holds its colours itself (PLY, GLB, STL without colours, OBJ without materials).

    Raises:
        BadSidecar: the file holds no surface, is in another unit than metres, or has its colours in other files: these are not read, as what a
            result depends on is in its digest.
    """
    content = path.read_bytes()
    header = content.partition(b"end_header")[0] if content.startswith(b"ply") else content
    if (said := _ELSEWHERE.get(path.suffix.lower())) and said in b"\n" + header:
        cure = "Save the mesh as GLB, which holds its colours; trimesh does: trimesh.load('mesh.obj').export('mesh.glb')"
        raise BadSidecar(path, "its colours are in other files, which are not read", cure)
    return of_trimesh(load_mesh(io.BytesIO(content), path))


def of_trimesh(mesh: trimesh.Trimesh) -> PaintedMesh:
    """A mesh in metres, ready to be rendered."""
    vertices, triangles = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int32)
    centre_m = (vertices.max(0) + vertices.min(0)) / 2
    colours, uv, texture = _paint(mesh)
    painted = PaintedMesh(
        (vertices - centre_m).astype(np.float32),
        triangles,
        np.array(mesh.vertex_normals, np.float32),
        colours,
        uv,
        texture,
        centre_m,
        diameter(vertices),
        of_mesh(vertices, triangles.astype(np.int64)),
    )
    return replace(painted, symmetry=_symmetry_with_colours(painted))


def diameter(points: np.ndarray) -> float:
    """Largest distance of two of the points (N, 3): of those farthest out in many directions, and then of any that are farther from these."""
    i = np.arange(_DIRECTIONS) + 0.5
    z, around = 1 - 2 * i / _DIRECTIONS, np.pi * (1 + np.sqrt(5)) * i
    across = np.sqrt(1 - z**2)
    directions = np.stack([across * np.cos(around), across * np.sin(around), z], 1)
    outer = points[np.unique([int((points @ direction).argmax()) for direction in directions])]
    apart = np.linalg.norm(outer[:, None] - outer, axis=2)
    here, longest = outer[np.unravel_index(apart.argmax(), apart.shape)[0]], float(apart.max())
    while (distances := np.linalg.norm(points - here, axis=1)).max() > longest:
        here, longest = points[distances.argmax()], float(distances.max())
    return longest


def _paint(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corner colours, corner places in the texture, and the texture, as `PaintedMesh` has them."""
    faces = np.asarray(mesh.faces)
    visual: Any = mesh.visual
    plain, nowhere, white = _all(PLAIN, faces), np.zeros((len(faces), 3, 2), np.float32), np.ones((1, 1, 3), np.float32)
    if visual.kind == "texture":
        image, factor = _material(visual.material)
        if image is not None and visual.uv is not None:
            return _all(factor, faces), np.asarray(visual.uv, np.float32)[faces], image
        return _all(factor, faces), nowhere, white
    if visual.kind == "vertex":
        return _unit(visual.vertex_colors)[faces], nowhere, white
    return (np.repeat(_unit(visual.face_colors)[:, None], 3, 1) if visual.kind == "face" else plain), nowhere, white


def _all(colour: Sequence[float] | np.ndarray, faces: np.ndarray) -> np.ndarray:
    return np.tile(np.asarray(colour, np.float32), (len(faces), 3, 1))


def _material(material: Any) -> tuple[np.ndarray | None, Sequence[float] | np.ndarray]:
    """The picture of a material, if it has one, and the colour it is multiplied with."""
    physical = hasattr(material, "baseColorTexture")
    image = material.baseColorTexture if physical else getattr(material, "image", None)
    if image is None:
        return None, _unit(np.asarray(material.main_color)[None])[0]
    factor = material.baseColorFactor if physical else None
    return np.asarray(image.convert("RGB"), np.float32) / 255, (1, 1, 1) if factor is None else _unit(np.asarray(factor)[None])[0]


def _unit(colours: np.ndarray) -> np.ndarray:
    """(N, 3) float32 0 to 1 of RGBA colours."""
    values = np.asarray(colours)
    return (values[:, :3] / (255 if values.dtype == np.uint8 else 1)).astype(np.float32)


def _symmetry_with_colours(mesh: PaintedMesh) -> Symmetry:
    """Of the turns that leave the surface as it is, those that leave its colours too."""
    from scipy.spatial import KDTree

    kind, turns, axis = mesh.symmetry.kind, mesh.symmetry.turns, mesh.symmetry.axis
    if kind == "none" or (mesh.texture.size == 3 and not np.ptp(mesh.corner_colours, axis=(0, 1)).any()):
        return mesh.symmetry
    face, weights = surface_points(mesh.vertices_m, mesh.triangles, _SAMPLES)
    colours = colours_at(mesh, face, weights)
    places = np.einsum("ni,nij->nj", weights, mesh.vertices_m[mesh.triangles[face]])
    middle = places.mean(0)
    tree = KDTree(places - middle)

    def unchanged(turn: np.ndarray) -> bool:
        nearest = tree.query((places - middle) @ turn.T)[1]
        return float(np.abs(colours[nearest] - colours).mean()) < SAME_COLOUR

    if kind == "turns":
        return of_turns(np.stack([turn for turn in turns if unchanged(turn)]))
    if axis is not None and all(unchanged(turn) for turn in rotations(np.outer(_BY_TURN_RAD, axis))):
        return Symmetry(kind, np.stack([turn for turn in turns if unchanged(turn)]), axis)
    return NONE


def colours_at(mesh: PaintedMesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, 3) colours at places on triangles (N,) by the weights (N, 3) of their corners; of a texture the nearest pixel."""
    height, width = mesh.texture.shape[:2]
    u, v = np.einsum("ni,nij->jn", weights, mesh.corner_uv[face])
    rows, columns = (np.mod(np.floor(part), size).astype(int) for part, size in (((1 - v) * height, height), (u * width, width)))
    return np.asarray(np.einsum("ni,nij->nj", weights, mesh.corner_colours[face]) * mesh.texture[rows, columns])
