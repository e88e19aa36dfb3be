"""Surfaces of objects as points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from egoworld_ops.errors import InputError
from egoworld_ops.score.truth import ShapeTruth
from egoworld_ops.vision.geometry import box_symmetries

_GRID = 9
"""Points along each side of a box's faces."""
MAX_POINTS = 2000
"""Points of a mesh that distances are measured over; an even choice of its vertices."""


def box(dimensions_m: np.ndarray) -> ShapeTruth:
    """A box of these sides (3,) about its centre, with the rotations that leave it unchanged."""
    size = np.asarray(dimensions_m, np.float64)
    steps = np.linspace(-0.5, 0.5, _GRID)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    surface = grid[(np.abs(grid) == 0.5).any(1)]
    return ShapeTruth(surface * size, box_symmetries(size))


def read_mesh(path: Path, metres: float = 1.0, symmetries: np.ndarray | None = None) -> ShapeTruth:
    """The surface in a mesh file whose unit is `metres` long.

    Raises:
        InputError: the file holds no mesh.
    """
    import trimesh

    try:
        mesh = trimesh.load(path, force="mesh")
    except Exception as error:  # the readers behind trimesh raise errors of any type
        raise InputError(path, f"the mesh cannot be read: {error}", "Restore the file from its data set") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.vertices) < 3:
        raise InputError(path, "holds no mesh", "Restore the file from its data set")
    return sampled(np.asarray(mesh.vertices, np.float64) * metres, symmetries)


def sampled(vertices_m: np.ndarray, symmetries: np.ndarray | None = None) -> ShapeTruth:
    """A mesh by its vertices (N, 3), at most `MAX_POINTS` of them."""
    kept = vertices_m[np.linspace(0, len(vertices_m) - 1, min(len(vertices_m), MAX_POINTS)).astype(int)]
    return ShapeTruth(kept) if symmetries is None else ShapeTruth(kept, symmetries)
