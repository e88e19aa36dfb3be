"""Joint refinement of an object's poses in many keyframes: one rigid shape of known size explains all points, edges and outlines.

A followed point lies on the shape where its ray in one keyframe, its home, meets the surface; in every other keyframe it must be seen where that
surface point projects. Coordinates of points are no unknowns, so the system stays small: six numbers a keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.object_pose._keyframes import Keyframe
from egoworld_ops.operators.object_pose._registration import edge_equations, edge_support, edge_view, outline_equations, overlap_with
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._view import jacobian, lift, pixel_derivative, rays, step
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import project, skew

POINT_WIDTH_PX = 1.5
MIN_FRONTAL_COS = 0.2
UNSUPPORTED = 4.0
MISFIT = 6.0
POINTS = 0.3
STRAY = float(np.log1p(4.0))
"""Costs of a keyframe: if none of its edges show; if its outline misses the mask; the factor of the mean cost of a pair of sightings of a point;
and the cost of a pair whose home misses the shape."""
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
    best: dict[int, tuple[float, int, np.ndarray, int]] = {}
    for view, (T, (ids, pixels)) in enumerate(zip(poses, points, strict=True)):
        if not len(ids):
            continue
        face, _ = lift(camera, shape, T, pixels)
        towards = rays(camera, pixels)
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        frontal = -(towards * (shape.normals[face] @ T[:3, :3].T)).sum(1)
        for i in np.flatnonzero((face >= 0) & (frontal > MIN_FRONTAL_COS)):
            number = int(ids[i])
            if number not in best or frontal[i] > best[number][0]:
                best[number] = (float(frontal[i]), view, pixels[i], int(face[i]))
    rows = [
        (best[int(n)][1], view, best[int(n)][2], pixel, best[int(n)][3])
        for view, (ids, pixels) in enumerate(points)
        for n, pixel in zip(ids, pixels, strict=True)
        if int(n) in best and best[int(n)][1] != view
    ]
    if not rows:
        return None
    home, other, home_px, other_px, face_of = zip(*rows, strict=True)
    return Links(np.array(home), np.array(other), np.array(home_px), np.array(other_px), np.array(face_of))


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

    The keyframe that fits worst is left out of the mean: a single failure must not condemn a hypothesis that is right elsewhere.
    """
    current = np.stack(poses)
    damping, reference, judged = 1e-3, np.inf, np.inf
    everything = np.concatenate([ids for ids, _ in points])
    repeats = len(everything) - len(np.unique(everything))
    best = current
    for i in range(steps):
        if i % 3 == 0:
            links = link(camera, shape, list(current), points)
        H, g, cost, without_worst = _normal_equations(camera, shape, current, keyframes, links, repeats, 7.0 if i < steps // 2 else 5.0)
        if cost < reference:
            best, reference, judged, damping = current, cost, without_worst, max(damping * 0.3, 1e-5)
        else:
            damping = min(damping * 4, 1.0)
        move = np.linalg.solve(H + damping * np.diag(np.diag(H)) + 1e-9 * np.eye(len(H)), -g).reshape(-1, 6)
        move[:, :3] /= np.maximum(np.linalg.norm(move[:, :3], axis=1, keepdims=True) / 0.2, 1)
        move[:, 3:] /= np.maximum(np.linalg.norm(move[:, 3:], axis=1, keepdims=True) / (0.1 * current[:, 2, 3:4]), 1)
        current = np.stack([step(T, m) for T, m in zip(current, move, strict=True)])
        if np.abs(move[:, :3]).max() < 2e-4 and np.abs(move[:, 3:]).max() < 5e-5:
            break
    links = link(camera, shape, list(current), points)
    _, _, cost, without_worst = _normal_equations(camera, shape, current, keyframes, links, repeats, 5.0)
    return (list(current), without_worst) if cost < reference else (list(best), judged)


def _normal_equations(
    camera: Camera, shape: Shape, poses: np.ndarray, keyframes: list[Keyframe], links: Links | None, repeats: int, reach_px: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    size = len(poses)
    H, g = np.zeros((size, 6, size, 6)), np.zeros((size, 6))
    cost, worst = 0.0, 0.0
    if links is not None:
        total = _add_points(H, g, *point_equations(camera, shape, poses, links), links)
        unexplained = max(repeats - len(links.home), 0)
        cost += size * POINTS * (total + unexplained * STRAY) / max(repeats, 1)
    for i, (T, keyframe) in enumerate(zip(poses, keyframes, strict=True)):
        seen = edge_view(camera, shape, keyframe, T)
        own = UNSUPPORTED * (1 - edge_support(keyframe, seen)) + MISFIT * (1 - overlap_with(camera, shape, keyframe, T))
        cost, worst = cost + own, max(worst, own)
        for equations, width, weight in (
            (edge_equations(camera, keyframe, T, seen, reach_px), 2.0, 0.5),
            (outline_equations(camera, keyframe, T, seen), 2.5, 0.08),
        ):
            if equations is None:
                continue
            residual, J = equations
            w = weight / (1 + (residual / width) ** 2)
            H[i, :, i] += (J * w[:, None]).T @ J
            g[i] += J.T @ (w * residual)
    return H.reshape(6 * size, 6 * size), g.ravel(), cost / size, (cost - worst) / max(size - 1, 1)


def _add_points(H: np.ndarray, g: np.ndarray, residual: np.ndarray, J_home: np.ndarray, J_other: np.ndarray, links: Links) -> float:
    square = np.nan_to_num((residual**2).sum(1), nan=1e6)
    w = 1 / (1 + square / POINT_WIDTH_PX**2)
    residual = np.where(np.isfinite(residual), residual, 0)
    for a, Ja in ((links.home, J_home), (links.other, J_other)):
        np.add.at(g, a, np.einsum("nki,n,nk->ni", Ja, w, residual))
        for b, Jb in ((links.home, J_home), (links.other, J_other)):
            np.add.at(H.transpose(0, 2, 1, 3), (a, b), np.einsum("nki,n,nkj->nij", Ja, w, Jb))
    return float(np.log1p(square / POINT_WIDTH_PX**2).sum())
