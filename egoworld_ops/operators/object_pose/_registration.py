"""First pose of a known shape in one keyframe: many rotations tried against the mask's outline, the best fitted to outline and picture edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._fitting import Candidate, fit_edges, fit_outline, judge, overlap_of, overlap_with
from egoworld_ops.operators.object_pose._keyframes import Keyframe
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, matrix_from_quaternion

ROTATIONS = 2000
COARSE_SIDE_PX = 72
KEPT = 50
LOOKED_AT, APART_DEG = 20, 15.0
"""Hypotheses of a search are so far apart; of those that fit best so many times as many as are kept are looked at."""
BEGUN_STEPS = 2
"""A rotation of the search is some 10 degrees from the true one; how well it fits tells little before the first steps of a fit."""
FITTED, OF_FACES, FITTED_STEPS = 6, 3, 6
ALIKE_DEG = 8.0
"""Of begun fits so near to each other one is finished; of some, for the mask may lack the others, it is one face that fits."""
REVERSED = 2
TILTED, TILT_DEG, TILTS = 1, 7.0, 6
_BLOCK = 250
_PHI = np.sqrt(2.0)
_PSI = 1.533751168755204288118041


def rotations(shape: Shape, count: int) -> np.ndarray:
    """Of `count` evenly spread rotations (N, 3, 3) one of each class of the shape's symmetries (spirals of Alexa, 2022)."""
    i = np.arange(count) + 0.5
    t, d = i / count, 2 * np.pi * i
    r, big_r = np.sqrt(t), np.sqrt(1 - t)
    q = np.stack([r * np.sin(d / _PHI), r * np.cos(d / _PHI), big_r * np.sin(d / _PSI), big_r * np.cos(d / _PSI)], 1)
    return shape.symmetry.one_of_each(matrix_from_quaternion(q))


def register(camera: Camera, shape: Shape, keyframe: Keyframe, keep: int) -> list[Candidate]:
    """The `keep` best poses that differ from each other, best first; fewer or none where nothing fits."""
    whole = _begun(camera, shape, keyframe, candidates(camera, shape, keyframe, ROTATIONS, KEPT))
    faces = _begun(camera, shape, keyframe, _by_widest_face(camera, shape, keyframe))
    likely = _begun_apart(shape, whole + faces, REVERSED, APART_DEG)
    whole += _begun(camera, shape, keyframe, [(other, shape) for one in likely for other in lookalikes(shape, one.T_camera_object)])
    begun = _begun_apart(shape, whole, FITTED, ALIKE_DEG) + _begun_apart(shape, faces, OF_FACES, ALIKE_DEG)
    fitted = [fit_outline(camera, one.part, keyframe, one.T_camera_object, FITTED_STEPS) for one in begun]
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


@dataclass(frozen=True, slots=True)
class Begun:
    """The first steps of a fit: T_camera_object, the part of the shape that is fitted, and how well the whole overlaps with the mask there."""

    T_camera_object: np.ndarray
    part: Shape
    overlap: float


def _begun(camera: Camera, shape: Shape, keyframe: Keyframe, starts: list[tuple[np.ndarray, Shape]]) -> list[Begun]:
    """The first steps of fits to the mask, of parts of the shape from poses; those that cannot be seen are left out."""
    begun = [(fit_outline(camera, part, keyframe, T, BEGUN_STEPS), part) for T, part in starts]
    return [Begun(T, part, overlap_with(camera, shape, keyframe, T)) for T, part in begun if T is not None]


def apart(shape: Shape, poses: list[np.ndarray], keep: int, apart_deg: float) -> list[np.ndarray]:
    """The first so many that differ by more than an angle."""
    return [poses[i] for i in _apart(shape, poses, keep, apart_deg)]


def _apart(shape: Shape, poses: list[np.ndarray], keep: int, apart_deg: float) -> list[int]:
    kept: list[int] = []
    for i, T in enumerate(poses):
        if len(kept) < keep and all(shape.symmetry.angle_deg(T[:3, :3], poses[k][:3, :3]) > apart_deg for k in kept):
            kept.append(i)
    return kept


def _begun_apart(shape: Shape, begun: list[Begun], keep: int, apart_deg: float) -> list[Begun]:
    """The so many that overlap best and differ by more than an angle, best first."""
    ordered = sorted(begun, key=lambda one: -one.overlap)
    return [ordered[i] for i in _apart(shape, [one.T_camera_object for one in ordered], keep, apart_deg)]


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
    overlap = np.array([overlap_of(picture, mask, free, 1.0) for picture in filled])
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


def _distinct(shape: Shape, candidates: list[Candidate], keep: int) -> list[Candidate]:
    """The best `keep` that differ by more than 10 degrees, up to the shape's symmetries."""
    kept: list[Candidate] = []
    for c in sorted(candidates, key=lambda c: -c.score):
        if len(kept) == keep:
            break
        if all(shape.symmetry.angle_deg(c.T_camera_object[:3, :3], k.T_camera_object[:3, :3]) > 10 for k in kept):
            kept.append(c)
    return kept
