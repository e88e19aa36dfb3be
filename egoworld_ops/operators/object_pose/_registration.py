"""First pose of a known shape in one keyframe: many rotations tried against the mask's outline, the best fitted to outline and picture edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._keyframes import FAR_PX, Keyframe
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._view import EdgeSamples, edge_samples, project_with_jacobian, silhouette, step
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, matrix_from_quaternion

Equations = tuple[np.ndarray, np.ndarray]
"""Residuals (N,), and their derivatives (N, 6) with respect to a step of the pose."""
ROTATIONS = 2000
COARSE_SIDE_PX = 72
KEPT = 24
FITTED = 14
TILTED = 2
SPACING_PX = 6.0
_PHI = np.sqrt(2.0)
_PSI = 1.533751168755204288118041
EDGE_CONTRAST = 2.0
"""Grey levels per pixel below which a change counts as no edge."""
FULL_CONTRAST = 8.0
"""Grey levels per pixel from which all edges count the same: a print on the object is no better than the object's own edge."""
MISSED = 0.3
"""Weight of object pixels that a mask lacks, against pixels it adds: masks rather miss a face than invent one."""
_TILTS_DEG = 7.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One hypothesis: T_camera_object, the overlap of its outline with the mask, and the support of its edges in the picture."""

    T_camera_object: np.ndarray
    overlap: float
    edges: float

    @property
    def score(self) -> float:
        """From 0 to 1."""
        return self.overlap * (0.5 + 0.5 * self.edges)


def rotations(shape: Shape, count: int) -> np.ndarray:
    """Of `count` evenly spread rotations (N, 3, 3) one of each class of the shape's symmetries (spirals of Alexa, 2022)."""
    i = np.arange(count) + 0.5
    t, d = i / count, 2 * np.pi * i
    r, big_r = np.sqrt(t), np.sqrt(1 - t)
    q = np.stack([r * np.sin(d / _PHI), r * np.cos(d / _PHI), big_r * np.sin(d / _PSI), big_r * np.cos(d / _PSI)], 1)
    return shape.symmetry.one_of_each(matrix_from_quaternion(q))


def register(camera: Camera, shape: Shape, keyframe: Keyframe, keep: int) -> list[Candidate]:
    """The `keep` best poses that differ from each other, best first; fewer or none where nothing fits."""
    coarse = [*candidates(camera, shape, keyframe, ROTATIONS, KEPT), *_by_widest_face(camera, shape, keyframe)]
    begun = [(T, part) for T_first, part in coarse if (T := fit_outline(camera, part, keyframe, T_first, 4)) is not None]
    begun.sort(key=lambda pair: -overlap_with(camera, shape, keyframe, pair[0]))
    fitted = [fit_outline(camera, part, keyframe, T, 6) for T, part in begun[:FITTED]]
    distinct = _distinct(shape, [judge(camera, shape, keyframe, T) for T in fitted if T is not None], 2 * keep)
    refined = _distinct(shape, [_sharpen(camera, shape, keyframe, [c.T_camera_object]) for c in distinct], keep)
    best, others = refined[:TILTED], refined[TILTED:]
    return _distinct(shape, [_sharpen(camera, shape, keyframe, tilted(c.T_camera_object)) for c in best] + others, keep)


def _sharpen(camera: Camera, shape: Shape, keyframe: Keyframe, starts: list[np.ndarray]) -> Candidate:
    """The best of the edge fits from several starts."""
    return max((judge(camera, shape, keyframe, fit_edges(camera, shape, keyframe, T)) for T in starts), key=lambda c: c.score)


def tilts() -> list[np.ndarray]:
    """Small rotations (3, 3): none, and both ways about each axis of the object. Edge fits started from them end in different minima."""
    turns = [np.zeros(3), *np.eye(3), *-np.eye(3)]
    return [cv2.Rodrigues(np.radians(_TILTS_DEG) * turn)[0] for turn in turns]


def tilted(T_camera_object: np.ndarray) -> list[np.ndarray]:
    """A pose and its neighbours, turned about the object's own axes."""
    return [make_transform(T_camera_object[:3, :3] @ turn, T_camera_object[:3, 3]) for turn in tilts()]


def candidates(camera: Camera, shape: Shape, keyframe: Keyframe, count: int, keep: int) -> list[tuple[np.ndarray, Shape]]:
    """Of `count` rotations the `keep` whose convex outline overlaps best, as poses; beside each the part of the shape it is of: all of it."""
    corners, area_m2, normals = shape.hull
    R = rotations(shape, count)
    whole_m2 = np.abs(normals @ _towards(camera, keyframe, R).T).T @ area_m2 / 2
    return _best_overlaps(camera, keyframe, R, np.tile(shape.centre_m, (len(R), 1)), whole_m2, [corners] * len(R), [shape] * len(R), keep)


def _by_widest_face(camera: Camera, shape: Shape, keyframe: Keyframe) -> list[tuple[np.ndarray, Shape]]:
    """As `candidates`, but the mask is taken for the face that is seen widest: masks made from colour often hold one face and miss the others."""
    faces = shape.flat_faces
    if not faces:
        return []
    R = rotations(shape, ROTATIONS)
    towards = _towards(camera, keyframe, R)
    seen_m2 = np.stack([f.area_m2 * np.maximum(-(towards @ f.normal), 0) for f in faces], 1)
    parts = [faces[i].surface for i in seen_m2.argmax(1)]
    middles = np.stack([p.vertices_m.mean(0) for p in parts])
    return _best_overlaps(camera, keyframe, R, middles, seen_m2.max(1), [p.vertices_m for p in parts], parts, KEPT)


def _ray(camera: Camera, keyframe: Keyframe) -> np.ndarray:
    """(3,) direction of the mask's middle, z = 1."""
    middle_px = np.argwhere(keyframe.mask).mean(0)[::-1] + keyframe.origin_px
    return np.array([(middle_px[0] - camera.cx_px) / camera.fx_px, (middle_px[1] - camera.cy_px) / camera.fy_px, 1.0])


def _towards(camera: Camera, keyframe: Keyframe, R: np.ndarray) -> np.ndarray:
    """(N, 3) unit direction in the object frame in which the mask's middle is seen."""
    ray = _ray(camera, keyframe)
    return np.asarray(R.transpose(0, 2, 1) @ (ray / np.linalg.norm(ray)))


def _best_overlaps(
    camera: Camera,
    keyframe: Keyframe,
    R: np.ndarray,
    middles_m: np.ndarray,
    shown_m2: np.ndarray,
    outlines: list[np.ndarray],
    parts: list[Shape],
    keep: int,
) -> list[tuple[np.ndarray, Shape]]:
    """The rotations whose outline overlaps best with the mask, whose area and middle give the place."""
    h, w = keyframe.mask.shape
    scale = min(COARSE_SIDE_PX / max(h, w), 1.0)
    size = (max(round(h * scale), 1), max(round(w * scale), 1))
    mask = cv2.resize(keyframe.mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA)
    free = (cv2.resize(keyframe.hands.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA) == 0).astype(np.uint8)
    pixels_per_m2 = float(keyframe.mask.sum()) / (camera.fx_px * camera.fy_px)
    depth_m = np.sqrt(np.maximum(shown_m2, 1e-9) / pixels_per_m2)
    positions = _ray(camera, keyframe) * depth_m[:, None] - np.einsum("nij,nj->ni", R, middles_m)
    overlap = np.array(
        [
            _overlap(_fill(camera, c, r, t, size, scale, keyframe.origin_px), mask, free, 1.0)
            for r, t, c in zip(R, positions, outlines, strict=True)
        ]
    )
    return [(make_transform(R[i], positions[i]), parts[i]) for i in np.argsort(-overlap)[:keep]]


def _fill(
    camera: Camera, corners_m: np.ndarray, R: np.ndarray, t_m: np.ndarray, size: tuple[int, int], scale: float, shift_px: np.ndarray
) -> np.ndarray:
    """(h, w) uint8, 1 within the convex outline of the corners."""
    picture = np.zeros(size, np.uint8)
    corners = corners_m @ R.T + t_m
    if corners[:, 2].min() > 1e-3:
        x = (corners[:, 0] * camera.fx_px / corners[:, 2] + camera.cx_px - shift_px[0]) * scale
        y = (corners[:, 1] * camera.fy_px / corners[:, 2] + camera.cy_px - shift_px[1]) * scale
        cv2.fillConvexPoly(picture, cv2.convexHull(np.stack([x, y], 1).round().astype(np.int32)), 1)
    return picture


def _overlap(outline: np.ndarray, mask: np.ndarray, free: np.ndarray, outside: float) -> float:
    """1 less the shares of the union that are only in the mask, and only in the outline, the latter times `outside`."""
    both = cv2.countNonZero(outline & mask & free)
    in_mask, in_outline = cv2.countNonZero(mask & free), cv2.countNonZero(outline & free)
    either = in_mask + in_outline - both
    return 1 - (in_mask - both + outside * (in_outline - both)) / either if either else 0.0


def intersection_over_union(outline: np.ndarray, mask: np.ndarray, free: np.ndarray) -> float:
    """Of two pictures (h, w) uint8 of zeros and ones, where a third is one; 0 where nothing is there."""
    return _overlap(outline, mask, free, 1.0)


def judge(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> Candidate:
    """Overlap with the mask and support by the picture's edges."""
    seen = edge_view(camera, shape, keyframe, T_camera_object)
    return Candidate(T_camera_object, overlap_with(camera, shape, keyframe, T_camera_object), edge_support(keyframe, seen))


def overlap_with(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> float:
    """How well, up to 1, the outline covers the mask, away from hands; pixels that only the outline has count with weight MISSED."""
    outline = silhouette(camera, shape, T_camera_object, keyframe.mask.shape, 1.0, keyframe.origin_px)
    return _overlap(outline, keyframe.mask.astype(np.uint8), (~keyframe.hands).astype(np.uint8), MISSED)


@dataclass(frozen=True, slots=True)
class EdgeView:
    """The parts of a shape that should show in a keyframe from a pose: samples on its edges, and (N,) bool which of them can be checked there."""

    samples: EdgeSamples
    counted: np.ndarray


def edge_view(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> EdgeView | None:
    """None where the shape is not in front of the camera."""
    samples = edge_samples(camera, shape, T_camera_object, SPACING_PX)
    return None if samples is None else EdgeView(samples, keyframe.counts(samples.pixels))


def edge_support(keyframe: Keyframe, seen: EdgeView | None) -> float:
    """How strongly, from 0 to 1, the picture shows edges just where the pose predicts them; 0 where too few can be checked."""
    if seen is None or seen.counted.sum() < 8:
        return 0.0
    response = _response(keyframe, seen.samples, np.array([-1.0, 0.0, 1.0])).max(1)
    return float(np.minimum(response[seen.counted] / FULL_CONTRAST, 1).mean())


def _response(keyframe: Keyframe, samples: EdgeSamples, shifts_px: np.ndarray) -> np.ndarray:
    """(N, len(shifts_px)) strongest change of any colour across the edge, that far along its normal."""
    where = (samples.pixels[:, None] + shifts_px[:, None] * samples.normals[:, None]).reshape(-1, 2)
    across_x, across_y = keyframe.contrast
    normal = np.repeat(samples.normals, len(shifts_px), axis=0)
    change = keyframe.at(across_x, where) * normal[:, :1] + keyframe.at(across_y, where) * normal[:, 1:]
    return np.abs(change).max(1).reshape(len(samples.pixels), len(shifts_px))


def outline_equations(
    camera: Camera, keyframe: Keyframe, T_camera_object: np.ndarray, seen: EdgeView | None, outside: float = MISSED
) -> Equations | None:
    """Distance of the projected outline to the mask's border, pixels, times `outside` where it lies outside."""
    if seen is None:
        return None
    used = seen.samples.outline & seen.counted
    if used.sum() < 6:
        return None
    pixels, J = project_with_jacobian(camera, T_camera_object, seen.samples.points_m[used])
    slope = keyframe.at(keyframe.distance_slope, pixels)
    distance = keyframe.at(keyframe.distance, pixels).astype(np.float64)
    weight = np.where(distance > 0, outside, 1.0)
    return weight * distance, weight[:, None] * np.einsum("ni,nij->nj", slope, J)


def edge_equations(
    camera: Camera, keyframe: Keyframe, T_camera_object: np.ndarray, seen: EdgeView | None, reach_px: float
) -> Equations | None:
    """Distance along its normal of each visible edge point to the picture's edge, pixels."""
    if seen is None:
        return None
    samples = seen.samples
    shifts = np.arange(-reach_px, reach_px + 0.5, 1.0)
    response = _response(keyframe, samples, shifts)
    liked = np.minimum(response, FULL_CONTRAST) * np.exp(-0.5 * (shifts / (0.6 * reach_px)) ** 2)
    best = liked.argmax(1)
    rows = np.arange(len(best))
    found = seen.counted & (response[rows, best] > EDGE_CONTRAST) & (best > 0) & (best < len(shifts) - 1)
    if found.sum() < 6:
        return None
    rows, best = rows[found], best[found]
    left, middle, right = (response[rows, best + i] for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = shifts[best] + np.where(bend < -1e-6, 0.5 * (left - right) / np.minimum(bend, -1e-6), 0).clip(-0.5, 0.5)
    _, J = project_with_jacobian(camera, T_camera_object, samples.points_m[found])
    return -offset, np.einsum("ni,nij->nj", samples.normals[found], J)


def fit_outline(
    camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray, steps: int, turn: bool = True, outside: float = MISSED
) -> np.ndarray | None:
    """Fit the outline to the mask's border (Levenberg-Marquardt, Huber's weights); None where it cannot be seen.

    Which edges are outline is found anew at every second step. Without `turn` the shape is only shifted.
    """
    T, damping, reference = T_camera_object, 1e-2, np.inf
    for i in range(steps):
        if i % 2 == 0:
            seen = edge_view(camera, shape, keyframe, T)
        equations = outline_equations(camera, keyframe, T, seen, outside)
        if equations is None:
            return None
        error = float(np.minimum(np.abs(equations[0]), FAR_PX / 2).mean())
        damping = damping * 0.3 if error < reference else min(damping * 5, 10.0)
        reference = error
        if not turn:
            equations[1][:, :3] = 0
        T = step(T, solve_step([(*equations, 4.0, 1.0)], damping, float(T[2, 3])))
    return T


def fit_edges(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> np.ndarray:
    """Fit the visible edges to the picture's, loosely constrained by the mask's outline; the given pose if neither can be seen."""
    T = T_camera_object
    for reach_px in (9, 9, 7, 7, 5, 5, 4, 4):
        seen = edge_view(camera, shape, keyframe, T)
        parts = [
            (*e, width, weight)
            for e, width, weight in (
                (edge_equations(camera, keyframe, T, seen, reach_px), 0.35 * reach_px, 1.0),
                (outline_equations(camera, keyframe, T, seen), 3.0, 0.15),
            )
            if e is not None
        ]
        if not parts:
            return T
        T = step(T, solve_step(parts, 1e-3, float(T[2, 3])))
    return T


def solve_step(parts: list[tuple[np.ndarray, np.ndarray, float, float]], damping: float, depth_m: float) -> np.ndarray:
    """One damped step (6,) for groups of (residuals, derivatives, width of Huber's weight, weight of the group)."""
    H, g = np.zeros((6, 6)), np.zeros(6)
    for residual, J, width, weight in parts:
        w = weight / np.maximum(np.abs(residual) / width, 1)
        H += (J * w[:, None]).T @ J
        g += J.T @ (w * residual)
    move = np.linalg.solve(H + damping * np.diag(np.diag(H)) + 1e-9 * np.eye(6), -g)
    length = max(float(np.linalg.norm(move[:3])) / 0.3, float(np.linalg.norm(move[3:])) / (0.15 * depth_m), 1.0)
    return move / length


def _distinct(shape: Shape, candidates: list[Candidate], keep: int) -> list[Candidate]:
    """The best `keep` that differ by more than 10 degrees, up to the shape's symmetries."""
    kept: list[Candidate] = []
    for c in sorted(candidates, key=lambda c: -c.score):
        if len(kept) == keep:
            break
        if all(shape.symmetry.angle_deg(c.T_camera_object[:3, :3], k.T_camera_object[:3, :3]) > 10 for k in kept):
            kept.append(c)
    return kept
