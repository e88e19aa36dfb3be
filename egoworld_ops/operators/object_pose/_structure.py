"""Objects of unknown shape: structure and motion from followed points up to one factor, and that factor from the hand that holds the object.

Two keyframes with enough turning between them give a first structure (five-point algorithm, Nister, 2004; plane-induced homographies, Malis and
Vargas, 2007, since a followed surface is often flat); the others are added by PnP, and all is adjusted together. The picture of a moving object
has no metric scale: it comes from depth of known error where the points are seen, or else from the hand's metric depth where the fingertips touch the
object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth_maps import DepthMaps
from egoworld_ops.operators.hand_size import hand_size
from egoworld_ops.operators.object_pose._bundle import Points
from egoworld_ops.operators.object_pose._keyframes import Keyframe
from egoworld_ops.operators.object_pose._points import solve_points
from egoworld_ops.operators.object_pose._solve import Estimate, SurfaceMap, every_frame, points_in
from egoworld_ops.operators.object_pose._tracking import Track
from egoworld_ops.operators.object_pose._view import rays
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert, make_transform, project, transform

MIN_COMMON = 20
MIN_PARALLAX_DEG = 3.0
MAX_POINT_PX = 2.0
TIPS = (4, 8, 12, 16, 20)
THUMB_TIP = 4
TOUCH_PX = 12.0
MIN_TOUCHES = 3
MAX_SPREAD = 0.15
MAX_TRIALS = 4
GIVEN_SIZE_ERROR_SHARE = 0.02
"""Standard error of the dimensions or the mesh that a person gives: two millimetres of ten centimetres. A guess; a ruler is not exact."""
UNEXPLAINED = 3.0
"""Loss of a sighting that no place explains, squared pixels."""
_NEIGHBOURS = 6


@dataclass(frozen=True, slots=True)
class Structured:
    """The result for one object: an estimate or a reason per sighting; its size (3,) in metres if known; what fixed the scale, and how surely."""

    outcomes: list[Estimate | Reason]
    dimensions_m: np.ndarray | None
    scale_source: str
    size_error_share: float = GIVEN_SIZE_ERROR_SHARE


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known in metres of a clip beside its objects: depth of a known error, and hands.

    Args:
        depths: maps as the camera sees them; none where their error is not known.
        depth_error_share: standard error of their depths.
        hands: joints (21, 3) of the hands in each frame in which they are seen, of their surest size.
        hand_error_share: standard error of that size.
    """

    depths: DepthMaps | None
    depth_error_share: float
    hands: Mapping[int, Sequence[np.ndarray]]
    hand_error_share: float

    @staticmethod
    def of(item: ClipInput, hand_error_share: float) -> Measured:
        """Of a clip; `hand_error_share` is that of hands whose size is a network's."""
        size, depth = hand_size(item.tables, item.sidecar), item.tables["depth"]
        hands: dict[int, list[np.ndarray]] = {}
        for row in item.tables["hand_pose"].select(["frame_index", "joints_m", "observed"]).to_pylist():
            if row["observed"] and row["joints_m"] is not None:
                hands.setdefault(row["frame_index"], []).append(np.asarray(row["joints_m"], np.float64) * size.factor)
        error_share = depth["depth_error_share"][0].as_py() if depth.num_rows else None
        known = DepthMaps(depth) if error_share is not None else None
        return Measured(known, error_share or 0.0, hands, hand_error_share if size.error_share is None else size.error_share)


@dataclass(frozen=True, slots=True)
class Structure:
    """Poses of keyframes (camera from object) and places of points, both in one unknown unit of length."""

    poses: dict[int, np.ndarray]
    places: dict[int, np.ndarray]


def solve_unknown(camera: Camera, track: Track, measured: Measured) -> Structured:
    """Poses of an object without given shape; null, with the reason, where turning or a holding hand is missing."""
    structure = recover(camera, track)
    if structure is None:
        return _none(track, f"no size is given, and the object turns less than {MIN_PARALLAX_DEG:g} degrees: its shape cannot be recovered")
    scale, source, error_share = scale_from_depth(camera, track, structure, measured.depths), "depth", measured.depth_error_share
    if scale is None:
        scale, source, error_share = scale_from_hand(camera, track, structure, measured.hands), "hand", measured.hand_error_share
    if scale is None:
        return _none(track, "no size is given, and neither depth of known error nor a hand that holds the object fixes the scale")
    structure, dimensions_m = _own_frame(structure, scale)
    anchors = {track.keyframes[k].position: (T, "tracked") for k, T in structure.poses.items()}
    first = min(anchors)
    anchors[first] = (anchors[first][0], "registered")
    outcomes = every_frame(camera, None, track, SurfaceMap(dict(structure.places)), anchors)
    return Structured(outcomes, dimensions_m, source, error_share)


def _none(track: Track, reason: str) -> Structured:
    return Structured([Reason("no_size", reason)] * len(track.sightings), None, "none")


def recover(camera: Camera, track: Track) -> Structure | None:
    """Structure of the segment with most keyframes; None where the points there do not turn enough."""
    by_segment: dict[int, list[int]] = {}
    for k, keyframe in enumerate(track.keyframes):
        by_segment.setdefault(keyframe.segment, []).append(k)
    if not by_segment:
        return None
    chosen = max(by_segment.values(), key=len)
    points = {k: points_in(track, track.keyframes[k]) for k in chosen}
    starts = _first_pairs(camera, points)
    grown = [s for s in (_grow(camera, points, i, j, T) for i, j, T in starts) if s is not None]
    if not grown:
        return None
    grown.sort(key=lambda s: (len(s.poses), len(s.places)), reverse=True)
    adjusted = [_adjust(camera, s, points) for s in grown[:MAX_TRIALS] if len(s.poses) == len(grown[0].poses)]
    return min(adjusted, key=lambda pair: pair[1])[0]


def _common(a: Points, b: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids, rows_a, rows_b = np.intersect1d(a[0], b[0], return_indices=True)
    return ids, a[1][rows_a], b[1][rows_b]


def _first_pairs(camera: Camera, points: dict[int, Points]) -> list[tuple[int, int, np.ndarray]]:
    """Hypotheses (i, j, T_j_i) of the relative pose of the best pair of keyframes, translation of unit length."""
    best: tuple[float, int, int] | None = None
    for i, j in combinations(points, 2):
        ids, a, b = _common(points[i], points[j])
        if len(ids) < MIN_COMMON:
            continue
        flow = b - a
        turning = float(np.median(np.linalg.norm(flow - np.median(flow, axis=0), axis=1)))
        value = turning * np.sqrt(len(ids))
        if best is None or value > best[0]:
            best = (value, i, j)
    if best is None:
        return []
    _, i, j = best
    _, a, b = _common(points[i], points[j])
    return [(i, j, T) for T in _relative_poses(camera, a, b)]


def _relative_poses(camera: Camera, a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """Hypotheses T_b_a, translation of unit length; those that OpenCV can make nothing of are left out."""
    cv2.setRNGSeed(0)
    found: list[np.ndarray] = []
    for hypotheses in (_by_essential_matrix, _by_homography):
        with suppress(cv2.error):  # degenerate sets of points
            found += hypotheses(camera, a, b)
    return found


def _by_essential_matrix(camera: Camera, a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    found = []
    E, _ = cv2.findEssentialMat(a, b, camera.K, method=cv2.RANSAC, prob=0.999, threshold=1.5)
    for block in [] if E is None else np.split(E, len(E) // 3):
        _, R, t, _ = cv2.recoverPose(block, a, b, camera.K)
        found.append(make_transform(R, t.ravel()))
    return found


def _by_homography(camera: Camera, a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    H, _ = cv2.findHomography(a, b, cv2.RANSAC, 2.0)
    if H is not None:
        _, turns, shifts, _ = cv2.decomposeHomographyMat(H, camera.K)
        for R, t in zip(turns, shifts, strict=True):
            length = float(np.linalg.norm(t))
            if length > 1e-6:
                found += [make_transform(R, sign * t.ravel() / length) for sign in (1, -1)]
    return found


def _triangulate(camera: Camera, poses: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Point (3,) seen in views (V, 4, 4) at pixels (V, 2), and the widest angle between its rays in degrees; None where it fits badly."""
    towards = rays(camera, pixels)
    rows = [ray[:2, None] * T[2:3] - T[:2] for ray, T in zip(towards, poses, strict=True)]
    x = np.linalg.svd(np.concatenate(rows))[2][-1]
    if abs(x[3]) < 1e-9:
        return None
    place = x[:3] / x[3]
    seen = np.stack([transform(T, place) for T in poses])
    if (seen[:, 2] <= 0).any() or np.linalg.norm(project(camera, seen) - pixels, axis=1).max() > 2 * MAX_POINT_PX:
        return None
    lines = np.stack([T[:3, :3].T @ r for T, r in zip(poses, towards, strict=True)])
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    return place, float(np.degrees(np.arccos(np.clip((lines @ lines.T).min(), -1, 1))))


def _places(camera: Camera, poses: dict[int, np.ndarray], points: dict[int, Points], min_angle_deg: float) -> dict[int, np.ndarray]:
    """All points that two or more posed keyframes see under a wide enough angle."""
    sightings: dict[int, list[tuple[int, np.ndarray]]] = {}
    for k in poses:
        for number, pixel in zip(*points[k], strict=True):
            sightings.setdefault(int(number), []).append((k, pixel))
    places = {}
    for number, seen in sightings.items():
        if len(seen) < 2:
            continue
        made = _triangulate(camera, np.stack([poses[k] for k, _ in seen]), np.stack([p for _, p in seen]))
        if made is not None and made[1] >= min_angle_deg:
            places[number] = made[0]
    return places


def _grow(camera: Camera, points: dict[int, Points], i: int, j: int, T_j_i: np.ndarray) -> Structure | None:
    """Structure from a first pair, extended to the keyframes around it."""
    poses = {i: np.eye(4), j: T_j_i}
    places = _places(camera, poses, points, MIN_PARALLAX_DEG)
    if len(places) < MIN_COMMON // 2:
        return None
    middle = np.median(np.stack(list(places.values())), axis=0)
    poses = {k: T @ make_transform(np.eye(3), middle) for k, T in poses.items()}
    places = {n: place - middle for n, place in places.items()}
    order = sorted(points, key=lambda k: min(abs(k - i), abs(k - j)))
    for k in order:
        if k in poses:
            continue
        surface = SurfaceMap(places)
        near = min(poses, key=lambda other: abs(other - k))
        agreement = solve_points(camera, *surface.known(*points[k]), poses[near])
        if agreement is not None and agreement.good:
            poses[k] = agreement.T_camera_object
            places = places | {n: p for n, p in _places(camera, poses, points, MIN_PARALLAX_DEG).items() if n not in places}
    return Structure(poses, places)


def _adjust(camera: Camera, structure: Structure, points: dict[int, Points]) -> tuple[Structure, float]:
    """Bundle adjustment of all poses but the first and of all points, with a soft loss; also the mean loss of a sighting."""
    from scipy.optimize import least_squares
    from scipy.sparse import lil_matrix

    views, numbers = sorted(structure.poses), sorted(structure.places)
    row_of = {n: r for r, n in enumerate(numbers)}
    seen = [(v, row_of[int(n)], p) for v, k in enumerate(views) for n, p in zip(*points[k], strict=True) if int(n) in row_of]
    view, point = np.array([s[0] for s in seen]), np.array([s[1] for s in seen])
    pixels = np.array([s[2] for s in seen])
    poses = np.stack([structure.poses[k] for k in views])
    start = np.concatenate([_vectors(poses).ravel(), np.concatenate([structure.places[n] for n in numbers])])
    fixed = 6

    def residuals(x: np.ndarray) -> np.ndarray:
        full = np.concatenate([start[:fixed], x])
        vectors, places = full[: 6 * len(views)].reshape(-1, 6), full[6 * len(views) :].reshape(-1, 3)
        turns = np.stack([cv2.Rodrigues(v[:3])[0] for v in vectors])
        camera_m = np.einsum("nij,nj->ni", turns[view], places[point]) + vectors[view, 3:]
        camera_m[:, 2] = np.maximum(camera_m[:, 2], 1e-3)
        return (project(camera, camera_m) - pixels).ravel()

    pattern = lil_matrix((2 * len(seen), len(start)), dtype=np.int8)
    rows = np.arange(len(seen))
    for part in range(2):
        for i in range(6):
            pattern[2 * rows + part, 6 * view + i] = 1
        for i in range(3):
            pattern[2 * rows + part, 6 * len(views) + 3 * point + i] = 1
    sparsity = pattern.tocsr()[:, fixed:]
    solved = least_squares(residuals, start[fixed:], jac_sparsity=sparsity, loss="soft_l1", x_scale="jac", max_nfev=25)
    full = np.concatenate([start[:fixed], solved.x])
    refined = full[: 6 * len(views)].reshape(-1, 6)
    error = np.linalg.norm(solved.fun.reshape(-1, 2), axis=1)
    worst = np.zeros(len(numbers))
    np.maximum.at(worst, point, error)
    places = full[6 * len(views) :].reshape(-1, 3)
    kept = {n: places[r] for n, r in row_of.items() if worst[r] < 3 * MAX_POINT_PX}
    adjusted = {k: make_transform(cv2.Rodrigues(v[:3])[0], v[3:]) for k, v in zip(views, refined, strict=True)}
    total = sum(len(points[k][0]) for k in views)
    return Structure(adjusted, kept), (float(solved.cost) + UNEXPLAINED * (total - len(seen))) / total


def _vectors(poses: np.ndarray) -> np.ndarray:
    return np.stack([np.concatenate([cv2.Rodrigues(T[:3, :3])[0].ravel(), T[:3, 3]]) for T in poses])


def scale_from_depth(camera: Camera, track: Track, structure: Structure, depths: DepthMaps | None) -> float | None:
    """Metres per unit of the structure: depth of the map where its points are seen over their own, median over the keyframes; None as with hands."""
    ratios = []
    for k, T in structure.poses.items() if depths is not None else ():
        found = depths.of(track.sightings[track.keyframes[k].position].frame_index) if depths is not None else None
        places, pixels = SurfaceMap(structure.places).known(*points_in(track, track.keyframes[k]))
        if found is None or len(places) < _NEIGHBOURS:
            continue
        seen = found.along(rays(camera, pixels)) / transform(T, places)[:, 2]
        if np.isfinite(seen).sum() >= _NEIGHBOURS:
            ratios.append(float(np.nanmedian(seen)))
    return _agreed(ratios)


def scale_from_hand(camera: Camera, track: Track, structure: Structure, hands: Mapping[int, Sequence[np.ndarray]]) -> float | None:
    """Metres per unit of the structure: depth of the touching fingertips over that of the points beside them, median over the keyframes.

    A hand touches where its thumb and another fingertip lie on the object or at its border. None where fewer than MIN_TOUCHES keyframes show
    that, or where they contradict each other.
    """
    ratios = []
    for k, T in structure.poses.items():
        keyframe = track.keyframes[k]
        for joints_m in hands.get(track.sightings[keyframe.position].frame_index, []):
            ratio = _touch_ratio(camera, track, keyframe, T, structure, joints_m)
            if ratio is not None:
                ratios.append(ratio)
    return _agreed(ratios)


def _agreed(ratios: Sequence[float]) -> float | None:
    if len(ratios) < MIN_TOUCHES:
        return None
    middle = float(np.median(ratios))
    spread = float(np.median(np.abs(np.array(ratios) - middle)))
    return middle if spread < MAX_SPREAD * middle else None


def _touch_ratio(
    camera: Camera, track: Track, keyframe: Keyframe, T_camera_object: np.ndarray, structure: Structure, joints_m: np.ndarray
) -> float | None:
    tips_m = joints_m[list(TIPS)]
    if tips_m[:, 2].min() <= 0:
        return None
    tips_px = project(camera, tips_m)
    touching = keyframe.at(keyframe.distance, tips_px) < TOUCH_PX
    if not touching[TIPS.index(THUMB_TIP)] or touching.sum() < 2:
        return None
    ids, pixels = points_in(track, keyframe)
    places, pixels = SurfaceMap(structure.places).known(ids, pixels)
    if len(places) < _NEIGHBOURS:
        return None
    depth = transform(T_camera_object, places)[:, 2]
    ratios = []
    for tip_px, tip_m in zip(tips_px[touching], tips_m[touching], strict=True):
        near = np.argsort(np.linalg.norm(pixels - tip_px, axis=1))[:_NEIGHBOURS]
        ratios.append(tip_m[2] / float(np.median(depth[near])))
    return float(np.median(ratios))


def _own_frame(structure: Structure, scale: float) -> tuple[Structure, np.ndarray]:
    """The structure in metres, about its own middle and along its main axes, and its extents (3,) along these."""
    cloud = np.stack(list(structure.places.values())) * scale
    middle = np.median(cloud, axis=0)
    axes = np.linalg.svd(cloud - middle, full_matrices=False)[2]
    axes[2] *= np.sign(np.linalg.det(axes))
    local = (cloud - middle) @ axes.T
    low, high = np.percentile(local, [2, 98], axis=0)
    T_structure_object = make_transform(axes.T, middle + axes.T @ ((low + high) / 2))
    places = {n: transform(invert(T_structure_object), p * scale) for n, p in structure.places.items()}
    poses = {k: make_transform(T[:3, :3], T[:3, 3] * scale) @ T_structure_object for k, T in structure.poses.items()}
    return replace(structure, poses=poses, places=places), np.maximum(high - low, 1e-4)
