"""First pose of a known shape in one keyframe: many rotations tried against the mask's outline, the best fitted to outline and picture edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._keyframes import FAR_PX, Keyframe
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._view import EdgeSamples, edge_samples, jacobian, silhouette, step
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, matrix_from_quaternion, project, transform

Equations = tuple[np.ndarray, np.ndarray]
"""Residuals (N,), and their derivatives (N, 6) with respect to a step of the pose."""
ROTATIONS = 2000
COARSE_SIDE_PX = 72
KEPT = 50
LOOKED_AT, APART_DEG = 20, 15.0
"""Hypotheses of a search are so far apart; of those that fit best so many times as many as are kept are looked at."""
BEGUN_STEPS = 2
"""A rotation of the search is some 10 degrees from the true one; how well it fits tells little before the first steps of a fit."""
FITTED, FITTED_STEPS = 7, 6
REVERSED = 2
TILTED, TILT_DEG = 1, 7.0
_BLOCK = 250
SPACING_PX = 6.0
_PHI = np.sqrt(2.0)
_PSI = 1.533751168755204288118041
EDGE_CONTRAST = 2.0
"""Grey levels per pixel below which a change counts as no edge."""
FULL_CONTRAST = 8.0
"""Grey levels per pixel from which all edges count the same: a print on the object is no better than the object's own edge."""
MISSED = 0.3
"""Weight of object pixels that a mask lacks, against pixels it adds: masks rather miss a face than invent one."""
SAME_COS, SAME_SHIFT = float(np.cos(np.radians(2.0))), 0.02
"""Two poses show the same edges within this angle, and this share of the depth."""
STILL_RAD, STILL_SHIFT = 1e-3, 5e-4
"""Steps below this angle, and this share of the depth, are the last of a fit."""


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
    begun = _begun(camera, shape, keyframe, coarse)
    likely = _apart(shape, [T for T, _ in begun], REVERSED)
    begun += _begun(camera, shape, keyframe, [(other, shape) for T in likely for other in lookalikes(shape, T)])
    begun.sort(key=lambda pair: -overlap_with(camera, shape, keyframe, pair[0]))
    fitted = [fit_outline(camera, part, keyframe, T, FITTED_STEPS) for T, part in begun[:FITTED]]
    distinct = _distinct(shape, [judge(camera, shape, keyframe, T) for T in fitted if T is not None], keep + 1)
    sharp = _distinct(shape, [_sharpened(camera, shape, keyframe, c.T_camera_object) for c in distinct], keep)
    beside = [_sharpened(camera, shape, keyframe, T) for c in sharp[:TILTED] for T in tilted(c.T_camera_object)]
    return _distinct(shape, sharp + beside, keep)


def _sharpened(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> Candidate:
    return judge(camera, shape, keyframe, fit_edges(camera, shape, keyframe, T_camera_object))


def tilted(T_camera_object: np.ndarray) -> list[np.ndarray]:
    """The neighbours of a pose, turned about the object's own axes: edge fits started from them end in different minima."""
    turns = [cv2.Rodrigues(np.radians(TILT_DEG) * turn)[0] for turn in (*np.eye(3), *-np.eye(3))]
    return [make_transform(T_camera_object[:3, :3] @ turn, T_camera_object[:3, 3]) for turn in turns]


def _begun(camera: Camera, shape: Shape, keyframe: Keyframe, starts: list[tuple[np.ndarray, Shape]]) -> list[tuple[np.ndarray, Shape]]:
    """The first steps of fits to the mask, of parts of the shape from poses, in the order in which the whole then fits."""
    begun = [(T, part) for T_first, part in starts if (T := fit_outline(camera, part, keyframe, T_first, BEGUN_STEPS)) is not None]
    return sorted(begun, key=lambda pair: -overlap_with(camera, shape, keyframe, pair[0]))


def _apart(shape: Shape, poses: list[np.ndarray], keep: int) -> list[np.ndarray]:
    """The first so many poses that differ by more than APART_DEG."""
    kept: list[np.ndarray] = []
    for T in poses:
        if len(kept) < keep and all(shape.symmetry.angle_deg(T[:3, :3], other[:3, :3]) > APART_DEG for other in kept):
            kept.append(T)
    return kept


def lookalikes(shape: Shape, T_camera_object: np.ndarray) -> list[np.ndarray]:
    """Poses about the same middle whose outline is much the same if the shape is: half turns about its own axes, and reversals of depth.

    Seen from afar, a shape and its mirror image in depth have one outline (Necker, 1832); where one of its own planes mirrors the shape, a rotation
    does that.
    """
    R, centre_m = T_camera_object[:3, :3], T_camera_object[:3, :3] @ shape.centre_m + T_camera_object[:3, 3]
    ray = centre_m / np.linalg.norm(centre_m)
    mirrors = [np.eye(3) - 2 * np.outer(axis, axis) for axis in np.eye(3)]
    turned = [-R @ mirror for mirror in mirrors] + [(np.eye(3) - 2 * np.outer(ray, ray)) @ R @ mirror for mirror in mirrors]
    return [make_transform(other, centre_m - other @ shape.centre_m) for other in turned]


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
    return _best_overlaps(camera, keyframe, R, middles, seen_m2.max(1), [p.vertices_m for p in parts], parts, KEPT // 2)


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
    filled = (_fill(*seen, size) for seen in _corners_px(camera, R, positions, outlines, scale, keyframe.origin_px))
    overlap = np.array([_overlap(picture, mask, free, 1.0) for picture in filled])
    order = np.argsort(-overlap)[: LOOKED_AT * keep]
    kept: list[int] = []
    while len(order) and len(kept) < keep:
        first = int(order[0])
        kept.append(first)
        order = order[parts[first].symmetry.angles_deg(R[first], R[order]) > APART_DEG]
    return [(make_transform(R[i], positions[i]), parts[i]) for i in kept]


def _corners_px(
    camera: Camera, R: np.ndarray, positions_m: np.ndarray, outlines: list[np.ndarray], scale: float, shift_px: np.ndarray
) -> Iterator[tuple[np.ndarray, bool]]:
    """For each pose the pixels (C, 2) int32 of the corners (C, 3) of its convex part, and whether all lie before the camera."""
    for first in range(0, len(R), _BLOCK):
        block = range(first, min(first + _BLOCK, len(R)))
        corners = [outlines[i] @ R[i].T + positions_m[i] for i in block]
        every = np.concatenate(corners)
        depth = np.maximum(every[:, 2], 1e-3)
        pixels = np.stack([every[:, 0] * camera.fx_px / depth + camera.cx_px, every[:, 1] * camera.fy_px / depth + camera.cy_px], 1)
        pixels = ((pixels - shift_px) * scale).round().astype(np.int32)
        ends = np.cumsum([len(c) for c in corners])
        nearest = np.minimum.reduceat(every[:, 2], np.concatenate([[0], ends[:-1]]))
        yield from zip(np.split(pixels, ends[:-1]), (nearest > 1e-3).tolist(), strict=True)


def _fill(corners_px: np.ndarray, before: bool, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8, 1 within the convex outline of the corners; empty where they do not lie before the camera."""
    picture = np.zeros(size, np.uint8)
    if before:
        cv2.fillConvexPoly(picture, cv2.convexHull(corners_px), 1)
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


@dataclass(frozen=True)
class EdgeView:
    """The parts of a shape that should show in a keyframe from a pose: samples on its edges, and (N,) bool which of them can be checked there.

    Args:
        T_found: T_camera_object at which it was found what is visible; near it the same is taken to be.
    """

    samples: EdgeSamples
    counted: np.ndarray
    camera: Camera
    T_camera_object: np.ndarray
    T_found: np.ndarray

    @cached_property
    def jacobian(self) -> np.ndarray:
        """(N, 2, 6) derivative of the samples' pixels with respect to a step of the pose."""
        turned = self.samples.points_m @ self.T_camera_object[:3, :3].T
        return jacobian(self.camera, turned, turned + self.T_camera_object[:3, 3])

    def moved(self, keyframe: Keyframe, T_camera_object: np.ndarray) -> EdgeView:
        """The same parts seen from another pose."""
        pixels = project(self.camera, transform(T_camera_object, self.samples.points_m))
        return EdgeView(replace(self.samples, pixels=pixels), keyframe.counts(pixels), self.camera, T_camera_object, self.T_found)


def edge_view(
    camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray, before: EdgeView | None = None
) -> EdgeView | None:
    """None where the shape is not in front of the camera. What was visible from a pose that hardly differs, `before`, is not looked for anew."""
    if before is not None and _hardly_differ(before.T_found, T_camera_object):
        return before.moved(keyframe, T_camera_object)
    samples = edge_samples(camera, shape, T_camera_object, SPACING_PX)
    return None if samples is None else EdgeView(samples, keyframe.counts(samples.pixels), camera, T_camera_object, T_camera_object)


def _hardly_differ(T_a: np.ndarray, T_b: np.ndarray) -> bool:
    """Whether the same edges are visible from two poses, but for a few."""
    cos = (float((T_a[:3, :3] * T_b[:3, :3]).sum()) - 1) / 2
    return cos > SAME_COS and bool(np.abs(T_a[:3, 3] - T_b[:3, 3]).max() < SAME_SHIFT * T_a[2, 3])


def edge_support(keyframe: Keyframe, seen: EdgeView | None) -> float:
    """How strongly, from 0 to 1, the picture shows edges just where the pose predicts them; 0 where too few can be checked."""
    if seen is None or seen.counted.sum() < 8:
        return 0.0
    return _support(seen, _response(keyframe, seen.samples, np.array([-1.0, 0.0, 1.0])))


def _support(seen: EdgeView, response: np.ndarray) -> float:
    """Of the strongest change (N, 3) within a pixel of each sample."""
    return float(np.minimum(response.max(1)[seen.counted] / FULL_CONTRAST, 1).mean()) if seen.counted.sum() >= 8 else 0.0


def _response(keyframe: Keyframe, samples: EdgeSamples, shifts_px: np.ndarray) -> np.ndarray:
    """(N, len(shifts_px)) strongest change of any colour across the edge, that far along its normal."""
    where = (samples.pixels[:, None] + shifts_px[:, None] * samples.normals[:, None]).reshape(-1, 2)
    across_x, across_y = keyframe.contrast
    normal = np.repeat(samples.normals, len(shifts_px), axis=0)
    change = keyframe.at(across_x, where) * normal[:, :1] + keyframe.at(across_y, where) * normal[:, 1:]
    return np.abs(change).max(1).reshape(len(samples.pixels), len(shifts_px))


def outline_equations(keyframe: Keyframe, seen: EdgeView | None, outside: float = MISSED) -> Equations | None:
    """Distance of the projected outline to the mask's border, pixels, times `outside` where it lies outside."""
    if seen is None:
        return None
    used = seen.samples.outline & seen.counted
    if used.sum() < 6:
        return None
    pixels, J = seen.samples.pixels[used], seen.jacobian[used]
    slope = keyframe.at(keyframe.distance_slope, pixels)
    distance = keyframe.at(keyframe.distance, pixels).astype(np.float64)
    weight = np.where(distance > 0, outside, 1.0)
    return weight * distance, ((weight[:, None] * slope)[:, None] @ J)[:, 0]


def edge_equations(keyframe: Keyframe, seen: EdgeView | None, reach_px: int) -> tuple[float, Equations | None]:
    """Support, see `edge_support`; and the distance along its normal of each visible edge point to the picture's edge, pixels."""
    if seen is None:
        return 0.0, None
    shifts = np.arange(-reach_px, reach_px + 1.0)
    response = _response(keyframe, seen.samples, shifts)
    support = _support(seen, response[:, reach_px - 1 : reach_px + 2])
    liked = np.minimum(response, FULL_CONTRAST) * np.exp(-0.5 * (shifts / (0.6 * reach_px)) ** 2)
    best = liked.argmax(1)
    rows = np.arange(len(best))
    found = seen.counted & (response[rows, best] > EDGE_CONTRAST) & (best > 0) & (best < len(shifts) - 1)
    if found.sum() < 6:
        return support, None
    rows, best = rows[found], best[found]
    left, middle, right = (response[rows, best + i] for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = shifts[best] + np.where(bend < -1e-6, 0.5 * (left - right) / np.minimum(bend, -1e-6), 0).clip(-0.5, 0.5)
    return support, (-offset, (seen.samples.normals[found][:, None] @ seen.jacobian[found])[:, 0])


def fit_outline(
    camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray, steps: int, turn: bool = True, outside: float = MISSED
) -> np.ndarray | None:
    """Fit the outline to the mask's border (Levenberg-Marquardt, Huber's weights); None where it cannot be seen.

    Which edges are outline is found anew at every second step. Without `turn` the shape is only shifted.
    """
    T, damping, reference, seen = T_camera_object, 1e-2, np.inf, None
    for i in range(steps):
        seen = edge_view(camera, shape, keyframe, T, seen) if i % 2 == 0 or seen is None else seen.moved(keyframe, T)
        equations = outline_equations(keyframe, seen, outside)
        if equations is None:
            return None
        error = float(np.minimum(np.abs(equations[0]), FAR_PX / 2).mean())
        damping = damping * 0.3 if error < reference else min(damping * 5, 10.0)
        reference = error
        if not turn:
            equations[1][:, :3] = 0
        move = solve_step([(*equations, 4.0, 1.0)], damping, float(T[2, 3]))
        T = step(T, move)
        if damping < 1 and is_still(move, float(T[2, 3])):
            break
    return T


def is_still(move: np.ndarray, depth_m: float) -> bool:
    """Whether a step (6,) changes next to nothing."""
    return bool(np.abs(move[:3]).max() < STILL_RAD and np.abs(move[3:]).max() < STILL_SHIFT * depth_m)


def fit_edges(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> np.ndarray:
    """Fit the visible edges to the picture's, loosely constrained by the mask's outline; the given pose if neither can be seen.

    Edges are looked for less and less far away, at each distance until the pose is still.
    """
    T, seen = T_camera_object, None
    for reach_px in (9, 7, 5, 4):
        for _ in range(2):
            seen = edge_view(camera, shape, keyframe, T, seen)
            parts = [
                (*e, width, weight)
                for e, width, weight in (
                    (edge_equations(keyframe, seen, reach_px)[1], 0.35 * reach_px, 1.0),
                    (outline_equations(keyframe, seen), 3.0, 0.15),
                )
                if e is not None
            ]
            if not parts:
                return T
            move = solve_step(parts, 1e-3, float(T[2, 3]))
            T = step(T, move)
            if is_still(move, float(T[2, 3])):
                break
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
