"""Corners of the world followed through a clip, hands, arms and masked objects left out: what `camera` and `points` are made from.

They are searched in the picture as it is, and come as pixels of a pinhole camera with the same focal length and principal point: a lens is
straightened here, and what is made of the corners need not know it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.rows import by_frame
from egoworld_ops.types import Camera, Frame
from egoworld_ops.vision.left_out import left_out
from egoworld_ops.vision.lenses import unproject
from egoworld_ops.vision.tracks import Follower, Sight, allowed, shrunk, to_full


@dataclass(frozen=True, slots=True)
class View:
    """One frame: the corners seen in it, straightened, and their pixels (N, 2) in the picture as it is; the grey picture (h, w) uint8 in which they
    were searched, where they may be (h, w) uint8, and the pixels of the video that one of its pixels spans."""

    frame: Frame
    sight: Sight
    px: np.ndarray
    grey: np.ndarray
    free: np.ndarray
    scale: float


def views(item: ClipInput) -> Iterator[View]:
    """Decode the clip's frames and follow corners through them, one frame after the other; reads tables `masks` and `hand_pose`."""
    masks = by_frame(item.tables["masks"], ("frame_index", "rle"))
    hands = by_frame(item.tables["hand_pose"], ("frame_index", "joints_px"))
    follower = Follower()
    for frame in item.frames():
        grey, scale = shrunk(frame.rgb)
        own = masks.get(frame.index, ()), hands.get(frame.index, ())
        free = allowed(left_out(*own, (grey.shape[0], grey.shape[1]), scale) if any(own) else None, grey.shape)
        ids, px = follower.see(grey, free)
        full = to_full(px, scale)
        straight, shown = straightened(item.camera, full)
        yield View(frame, Sight(frame.index, frame.timestamp_s, ids[shown], straight), full[shown], grey, free, scale)


def straightened(camera: Camera, px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a pinhole camera of the same focal length and principal point shows what this camera shows at pixels (N, 2); and (N,) bool which of them
    it shows well: the others, far aside of a wide lens, are left out of the first."""
    if camera.is_pinhole:
        return px, np.ones(len(px), bool)
    rays = unproject(camera, px)
    shown = np.nan_to_num(rays[:, 2]) > _LEAST_AHEAD
    plane = rays[shown, :2] / rays[shown, 2:]
    return plane * [camera.fx_px, camera.fy_px] + [camera.cx_px, camera.cy_px], shown


_LEAST_AHEAD = 0.35
"""Cosine of the widest angle to the axis, 70 degrees: beyond, a pixel of the straightened picture is far less than one of the picture."""
