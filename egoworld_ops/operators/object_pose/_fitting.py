"""Fitting a known shape to one keyframe: to the outline of its mask, and to edges of the picture; and how well it fits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._keyframes import FAR_PX, Glimpse, Keyframe
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._view import EdgeSamples, edge_samples, jacobian, silhouette, step
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import project, transform

Equations = tuple[np.ndarray, np.ndarray]
"""Residuals (N,), and their derivatives (N, 6) with respect to a step of the pose."""
SPACING_PX = 6.0
EDGE_CONTRAST = 2.0
"""Grey levels per pixel below which a change counts as no edge."""
FULL_CONTRAST = 8.0
"""Grey levels per pixel from which all edges count the same: a print on the object is no better than the object's own edge."""
MIN_VISIBLE = 0.4
"""Of a shape's outline that must not be hidden, for its overlap with a mask to tell anything."""
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


def overlap_of(outline: np.ndarray, mask: np.ndarray, free: np.ndarray, outside: float) -> float:
    """1 less the shares of the union that are only in the mask, and only in the outline, the latter times `outside`."""
    both = cv2.countNonZero(outline & mask & free)
    in_mask, in_outline = cv2.countNonZero(mask & free), cv2.countNonZero(outline & free)
    either = in_mask + in_outline - both
    return 1 - (in_mask - both + outside * (in_outline - both)) / either if either else 0.0


def intersection_over_union(outline: np.ndarray, mask: np.ndarray, free: np.ndarray) -> float:
    """Of two pictures (h, w) uint8 of zeros and ones, where a third is one; 0 where nothing is there."""
    return overlap_of(outline, mask, free, 1.0)


def judge(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> Candidate:
    """Overlap with the mask and support by the picture's edges."""
    seen = edge_view(camera, shape, keyframe, T_camera_object)
    return Candidate(T_camera_object, overlap_with(camera, shape, keyframe, T_camera_object), edge_support(keyframe, seen))


def overlap_with(camera: Camera, shape: Shape, keyframe: Keyframe, T_camera_object: np.ndarray) -> float:
    """How well, up to 1, the outline covers the mask, away from hands; pixels that only the outline has count with weight MISSED."""
    outline = silhouette(camera, shape, T_camera_object, keyframe.mask.shape, 1.0, keyframe.origin_px)
    return overlap_of(outline, keyframe.mask.astype(np.uint8), (~keyframe.hands).astype(np.uint8), MISSED)


def mask_iou(camera: Camera, shape: Shape, T_camera_object: np.ndarray, seen: Glimpse) -> float | None:
    """Intersection over union of the shape's outline and the mask, where nothing hides them; None where too much is hidden."""
    outline = silhouette(camera, shape, T_camera_object, seen.mask.shape, seen.scale, seen.origin_px)
    free = (~seen.hidden).astype(np.uint8)
    whole = cv2.countNonZero(outline)
    if not whole or cv2.countNonZero(outline & free) < MIN_VISIBLE * whole:
        return None if whole else 0.0
    return intersection_over_union(outline, seen.mask.astype(np.uint8), free)


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
    camera: Camera,
    shape: Shape,
    keyframe: Keyframe,
    T_camera_object: np.ndarray,
    before: EdgeView | None = None,
    outline_alone: bool = False,
) -> EdgeView | None:
    """None where the shape is not in front of the camera. What was visible from a pose that hardly differs, `before`, is not looked for anew."""
    if before is not None and _hardly_differ(before.T_found, T_camera_object):
        return before.moved(keyframe, T_camera_object)
    samples = edge_samples(camera, shape, T_camera_object, SPACING_PX, outline_alone)
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
        seen = edge_view(camera, shape, keyframe, T, seen, True) if i % 2 == 0 or seen is None else seen.moved(keyframe, T)
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
    H.flat[::7] += damping * H.flat[::7] + 1e-9
    move = np.linalg.solve(H, -g)
    length = max(math.hypot(*move[:3]) / 0.3, math.hypot(*move[3:]) / (0.15 * depth_m), 1.0)
    return move / length
