"""Drawing what was found onto a picture: masks, hand skeletons, object axes and cuboids. OpenCV; coordinates in pixels of the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import cv2
import numpy as np

from egoworld_ops.operators.rows import camera_of, pose_of, standing_pose_of
from egoworld_ops.types import Camera
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import project, transform

Color = tuple[int, int, int]

ROLE_COLORS: Mapping[str, Color] = {"hand_left": (64, 156, 255), "hand_right": (255, 140, 40), "object": (90, 220, 100)}
UNSURE_COLOR: Color = (170, 170, 170)
AXIS_COLORS: Sequence[Color] = ((255, 60, 60), (60, 230, 60), (80, 120, 255))
"""x red, y green, z blue."""
TEXT_GROUND: Color = (24, 24, 28)
FONT_SCALE = 0.36
TINT = 0.35
FINGER_CHAINS = tuple((0, *range(1 + 4 * f, 5 + 4 * f)) for f in range(5))
DEFAULT_AXIS_M = 0.05
DIFFERS_PX = 3.0
"""Pixels of the picture by which a joint must move in fusion for both hands to be drawn."""
FAR_PX = 10_000
"""Beyond this a point is not drawn: OpenCV's fixed-point coordinates overflow."""
_SHIFT = 4
_BENT_PARTS = 8
"""Straight pieces of a line that a lens bends."""


def draw(rgb: np.ndarray, scale: float, rows: Mapping[str, list[dict[str, Any]]], camera: Camera | None = None) -> np.ndarray:
    """A copy of the picture (H, W, 3) uint8 with the rows of its frame drawn.

    Args:
        scale: picture pixels over the video's pixels.
        camera: that of the clip's hands, whose rows of `fusion` do not name it; without it they are not drawn.
    """
    picture = rgb.copy()
    for row in rows.get("masks", ()):
        _mask(picture, row)
    for row in rows.get("object_pose", ()):
        _object(picture, scale, row)
    _hands(picture, scale, rows, camera)
    for row in rows.get("masks", ()):
        left_px, top_px = to_picture(np.array(row["bbox_px"][:2]), scale).round().astype(int).tolist()
        name = row["label"] or row["role"].removeprefix("hand_")
        text(picture, name[:16], (max(min(left_px, picture.shape[1] - 60), 2), max(top_px - 4, 28)), ROLE_COLORS[row["role"]])
    return picture


def text(picture: np.ndarray, line: str, at_px: tuple[int, int], color: Color) -> None:
    """Write a line on a dark ground, its baseline starting at `at_px`."""
    printable = line.encode("ascii", "replace").decode("ascii")
    (width, height), below = cv2.getTextSize(printable, cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, 1)
    left, base = at_px
    cv2.rectangle(picture, (left - 2, base - height - 2), (left + width + 1, base + below - 1), TEXT_GROUND, cv2.FILLED)
    cv2.putText(picture, printable, at_px, cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, color, 1, cv2.LINE_AA)


def lines(picture: np.ndarray, segments_px: np.ndarray, color: Color, thickness: int = 1) -> None:
    """Draw (n, 2, 2) segments; those with a point that is far away or not a number are left out."""
    for start, end in segments_px:
        if np.isfinite([start, end]).all() and np.abs([start, end]).max() < FAR_PX:
            a, b = (np.round(p * 2**_SHIFT).astype(int).tolist() for p in (start, end))
            cv2.line(picture, a, b, color, thickness, cv2.LINE_AA, _SHIFT)


def _mask(picture: np.ndarray, row: Mapping[str, Any]) -> None:
    height, width = picture.shape[:2]
    mask = cv2.resize(rle.decode(row["rle"]).astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA) >= 128
    color = np.array(ROLE_COLORS[row["role"]])
    picture[mask] = np.round((1 - TINT) * picture[mask] + TINT * color).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, ROLE_COLORS[row["role"]], 1, cv2.LINE_AA)


def _hands(picture: np.ndarray, scale: float, rows: Mapping[str, list[dict[str, Any]]], camera: Camera | None) -> None:
    """Each hand after fusion, and as it was found in the frame where that is seen to differ; as found alone where fusion has none."""
    fused = {row["hand"]: row for row in rows.get("fusion", ()) if row["joints_m"] is not None and camera is not None}
    smooth = {hand: to_picture(project(camera, np.array(row["joints_m"])), scale) for hand, row in fused.items() if camera is not None}
    for row in rows.get("hand_pose", ()):
        solved = row["joints_m"] is not None
        found = to_picture(project(camera_of(row), np.array(row["joints_m"])) if solved else np.array(row["joints_px"]), scale)
        if row["hand"] not in smooth:
            _skeleton(picture, found, ROLE_COLORS[f"hand_{row['hand']}"] if solved else UNSURE_COLOR)
        elif np.linalg.norm(found - smooth[row["hand"]], axis=1).max() > DIFFERS_PX:
            lines(picture, _bones(found), UNSURE_COLOR, 1)
    for hand, at_px in smooth.items():
        _skeleton(picture, at_px, ROLE_COLORS[f"hand_{hand}"] if fused[hand]["observed"] else UNSURE_COLOR)


def _skeleton(picture: np.ndarray, joints_px: np.ndarray, color: Color) -> None:
    bones = _bones(joints_px)
    lines(picture, bones, (0, 0, 0), 3)
    lines(picture, bones, (255, 255, 255), 1)
    lines(picture, np.repeat(joints_px[:, None], 2, axis=1), color, 3)


def _bones(joints_px: np.ndarray) -> np.ndarray:
    """(20, 2, 2) segments of (21, 2) joints."""
    return np.array([[joints_px[a], joints_px[b]] for chain in FINGER_CHAINS for a, b in pairwise(chain)])


def _object(picture: np.ndarray, scale: float, row: Mapping[str, Any]) -> None:
    """The cuboid of its dimensions, where known, and its axes; grey where the pose does not stand."""
    T_camera_object = pose_of(row)
    if T_camera_object is None:
        return
    stands = standing_pose_of(row) is not None
    half_m = np.array(row["dimensions_m"] or [2 * DEFAULT_AXIS_M] * 3) / 2

    def segments_px(segments_m: np.ndarray) -> np.ndarray:
        camera = camera_of(row)
        share = np.linspace(0, 1, 2 if camera.is_pinhole else _BENT_PARTS + 1)[:, None]
        along_m = segments_m[:, :1] * (1 - share) + segments_m[:, 1:] * share
        along_px = to_picture(project(camera, transform(T_camera_object, along_m)), scale)
        return np.stack([along_px[:, :-1], along_px[:, 1:]], 2).reshape(-1, 2, 2)

    if row["dimensions_m"] is not None:
        lines(picture, segments_px(_cuboid_edges(half_m)), ROLE_COLORS["object"] if stands else UNSURE_COLOR)
    for axis, color in enumerate(AXIS_COLORS):
        end_m = np.eye(3)[axis] * max(half_m[axis], half_m.max() / 2) * 1.3
        lines(picture, segments_px(np.stack([np.zeros(3), end_m])[None]), color if stands else UNSURE_COLOR, 2 if stands else 1)


def _cuboid_edges(half_m: np.ndarray) -> np.ndarray:
    """(12, 2, 3) edges of a cuboid about the origin."""
    corners = np.array(list(product((-1, 1), repeat=3)))
    edges = [[a, b] for a in corners for b in corners if (b - a).sum() == 2 and np.count_nonzero(b - a) == 1]
    return half_m * np.array(edges, np.float64)


def to_picture(points_px: np.ndarray, scale: float) -> np.ndarray:
    """Video pixels to picture pixels; (0, 0) is the centre of the first pixel in both."""
    return (points_px + 0.5) * scale - 0.5
