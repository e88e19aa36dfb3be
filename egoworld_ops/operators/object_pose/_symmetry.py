"""Symmetry of a shape: the rotations that leave it as it is, so that no picture can tell them apart. Found from the surface itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from egoworld_ops.vision.geometry import rotations, skew

if TYPE_CHECKING:
    from scipy.spatial import KDTree

KINDS = ("none", "turns", "round", "ball")
TOLERANCE = 0.02
"""A turned surface is the same if nearly all of it lies within this share of the shape's size from the surface before."""
_NEARLY_ALL = 97
_SAMPLES, _DENSE = 400, 20_000
_FOLDS = (2, 3, 4, 5, 6)
_TWISTS = 24


@dataclass(frozen=True)
class Symmetry:
    """The rotations that map a shape onto itself.

    Args:
        kind: `none`; `turns`, some rotations; `round`, all rotations about `axis`; `ball`, all rotations.
        turns: (S, 3, 3), identity first; of a round shape only those that turn its axis over.
        axis: (3,) unit vector of a round shape.
    """

    kind: str
    turns: np.ndarray
    axis: np.ndarray | None = None

    def angle_deg(self, R_a: np.ndarray, R_b: np.ndarray) -> float:
        """Minimum angle between two rotations (3, 3) over the symmetry, degrees."""
        return float(self.angles_deg(R_a, R_b[None])[0])

    def angles_deg(self, R_a: np.ndarray, R: np.ndarray) -> np.ndarray:
        """(N,) minimum angles between a rotation (3, 3) and others (N, 3, 3) over the symmetry, degrees."""
        if self.kind == "ball":
            return np.zeros(len(R))
        if self.axis is not None:
            cos = ((R @ (self.turns @ self.axis).T).transpose(0, 2, 1) @ (R_a @ self.axis)).max(1)
        else:
            cos = ((R.reshape(-1, 9) @ (R_a @ self.turns.transpose(0, 2, 1)).reshape(-1, 9).T).max(1) - 1) / 2
        return np.asarray(np.degrees(np.arccos(np.clip(cos, -1, 1))))

    def equal_nearest_to(self, R: np.ndarray, R_wanted: np.ndarray) -> np.ndarray:
        """Of the rotations (3, 3) that no picture can tell from R the one nearest to another."""
        if self.kind == "ball":
            return R_wanted
        equals = R @ self.turns
        if self.axis is not None:
            K = skew(self.axis)
            off = R_wanted.T @ equals @ K
            angle = np.arctan2(np.trace(off, axis1=1, axis2=2), -np.trace(off @ K, axis1=1, axis2=2))
            equals = equals @ rotations(self.axis * angle[:, None])
        return np.asarray(equals[np.einsum("ij,nij->n", R_wanted, equals).argmax()])

    def one_of_each(self, R: np.ndarray) -> np.ndarray:
        """(M, 3, 3): of evenly spread rotations (N, 3, 3) those that stand for themselves and their equals."""
        if self.kind == "ball":
            return R[:1]
        turns = self.turns
        if self.axis is not None:
            twists = rotations(self.axis * np.linspace(0, 2 * np.pi, _TWISTS, endpoint=False)[:, None])
            turns = np.concatenate([turn @ twists for turn in turns])
        traces = np.einsum("nij,sji->ns", R, turns)
        return R[traces[:, 0] >= traces.max(1) - 1e-12]


NONE = Symmetry("none", np.eye(3)[None])


def of_turns(turns: np.ndarray) -> Symmetry:
    """The symmetry of these rotations (S, 3, 3), identity first."""
    return Symmetry("turns", turns) if len(turns) > 1 else NONE


def of_mesh(vertices_m: np.ndarray, triangles: np.ndarray) -> Symmetry:
    """The symmetry of a surface, about the axes of its box, of its inertia, and those that two of these span at half angles."""
    from scipy.spatial import KDTree

    dense = _surface(vertices_m, triangles, _DENSE)
    dense = dense - dense.mean(0)
    tree, some = KDTree(dense), dense[:: _DENSE // _SAMPLES]
    within = TOLERANCE * float(np.ptp(vertices_m, axis=0).max())
    axes = _axes(dense)
    rounds = [a for a in axes if all(_same(tree, some, a, angle, within) for angle in (0.7, np.pi / 2, 2.3, np.pi))]
    if len(rounds) > 1:
        return Symmetry("ball", np.eye(3)[None])
    if rounds:
        axis = rounds[0]
        across = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
        across /= np.linalg.norm(across)
        over = _same(tree, some, across, np.pi, within)
        return Symmetry("round", np.concatenate([np.eye(3)[None], rotations(np.pi * across[None])[: int(over)]]), axis)
    steps = [(a, n) for a in axes for n in _FOLDS if _same(tree, some, a, 2 * np.pi / n, within)]
    return of_turns(_group([rotations(2 * np.pi / n * a[None])[0] for a, n in steps]))


def surface_points(vertices_m: np.ndarray, triangles: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places spread over the surface by area, the same at each call: (count,) triangles, and (count, 3) weights of their corners."""
    rng = np.random.default_rng(0)
    a, b, c = (vertices_m[triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = rng.choice(len(triangles), count, p=area / area.sum())
    u, v = rng.uniform(size=(2, count, 1))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    return face, np.concatenate([1 - u - v, u, v], 1)


def _surface(vertices_m: np.ndarray, triangles: np.ndarray, count: int) -> np.ndarray:
    """(count, 3) points spread over the surface."""
    face, weights = surface_points(vertices_m, triangles, count)
    a, b, c = (vertices_m[triangles[face, i]] for i in range(3))
    return np.asarray(a + weights[:, 1:2] * (b - a) + weights[:, 2:] * (c - a))


def _axes(points_m: np.ndarray) -> list[np.ndarray]:
    """Unit vectors that may be axes of symmetry, none twice."""
    inertia = np.linalg.eigh(points_m.T @ points_m)[1].T
    found: list[np.ndarray] = []
    for frame in (np.eye(3), inertia):
        halves = [frame[i] + s * frame[j] for i, j in ((0, 1), (0, 2), (1, 2)) for s in (1, -1)]
        thirds = [frame[0] + s * frame[1] + t * frame[2] for s, t in product((1, -1), repeat=2)]
        for axis in (*frame, *halves, *thirds):
            unit = axis / np.linalg.norm(axis)
            if all(abs(float(unit @ other)) < 0.999 for other in found):
                found.append(unit)
    return found


def _same(tree: KDTree, points_m: np.ndarray, axis: np.ndarray, angle_rad: float, within_m: float) -> bool:
    """Whether a turn leaves the surface as it is; most turns are refused by a few points."""
    turned = points_m @ rotations(angle_rad * axis[None])[0].T
    return all(float(np.percentile(tree.query(part)[0], _NEARLY_ALL)) < within_m for part in (turned[::8], turned))


def _group(steps: list[np.ndarray]) -> np.ndarray:
    """All products of rotations, identity first; at most 60, the most that a solid can have."""
    found = [np.eye(3)]
    for known in found:
        for turn in steps:
            made = known @ turn
            if len(found) < 60 and all(np.abs(made - other).max() > 0.05 for other in found):
                found.append(made)
    return np.stack(found)
