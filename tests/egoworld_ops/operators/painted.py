"""A thing whose colour says where on it one is, drawn by brute force: pictures with depth and mask of known truth, and networks that read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from egoworld_ops.operators.object_pose import _foundationpose
from egoworld_ops.operators.object_pose._painted_mesh import PaintedMesh, of_trimesh
from egoworld_ops.types import Camera
from egoworld_ops.vision.lenses import unproject

REACH_M = 0.08
"""Of the thing from its origin, at most: its colours are 0.5 + 0.4 p / REACH_M."""
CAMERA = Camera(330.0, 330.0, 158.0, 121.0, 320, 240, "file")
WALL_M = 0.9


@cache
def thing() -> trimesh.Trimesh:
    """A lump without symmetry, away from its own origin, 320 triangles."""
    mesh = trimesh.creation.icosphere(2, 1.0)
    x, y, z = mesh.vertices.T
    radius = 0.035 * (1 + 0.35 * x + 0.25 * y * z + 0.2 * np.maximum(z, 0) ** 2)
    mesh.vertices = mesh.vertices * radius[:, None] * [1.2, 0.9, 0.8] + [0.004, -0.006, 0.01]
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colours_of(mesh.vertices), process=False)


def colours_of(points: np.ndarray) -> np.ndarray:
    """(N, 4) uint8."""
    rgb = np.rint(255 * (0.5 + 0.4 * points / REACH_M))
    return np.column_stack([rgb, np.full(len(points), 255)]).astype(np.uint8)


@cache
def painted() -> PaintedMesh:
    return of_trimesh(thing())


@dataclass(frozen=True)
class Scene:
    """A picture: rgb (H, W, 3) uint8, depth along the axis (H, W), mask (H, W), and the triangle (H, W) that is seen, -1 where none is."""

    rgb: np.ndarray
    depth_m: np.ndarray
    mask: np.ndarray
    face: np.ndarray


def cast(vertices: np.ndarray, faces: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays (N, 3) from the origin against all triangles: the nearest (N,), -1 for none; multiples of the rays (N,); weights of corners (N, 3)."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = (a * normal).sum(1) / (rays @ normal.T)
        inner = [
            (far * (rays @ np.cross(n - m, normal).T) * -1 - (m * np.cross(normal, n - m)).sum(1)) for m, n in ((a, b), (b, c), (c, a))
        ]
        inside = np.logical_and.reduce([part >= -1e-12 for part in inner]) & (far > 0)
    far = np.where(inside, far, np.inf)
    face = far.argmin(1)
    at = np.arange(len(rays))
    weights = np.stack([inner[1][at, face], inner[2][at, face], inner[0][at, face]], 1) / (normal**2).sum(1)[face][:, None]
    hit = np.isfinite(far[at, face])
    return np.where(hit, face, -1), np.where(hit, far[at, face], 0.0), np.where(hit[:, None], weights, 0.0)


def draw(T_camera_object: np.ndarray | None, camera: Camera = CAMERA, wall: bool = True) -> Scene:
    """The thing before a black wall."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    rays = unproject(camera, np.stack([u, v], -1))
    rays = rays / np.where(rays[..., 2:] > 0.05, rays[..., 2:], np.nan)
    rgb, face = np.zeros((*u.shape, 3), np.uint8), np.full(u.shape, -1)
    depth_m = np.where(np.isfinite(rays[..., 2]), WALL_M if wall else 0.0, 0.0)
    if T_camera_object is not None:
        mesh = thing()
        vertices = mesh.vertices @ T_camera_object[:3, :3].T + T_camera_object[:3, 3]
        middle = vertices.mean(0)
        away, reach_m = np.linalg.norm(middle), np.linalg.norm(vertices - middle, axis=1).max()
        near = (rays @ middle) / np.linalg.norm(rays, axis=-1) / away > np.sqrt(1 - (reach_m / away) ** 2)
        hit, far, weights = cast(vertices, np.asarray(mesh.faces), rays[near])
        face[near] = hit
        colours = np.einsum("ni,nij->nj", weights, np.asarray(mesh.visual.vertex_colors, float)[mesh.faces[hit]][..., :3])
        rgb[near] = np.where(hit[:, None] >= 0, np.rint(colours), 0)
        depth_m[near] = np.where(hit >= 0, far, depth_m[near])
    return Scene(rgb, depth_m.astype(np.float32), face >= 0, face)


class Reading:
    """A refiner that reads both poses from the pixels of each pair and says the step from one to the other; a scorer by how much pictures differ.

    It knows the mesh by its colours alone, and must be given pictures without light.
    """

    def __init__(self, mesh: PaintedMesh) -> None:
        self._mesh, self.pairs = mesh, 0

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.pairs += len(rendered)
        steps = [self._step(a, b) for a, b in zip(rendered[:, ::3, ::3], observed[:, ::3, ::3], strict=True)]
        return np.array([s[0] for s in steps]), np.array([s[1] for s in steps])

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        return -np.abs(rendered - observed).mean((1, 2, 3))

    def _step(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        poses = self._pose(rendered), self._pose(observed)
        if poses[0] is None or poses[1] is None:
            return np.zeros(3), np.zeros(3)
        (R, t), (R_true, t_true) = poses
        turn = Rotation.from_matrix(R @ R_true.T).as_rotvec() / _foundationpose.MAX_TURN_RAD
        return t_true - t, np.arctanh(np.clip(turn, -1 + 1e-9, 1 - 1e-9))

    def _pose(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Rotation, and shift in the picture's units, by Kabsch; the tenth that fits worst, at the outline, is left out. None where nothing is."""
        rgb, xyz = (part.reshape(-1, 3).astype(np.float64) for part in np.split(picture, 2, -1))
        on = (rgb > 0.02).all(1) & (xyz != 0).any(1)
        places = ((rgb[on] - 0.5) / 0.4 * REACH_M - self._mesh.centre_m) / (self._mesh.diameter_m / 2)
        seen = xyz[on]
        if len(seen) < 20:
            return None
        for _ in range(3):
            R = Rotation.align_vectors(seen - seen.mean(0), places - places.mean(0))[0].as_matrix()
            t = seen.mean(0) - R @ places.mean(0)
            off = np.linalg.norm(places @ R.T + t - seen, axis=1)
            keep = off <= np.quantile(off, 0.9)
            seen, places = seen[keep], places[keep]
        return R, t


class Still:
    """A refiner that says that all is well, and a scorer that finds the last of all pairs best."""

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(rendered), 3)), np.zeros((len(rendered), 3))

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        return np.arange(len(rendered), dtype=np.float64)
