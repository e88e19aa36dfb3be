"""Rigid geometry, stated once: SE(3), quaternion order (w, x, y, z), projection, similarity alignment. numpy only."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from egoworld_ops.types import Camera
from egoworld_ops.vision import lenses


def matrix_from_quaternion(q_wxyz: np.ndarray) -> np.ndarray:
    """(..., 4) quaternions, w first, of any positive norm, to (..., 3, 3) rotation matrices."""
    q = np.asarray(q_wxyz, np.float64)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(r, -1) for r in rows], -2)


def quaternion_from_matrix(R: np.ndarray) -> np.ndarray:
    """(3, 3) rotation matrix to a (4,) float64 quaternion w, x, y, z of unit norm with w >= 0.

    The eigenvector of Bar-Itzhack's symmetric matrix ("New Method for Extracting the Quaternion from a Rotation Matrix", 2000):
    stable for every angle, and the nearest rotation where R is slightly off.
    """
    R = np.asarray(R, np.float64)
    if R.shape != (3, 3) or not np.isfinite(R).all():
        raise ValueError(f"R: want a finite (3, 3) matrix, got shape {R.shape}")
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = R
    K = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    x, y, z, w = np.linalg.eigh(K / 3.0)[1][:, -1]
    q = np.array([w, x, y, z])
    return -q if q[0] < 0 else q


def transform(T_dst_src: np.ndarray, points_src: np.ndarray) -> np.ndarray:
    """Map (..., 3) points by a (4, 4) transform."""
    return points_src @ T_dst_src[:3, :3].T + T_dst_src[:3, 3]


def make_transform(R: np.ndarray, t_m: np.ndarray) -> np.ndarray:
    """(4, 4) float64 transform from a (3, 3) rotation and a (3,) translation."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t_m
    return T


def invert(T_dst_src: np.ndarray) -> np.ndarray:
    """Inverse of a rigid (4, 4) transform."""
    R, t = T_dst_src[:3, :3], T_dst_src[:3, 3]
    return make_transform(R.T, -R.T @ t)


def project(camera: Camera, points_m: np.ndarray) -> np.ndarray:
    """Project (..., 3) points of the camera frame to (..., 2) pixels, through the lens; NaN where it shows none, see `lenses.project`."""
    return lenses.project(camera, points_m)


def skew(vectors: np.ndarray) -> np.ndarray:
    """(..., 3, 3) cross-product matrices of (..., 3) vectors."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)


def rotations(vectors: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations by axis-angle vectors (N, 3), radians: Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    safe = np.maximum(angle, 1e-12)
    K = skew(vectors / safe[:, 0])
    turned: np.ndarray = np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * (K @ K)
    return turned


def towards(directions: np.ndarray) -> np.ndarray:
    """(N, 3, 3) smallest rotations that bring the z axis onto directions (N, 3) of any length."""
    across = np.linalg.norm(directions[:, :2], axis=1)
    angle = np.arctan2(across, directions[:, 2])
    axis = np.stack([-directions[:, 1], directions[:, 0], np.zeros(len(directions))], 1) / np.maximum(across, 1e-12)[:, None]
    return rotations(axis * angle[:, None])


def rotation_angle_deg(R_a: np.ndarray, R_b: np.ndarray) -> float:
    """Angle between two rotations, degrees."""
    cos = (np.trace(np.asarray(R_a).T @ np.asarray(R_b)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cos, -1, 1))))


def box_symmetries(size: np.ndarray) -> np.ndarray:
    """(S, 3, 3) rotations that bring a box of these sides (3,) onto itself, identity first; 4, 8 or 24. Sides within 1 % are taken for equal."""
    found = []
    for order in permutations(range(3)):
        if np.allclose(size[list(order)], size, rtol=0.01):
            turns = (np.eye(3)[list(order)] * np.array(signs)[:, None] for signs in product((1, -1), repeat=3))
            found += [turn for turn in turns if np.linalg.det(turn) > 0]
    return np.stack(sorted(found, key=lambda turn: -float(np.trace(turn))))


def align_similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale s, rotation R and translation t that minimise |s R source + t - target|^2 over (N, 3) points (Umeyama, 1991).

    Raises:
        ValueError: shapes differ, or fewer than 3 points.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or len(source) < 3:
        raise ValueError(f"want two equal (N >= 3, 3) arrays, got {source.shape} and {target.shape}")
    mean_s, mean_t = source.mean(0), target.mean(0)
    centred_s, centred_t = source - mean_s, target - mean_t
    U, d, Vt = np.linalg.svd(centred_t.T @ centred_s / len(source))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = U @ np.diag(sign) @ Vt
    s = float((d * sign).sum() / (centred_s**2).sum() * len(source))
    return s, R, mean_t - s * R @ mean_s
