"""FoundationPose's way to a pose: many first rotations refined and the best taken, then followed from frame to frame; and whether it may be believed.

Wen, Yang, Kautz, Birchfield: "FoundationPose: Unified 6D Pose Estimation and Tracking of Novel Objects", CVPR 2024. Poses here are of the middle of
the mesh's box; `Estimator` alone knows of that. The networks detect no loss: each pose is rendered and compared with mask and depth. And a pose
follows its depth: where that is of another scale, so is the pose, and only the size of its outline, which the mesh's own size fixes, tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.object_pose._foundationpose_networks import SIDE_PX, Networks
from egoworld_ops.operators.object_pose._foundationpose_pairs import NEAR_M, REFINED, SCORED, View, for_network, nearest, observed, windows
from egoworld_ops.operators.object_pose._painted_mesh import PaintedMesh
from egoworld_ops.operators.object_pose._renderer import Renderer
from egoworld_ops.operators.object_pose._symmetry import Symmetry
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, rotations, transform

MAX_TURN_RAD = 0.349066
"""Of one round, about each axis: 20 degrees."""
IN_PLANE = 6
APART_DEG = 30.0
LEAST_PIXELS = 16
"""Of a mask with depth, and of a rendered object over it: fewer tell nothing."""
LEAST_SIZE, MOST_SIZE = 0.6, 8.0
"""The mesh's diameter over the extent that mask and depth show: hidden parts and a thin side make it larger, little makes it smaller than 1."""
USUAL_SIZE = 1.3
ROOM = 1.5
_SCALES = 1.02 ** np.arange(-16, 17)
_CLEARER = 0.02
"""Of overlap, by which an outline of another size must be better."""
_UNITS = {"millimetres": 1000.0, "centimetres": 100.0, "inches": 39.37}


@dataclass(frozen=True, slots=True)
class Fit:
    """How a rendered pose agrees with what is seen, where nothing else is in front.

    Args:
        mask_iou: intersection over union with the mask.
        depth_off_m: median distance along the camera's axis from the depth seen; NaN where too few depths are known.
        outline_scale: by which the outline must grow about the object's middle to overlap most with the mask; 1 where that is hardly better.
        pixel_share: a pixel over the width of the mask, the root of its area.
    """

    mask_iou: float
    depth_off_m: float
    outline_scale: float = 1.0
    pixel_share: float = 1.0


@dataclass(frozen=True)
class Target:
    """One object in one frame.

    Args:
        view: what the camera sees.
        mask: (H, W) bool, the object.
        hidden: (H, W) bool, where other things are in front of it, or nothing is seen.
    """

    view: View
    mask: np.ndarray
    hidden: np.ndarray


class Estimator:
    """Poses of one object.

    Args:
        networks: refiner and scorer.
        renderer: of the mesh.
        mesh: the object.
        micro_batch: pairs of pictures refined at once.
    """

    def __init__(self, networks: Networks, renderer: Renderer, mesh: PaintedMesh, micro_batch: int) -> None:
        self._networks, self._renderer, self._mesh, self._micro_batch = networks, renderer, mesh, micro_batch
        self.starts = first_rotations(mesh.symmetry)
        """(N, 3, 3) rotations that a registration begins with: 252 where nothing is symmetric."""

    def register(self, target: Target, rounds: int) -> np.ndarray | Reason:
        """T_camera_object (4, 4) by mask and depth alone; or why there is none."""
        position_m = first_position(target)
        if isinstance(position_m, Reason):
            return position_m
        if isinstance(wrong := wrong_size(self._mesh.diameter_m, target), Reason):
            return wrong
        R, t_m = self._refined(target.view, self.starts, np.tile(position_m, (len(self.starts), 1)), rounds)
        scores = self._networks.score(*self._pairs(target.view, R, t_m, SCORED))
        best = int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))
        return self._of_object(R[best], t_m[best])

    def follow(self, view: View, T_camera_object: np.ndarray, rounds: int) -> np.ndarray:
        """T_camera_object (4, 4) from the one before."""
        R, t_m = self._refined(view, T_camera_object[None, :3, :3], transform(T_camera_object, self._mesh.centre_m)[None], rounds)
        return self._of_object(R[0], t_m[0])

    def fit(self, target: Target, T_camera_object: np.ndarray) -> Fit:
        """A pose beside mask and depth."""
        R, t_m = T_camera_object[None, :3, :3], transform(T_camera_object, self._mesh.centre_m)[None]
        if not np.isfinite(T_camera_object).all() or t_m[0, 2] <= 0:
            return Fit(0.0, np.nan)
        window = windows(target.view.camera, t_m, self._mesh.diameter_m, SCORED)
        rendered = self._renderer(target.view.camera, R, t_m, window, SIDE_PX)
        free = nearest(~target.hidden, window[0])
        seen, masked = rendered.seen[0] & free, nearest(target.mask & ~target.hidden, window[0])
        depth_m = nearest(target.view.depth_m, window[0])
        both, pixel = seen & masked, window[0, 2] ** 2
        union_px = pixel * (seen.sum() - both.sum()) + (target.mask & ~target.hidden).sum()
        known = both & (depth_m > 0)
        off_m = np.abs(rendered.xyz_m[0, ..., 2] - depth_m)[known]
        iou = float(min(pixel * both.sum() / max(union_px, 1), 1))
        off = float(np.median(off_m)) if known.sum() >= LEAST_PIXELS else np.nan
        return Fit(iou, off, outline_scale(rendered.seen[0], masked, free), 1 / np.sqrt(max(target.mask.sum(), 1)))

    def _refined(self, view: View, R: np.ndarray, t_m: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        for _ in range(rounds):
            steps = range(0, len(R), self._micro_batch)
            parts = [self._step(view, R[i : i + self._micro_batch], t_m[i : i + self._micro_batch]) for i in steps]
            R, t_m = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        return R, t_m

    def _step(self, view: View, R: np.ndarray, t_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said = self._networks.refine(*self._pairs(view, R, t_m, REFINED))
        shift, turn = (np.asarray(part, np.float64) for part in said)
        turns = rotations(np.tanh(turn) * MAX_TURN_RAD).transpose(0, 2, 1)
        return turns @ R, t_m + shift * self._mesh.diameter_m / 2

    def _pairs(self, view: View, R: np.ndarray, t_m: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
        """Rendered and observed pictures of poses, as the networks want them."""
        boxes = windows(view.camera, t_m, self._mesh.diameter_m, ratio)
        rendered = self._renderer(view.camera, R, t_m, boxes, SIDE_PX)
        size, near_m = self._mesh.diameter_m, NEAR_M[ratio]
        return (
            for_network(rendered.rgb, rendered.xyz_m, t_m, size, near_m),
            for_network(*observed(view, boxes), t_m, size, near_m),
        )

    def _of_object(self, R: np.ndarray, t_m: np.ndarray) -> np.ndarray:
        return make_transform(R, t_m - R @ self._mesh.centre_m)


def outline_scale(seen: np.ndarray, masked: np.ndarray, free: np.ndarray) -> float:
    """By which an outline must grow about the middle of its window to overlap most with a mask, where nothing is in front; (n, n) bool each."""
    middle, overlaps = (SIDE_PX - 1) / 2, []
    for scale in _SCALES:
        grown = np.array([[scale, 0, middle * (1 - scale)], [0, scale, middle * (1 - scale)]])
        outline = cv2.warpAffine(seen.astype(np.uint8), grown, (SIDE_PX, SIDE_PX), flags=cv2.INTER_NEAREST).astype(bool) & free
        overlaps.append((outline & masked).sum() / max((outline | masked).sum(), 1))
    best = int(np.argmax(overlaps))
    return float(_SCALES[best]) if overlaps[best] - overlaps[len(_SCALES) // 2] > _CLEARER else 1.0


def first_rotations(symmetry: Symmetry) -> np.ndarray:
    """(N, 3, 3) rotations into the camera frame: 42 directions of view, each turned about the camera's axis by every 60 degrees; 252 of them.

    Of those that a symmetry brings to within 30 degrees of each other one is kept.
    """
    import trimesh

    forward = -np.asarray(trimesh.creation.icosphere(subdivisions=1).vertices, np.float64)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    across = np.cross(forward, np.eye(3)[np.abs(forward).argmin(1)])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    R = np.stack([across, np.cross(forward, across), forward], 1)
    turns = rotations(np.outer(np.arange(IN_PLANE) * 2 * np.pi / IN_PLANE, [0, 0, 1]))
    every = np.einsum("tij,vjk->vtik", turns, R).reshape(-1, 3, 3)
    kept = every[:1]
    for candidate in every[1:]:
        if symmetry.angles_deg(candidate, kept).min() >= APART_DEG:
            kept = np.concatenate([kept, candidate[None]])
    return kept


def first_position(target: Target) -> np.ndarray | Reason:
    """(3,) on the ray through the middle of the mask's box, as deep as the mask's median."""
    depths = target.view.depth_m[target.mask]
    if (depths > 0).sum() < LEAST_PIXELS:
        return Reason("no_depth", f"{int((depths > 0).sum())} pixels of the mask have a depth, {LEAST_PIXELS} are needed")
    u, v, _, _ = _box(target.mask)
    camera = target.view.camera
    return np.array([(u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px, 1]) * np.median(depths[depths > 0])


def wrong_size(diameter_m: float, target: Target) -> Reason | None:
    """Why the mesh cannot be what mask and depth show; None where it can be. Call it where `first_position` found depths."""
    depths = target.view.depth_m[target.mask]
    _, _, width, height = _box(target.mask)
    camera = target.view.camera
    seen_m = float(np.median(depths[depths > 0])) * max(width / camera.fx_px, height / camera.fy_px)
    ratio = diameter_m / seen_m
    if LEAST_SIZE <= ratio <= MOST_SIZE:
        return None
    unit = min(_UNITS, key=lambda name: abs(np.log(ratio / _UNITS[name] / USUAL_SIZE)))
    likely = LEAST_SIZE <= ratio / _UNITS[unit] <= MOST_SIZE
    guess = f"it seems to be in {unit}, and metres are wanted" if likely else "one of them is in another unit than metres"
    return Reason("wrong_scale", f"the mesh is {diameter_m:.3g} m across, and mask and depth show {seen_m:.3g} m: {guess}")


def part_around(camera: Camera, mask: np.ndarray, distance_m: float | None, diameter_m: float) -> tuple[slice, slice]:
    """Rows and columns of the picture that hold the object, though the mask may be of a part of it; its distance may be unknown."""
    u, v, width, height = _box(mask)
    size_px = max(camera.fx_px, camera.fy_px) * diameter_m / distance_m if distance_m else 0.0
    reach = ROOM * max(width, height, size_px)
    rows, columns = (
        slice(max(int(middle - reach), 0), min(int(middle + reach) + 2, size)) for middle, size in zip((v, u), mask.shape, strict=True)
    )
    return rows, columns


def _box(mask: np.ndarray) -> tuple[float, float, int, int]:
    """Middle (u, v), width and height of a mask's box, px."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2, int(width), int(height)
