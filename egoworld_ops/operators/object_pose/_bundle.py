"""Joint refinement of an object's poses in many keyframes: one rigid shape of known size explains all points, edges and outlines.

A followed point lies on the shape where its ray in one keyframe, its home, meets the surface; in every other keyframe it must be seen where that
surface point projects. Coordinates of points are no unknowns, so the system stays small: six numbers a keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.object_pose._fitting import EdgeView, edge_equations, edge_view, is_still, outline_equations, overlap_with
from egoworld_ops.operators.object_pose._keyframes import Keyframe
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._view import jacobian, lift, pixel_derivative, rays, step
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import project, skew

POINT_WIDTH_PX = 1.5
MIN_FRONTAL_COS = 0.2
UNSUPPORTED = 4.0
MISFIT = 6.0
POINTS = 0.3
STRAY, FEW_PAIRS = float(np.log1p(4.0)), 15
"""Costs of a keyframe: if none of its edges show; if its outline misses the mask; the factor of the mean cost of a pair of sightings of a point;
and the cost of a pair whose home misses the shape. Fewer pairs a keyframe than that count less: they may be shadows."""
Points = tuple[np.ndarray, np.ndarray]
"""Numbers (N,) and pixels (N, 2) of the points followed into one keyframe."""


@dataclass(frozen=True, slots=True)
class Links:
    """Pairs of sightings of the same point: (N,) home and other view, (N, 2) pixels in both, (N,) triangle it lies on."""

    home: np.ndarray
    other: np.ndarray
    home_px: np.ndarray
    other_px: np.ndarray
    face: np.ndarray


def link(camera: Camera, shape: Shape, poses: list[np.ndarray], points: list[Points]) -> Links | None:
    """Make the view that sees a point's triangle most from the front the home of that point; None if no point is in two views."""
    seen = [(T, *one) for T, one in zip(poses, points, strict=True)]
    ids, pixels = np.concatenate([i for _, i, _ in seen]), np.concatenate([p for _, _, p in seen])
    view = np.repeat(np.arange(len(seen)), [len(i) for _, i, _ in seen])
    if not len(ids):
        return None
    lifted = [_frontal(camera, shape, T, p) for T, _, p in seen if len(p)]
    face, frontal = (np.concatenate(part) for part in zip(*lifted, strict=True))
    shown = np.flatnonzero((face >= 0) & (frontal > MIN_FRONTAL_COS))
    order = shown[np.lexsort((-frontal[shown], ids[shown]))]
    numbers, first = np.unique(ids[order], return_index=True)
    if not len(numbers):
        return None
    home = order[first][np.minimum(np.searchsorted(numbers, ids), len(numbers) - 1)]
    pairs = np.flatnonzero((ids[home] == ids) & (view[home] != view))
    if not len(pairs):
        return None
    return Links(view[home[pairs]], view[pairs], pixels[home[pairs]], pixels[pairs], face[home[pairs]])


def _frontal(camera: Camera, shape: Shape, T_camera_object: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle (N,) on which each pixel's ray meets the shape, -1 beside it, and how much that faces the camera: 1 from the front."""
    face, _ = lift(camera, shape, T_camera_object, pixels)
    towards = rays(camera, pixels)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    return face, -(towards * (shape.normals[face] @ T_camera_object[:3, :3].T)).sum(1)


def point_equations(camera: Camera, shape: Shape, poses: np.ndarray, links: Links) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (N, 2), and derivatives (N, 2, 6) with respect to steps of the home and of the other pose."""
    R_home, t_home = poses[links.home, :3, :3], poses[links.home, :3, 3]
    R_other, t_other = poses[links.other, :3, :3], poses[links.other, :3, 3]
    d = rays(camera, links.home_px)
    n = np.einsum("nij,nj->ni", R_home, shape.normals[links.face])
    height = shape.offsets_m[links.face] + (n * t_home).sum(1)
    slant = (n * d).sum(1)
    slant = np.where(np.abs(slant) < 1e-3, -1e-3, slant)
    far = height / slant
    from_object = d * far[:, None] - t_home
    turned = np.einsum("nij,nj->ni", R_other, np.einsum("nji,nj->ni", R_home, from_object))
    seen = turned + t_other
    residual = project(camera, seen) - links.other_px
    d_far = np.concatenate([(np.cross(n, t_home) - far[:, None] * np.cross(n, d)), n], 1) / slant[:, None]
    d_point = d[:, :, None] * d_far[:, None, :]
    d_point[:, :, :3] += skew(from_object)
    d_point[:, :, 3:] -= np.eye(3)
    to_other = R_other @ R_home.transpose(0, 2, 1)
    J_home = pixel_derivative(camera, seen) @ to_other @ d_point
    return residual, J_home, jacobian(camera, turned, seen)


def refine(
    camera: Camera, shape: Shape, poses: list[np.ndarray], points: list[Points], keyframes: list[Keyframe], steps: int
) -> tuple[list[np.ndarray], float]:
    """Refine the poses of all keyframes together; also the mean cost of a keyframe, for comparing hypotheses (lower is better).

    The keyframe that fits worst of several is left out of the mean: a single failure must not condemn a hypothesis that is right elsewhere.
    """
    current = np.stack(poses)
    damping, reference, judged = 1e-3, np.inf, np.inf
    everything = np.concatenate([ids for ids, _ in points])
    repeats = len(everything) - len(np.unique(everything))
    best = current
    views: list[EdgeView | None] = [None] * len(poses)
    for i in range(steps):
        if i % 3 == 0:
            links = link(camera, shape, list(current), points)
        views = [edge_view(camera, shape, *pair) for pair in zip(keyframes, current, views, strict=True)]
        H, g, cost, without_worst = _normal_equations(camera, shape, current, keyframes, views, links, repeats, 7 if i < steps // 2 else 5)
        if cost < reference:
            best, reference, judged, damping = current, cost, without_worst, max(damping * 0.3, 1e-5)
        else:
            damping = min(damping * 4, 1.0)
        move = np.linalg.solve(H + damping * np.diag(np.diag(H)) + 1e-9 * np.eye(len(H)), -g).reshape(-1, 6)
        move[:, :3] /= np.maximum(np.linalg.norm(move[:, :3], axis=1, keepdims=True) / 0.2, 1)
        move[:, 3:] /= np.maximum(np.linalg.norm(move[:, 3:], axis=1, keepdims=True) / (0.1 * current[:, 2, 3:4]), 1)
        current = np.stack([step(T, m) for T, m in zip(current, move, strict=True)])
        if all(is_still(m, float(T[2, 3])) for m, T in zip(move, current, strict=True)):
            break
    links = link(camera, shape, list(current), points)
    views = [edge_view(camera, shape, *pair) for pair in zip(keyframes, current, views, strict=True)]
    _, _, cost, without_worst = _normal_equations(camera, shape, current, keyframes, views, links, repeats, 5)
    return (list(current), without_worst) if cost < reference else (list(best), judged)


def _normal_equations(
    camera: Camera,
    shape: Shape,
    poses: np.ndarray,
    keyframes: list[Keyframe],
    views: list[EdgeView | None],
    links: Links | None,
    repeats: int,
    reach_px: int,
) -> tuple[np.ndarray, np.ndarray, float, float]:
    size = len(poses)
    H, g = np.zeros((size, 6, size, 6)), np.zeros((size, 6))
    cost, worst = 0.0, 0.0
    if links is not None:
        total = _add_points(H, g, *point_equations(camera, shape, poses, links), links)
        unexplained = max(repeats - len(links.home), 0)
        cost += size * POINTS * (total + unexplained * STRAY) / max(repeats, size * FEW_PAIRS)
    for i, (T, keyframe, seen) in enumerate(zip(poses, keyframes, views, strict=True)):
        support, of_edges = edge_equations(keyframe, seen, reach_px)
        own = UNSUPPORTED * (1 - support) + MISFIT * (1 - overlap_with(camera, shape, keyframe, T))
        cost, worst = cost + own, max(worst, own)
        for equations, width, weight in ((of_edges, 2.0, 0.5), (outline_equations(keyframe, seen), 2.5, 0.08)):
            if equations is None:
                continue
            residual, J = equations
            w = weight / (1 + (residual / width) ** 2)
            H[i, :, i] += (J * w[:, None]).T @ J
            g[i] += J.T @ (w * residual)
    return H.reshape(6 * size, 6 * size), g.ravel(), cost / size, (cost - worst) / (size - 1) if size > 1 else cost


def _add_points(H: np.ndarray, g: np.ndarray, residual: np.ndarray, J_home: np.ndarray, J_other: np.ndarray, links: Links) -> float:
    square = np.nan_to_num((residual**2).sum(1), nan=1e6)
    w = 1 / (1 + square / POINT_WIDTH_PX**2)
    residual = np.where(np.isfinite(residual), residual, 0)
    for a, Ja in ((links.home, J_home), (links.other, J_other)):
        np.add.at(g, a, np.einsum("nki,n,nk->ni", Ja, w, residual))
        for b, Jb in ((links.home, J_home), (links.other, J_other)):
            np.add.at(H.transpose(0, 2, 1, 3), (a, b), np.einsum("nki,n,nkj->nij", Ja, w, Jb))
    return float(np.log1p(square / POINT_WIDTH_PX**2).sum())
