"""Pairs of pictures for FoundationPose's networks: the mesh rendered at a pose, and what the camera sees there, in the same window of the picture.

A picture is (160, 160, 6) float32: red, green, blue from 0 to 1, and x, y, z of what is seen, less the pose's position, in units of half the mesh's
diameter; coordinates are zero where nothing is known or where it is two units away. Wen et al., "FoundationPose", CVPR 2024, and its published code.

Pixel (i, j) of both pictures shows the same ray: the place (left + i step, top + j step) of the camera's picture, whose pixels have their centres
at whole numbers. In the published code the two differ by up to half a pixel of either, see ADR 52.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._foundationpose_networks import SIDE_PX
from egoworld_ops.types import Camera

REFINED, SCORED = 1.2, 1.1
"""Half a window's side over half the mesh's diameter: for the refiner, and for the scorer."""
NEAR_M = {REFINED: 0.001, SCORED: 0.1}
"""What is nearer to the camera counts as unknown."""
MAX_AWAY = 2.0
_LEAST_DEPTH_M = 1e-3
_RADIUS_PX = 2
_ERODED_M, _ERODED_PIXELS, _ERODED_SHARE = 0.001, 1.33, 0.8
_NEAR_MEAN_M = 0.01
_SIGMA_PX = 2.0


@dataclass(frozen=True)
class View:
    """What a pinhole camera sees in one frame.

    Args:
        camera: the camera.
        rgb: (H, W, 3) uint8.
        xyz_m: (H, W, 3) float32, the place that each pixel sees, camera frame; zeros where its depth is not known.
    """

    camera: Camera
    rgb: np.ndarray
    xyz_m: np.ndarray

    @property
    def depth_m(self) -> np.ndarray:
        """(H, W) float32, zero where it is not known."""
        return np.asarray(self.xyz_m[..., 2])


def view_of(camera: Camera, rgb: np.ndarray, depth_m: np.ndarray, part: tuple[slice, slice]) -> View:
    """The view of a picture and of the depth in a part of it, without flying pixels at edges, and without noise.

    Args:
        camera: a pinhole.
        rgb: (H, W, 3) uint8.
        depth_m: (h, w) along the camera's axis, of the part; not finite or zero where it is unknown.
        part: its rows and columns; beyond it no depth is known.
    """
    raw = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)
    depth = smoothed(eroded(raw, max(camera.fx_px, camera.fy_px)))
    rows, columns = np.ogrid[part]
    x, y = (columns - camera.cx_px) / camera.fx_px, (rows - camera.cy_px) / camera.fy_px
    xyz = np.zeros(rgb.shape, np.float32)
    xyz[part] = np.stack([x * depth, y * depth, depth], -1)
    return View(camera, rgb, xyz)


def _around(depth_m: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """The depths of the pixels around each one, by their squared distance in pixels, (H, W) each; zero beyond the picture."""
    r, (height, width) = _RADIUS_PX, depth_m.shape
    padded = np.pad(depth_m, r)
    steps = [(i, j) for i in range(2 * r + 1) for j in range(2 * r + 1)]
    return [((i - r) ** 2 + (j - r) ** 2, padded[i : i + height, j : j + width]) for i, j in steps]


def eroded(depth_m: np.ndarray, focal_px: float) -> np.ndarray:
    """Depth without the pixels of which most neighbours are unknown, or more than a millimetre away: more where a pixel is as wide as that.

    With a millimetre at every focal length, as published, most of a slanted surface is lost in a picture of few lines.
    """
    off = np.zeros(depth_m.shape, np.float32)
    near_m = np.maximum(np.float32(_ERODED_M), np.float32(_ERODED_PIXELS / focal_px) * depth_m)
    for _, other in _around(depth_m):
        off += (other <= 0) | (np.abs(other - depth_m) > near_m)
    return np.where(off > _ERODED_SHARE * (2 * _RADIUS_PX + 1) ** 2, np.float32(0), depth_m)


def smoothed(depth_m: np.ndarray) -> np.ndarray:
    """Depth as the mean of the known neighbours within a centimetre of their mean, the nearer ones weighing more."""
    total, count = np.zeros_like(depth_m), np.zeros_like(depth_m)
    neighbours = _around(depth_m)
    for _, other in neighbours:
        total += other
        count += other > 0
    mean, total, weights = total / np.maximum(count, 1), np.zeros_like(depth_m), np.zeros_like(depth_m)
    for squared_px, other in neighbours:
        weight = np.float32(np.exp(-squared_px / (2 * _SIGMA_PX**2))) * ((other > 0) & (np.abs(other - mean) < _NEAR_MEAN_M))
        total += weight * other
        weights += weight
    return np.where((depth_m > 0) & (weights > 0), total / np.maximum(weights, np.float32(1e-9)), depth_m)


def windows(camera: Camera, t_m: np.ndarray, diameter_m: float, ratio: float) -> np.ndarray:
    """(N, 3) windows (left, top, step) around objects at t_m (N, 3), as wide as they are at most, times `ratio`."""
    z = np.maximum(t_m[:, 2], _LEAST_DEPTH_M)
    middle = np.stack([t_m[:, 0] / z * camera.fx_px + camera.cx_px, t_m[:, 1] / z * camera.fy_px + camera.cy_px], 1)
    reach = ratio * diameter_m / 2 / z * max(camera.fx_px, camera.fy_px)
    corner = np.rint(middle - reach[:, None])
    return np.column_stack([corner, np.maximum(np.rint(2 * reach), 1) / SIDE_PX])


def observed(view: View, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of windows (N, 3) the colours (N, 160, 160, 3) float32 0 to 1, between pixels, and the places (N, 160, 160, 3) float32, m, of the nearest."""
    size = (SIDE_PX, SIDE_PX)
    rgb = np.stack([cv2.warpAffine(view.rgb, _from_window(box), size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) for box in boxes])
    xyz = np.stack([nearest(view.xyz_m, box) for box in boxes])
    return rgb.astype(np.float32) / 255, xyz


def nearest(picture: np.ndarray, window: np.ndarray) -> np.ndarray:
    """What a picture (H, W, ...) has at the pixels nearest to those of a window (3,); zero beyond it."""
    (height, width), (left, top, step) = picture.shape[:2], window
    steps = np.arange(SIDE_PX) * step
    rows, columns = np.floor(top + steps + 0.5).astype(np.int64), np.floor(left + steps + 0.5).astype(np.int64)
    found = picture[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    return np.where(inside.reshape(inside.shape + (1,) * (found.ndim - 2)), found, np.zeros((), picture.dtype))


def _from_window(window: np.ndarray) -> np.ndarray:
    left, top, step = window
    return np.array([[step, 0, left], [0, step, top]])


def for_network(rgb: np.ndarray, xyz_m: np.ndarray, t_m: np.ndarray, diameter_m: float, near_m: float) -> np.ndarray:
    """(N, 160, 160, 6) of colours and places (N, 160, 160, 3) around poses at t_m (N, 3)."""
    away = (xyz_m - t_m[:, None, None].astype(np.float32)) / np.float32(diameter_m / 2)
    known = (xyz_m[..., 2:] >= near_m) & (np.abs(away) < MAX_AWAY).all(-1, keepdims=True)
    return np.concatenate([rgb, np.where(known, away, np.float32(0))], -1)
