"""Drawing the layers of a frame onto a picture of it: masks, boxes, hand skeletons, object axes and boxes, robot hands. OpenCV."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import cv2
import numpy as np

from egoworld_ops.report.layer_values import BONES, FrameLayers, Hand, Line, Mask, Thing

Color = tuple[int, int, int]

ROLE_COLORS: Mapping[str, Color] = {
    "hand_left": (64, 156, 255),
    "hand_right": (255, 140, 40),
    "object": (90, 220, 100),
    "hand_other": (200, 120, 220),
}
UNSURE_COLOR: Color = (170, 170, 170)
ROBOT_COLOR: Color = (240, 220, 90)
AXIS_COLORS: Sequence[Color] = ((255, 60, 60), (60, 230, 60), (80, 120, 255))
"""x red, y green, z blue."""
TEXT_GROUND: Color = (24, 24, 28)
FONT_SCALE = 0.36
TINT = 0.35
DIFFERS_PX = 3.0
"""Pixels of the picture, for each of its pen's, by which a joint must move in fusion for both hands to be drawn."""
Hands = Literal["both", "raw", "fused"]
_STAGE_OF = {"raw": "hand_pose", "fused": "fusion"}
_SHIFT = 4


def draw(rgb: np.ndarray, scale: float, frame: FrameLayers, show: Collection[str], pen_px: int = 1, hands: Hands = "both") -> np.ndarray:
    """A copy of the picture (H, W, 3) uint8 with the layers of its frame drawn.

    Args:
        scale: picture pixels over the video's pixels.
        show: the names of the layers that are drawn.
        pen_px: width of thin lines; what is written grows with it.
        hands: as they were found, after fusion, or both: then the skeleton is that after fusion, and the one as it was found is drawn thin and grey
            where it is seen to differ, and as a skeleton where fusion has none.
    """
    picture = rgb.copy()
    if "masks" in show:
        for mask in frame.masks:
            _mask(picture, scale, mask, pen_px)
    if "objects" in show:
        for thing in frame.objects:
            _thing(picture, scale, thing, pen_px)
    if "hands" in show:
        _hands(picture, scale, frame, hands, pen_px)
    if "robots" in show:
        for robot in frame.robots:
            lines(picture, robot.bones_px, scale, (0, 0, 0), 3 * pen_px)
            lines(picture, robot.bones_px, scale, ROBOT_COLOR, pen_px)
    if "boxes" in show:
        for box in frame.boxes:
            x, y, width, height = box.box_px
            corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
            lines(picture, [corners], scale, ROLE_COLORS[box.role], pen_px)
            said = [box.name[:16], *([f"{box.score:.2f}"] if box.score is not None else []), *([box.phase] if box.phase else [])]
            _name(picture, " ".join(said), [x, y + height + 16 * pen_px / scale], scale, ROLE_COLORS[box.role], pen_px)
    if "masks" in show:
        for mask in frame.masks:
            _name(picture, mask.name[:16], mask.box_px, scale, ROLE_COLORS[mask.role], pen_px)
    return picture


def text(picture: np.ndarray, line: str, at_px: tuple[int, int], color: Color, pen_px: int = 1) -> None:
    """Write a line on a dark ground, its baseline starting at `at_px`."""
    printable = line.encode("ascii", "replace").decode("ascii")
    size = FONT_SCALE * pen_px
    (width, height), below = cv2.getTextSize(printable, cv2.FONT_HERSHEY_SIMPLEX, size, pen_px)
    left, base = at_px
    cv2.rectangle(picture, (left - 2, base - height - 2), (left + width + 1, base + below - 1), TEXT_GROUND, cv2.FILLED)
    cv2.putText(picture, printable, at_px, cv2.FONT_HERSHEY_SIMPLEX, size, color, pen_px, cv2.LINE_AA)


def lines(picture: np.ndarray, drawn: Sequence[Line], scale: float, color: Color, thickness: int = 1) -> None:
    """Draw lines whose points are in pixels of the video."""
    for line in drawn:
        at = np.round(to_picture(np.array(line), scale) * 2**_SHIFT).astype(np.int32)
        cv2.polylines(picture, [at], False, color, thickness, cv2.LINE_AA, _SHIFT)


def _mask(picture: np.ndarray, scale: float, mask: Mask, pen_px: int) -> None:
    outlines = [np.round(to_picture(np.array(line), scale) * 2**_SHIFT).astype(np.int32) for line in mask.outlines_px]
    if not outlines:
        return
    inside = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(inside, outlines, 1, shift=_SHIFT)
    color = ROLE_COLORS[mask.role]
    tinted = picture[inside.astype(bool)]
    picture[inside.astype(bool)] = np.round((1 - TINT) * tinted + TINT * np.array(color)).astype(np.uint8)
    cv2.polylines(picture, outlines, True, color, pen_px, cv2.LINE_AA, _SHIFT)


def _name(picture: np.ndarray, said: str, at_video_px: Sequence[float], scale: float, color: Color, pen_px: int) -> None:
    """Write above a place, within the picture and below its first line of text."""
    left, top = to_picture(np.array(at_video_px[:2]), scale).round().astype(int).tolist()
    height, width = picture.shape[:2]
    text(picture, said, (max(min(left, width - 60 * pen_px), 2), min(max(top - 4, 28 * pen_px), height - 4)), color, pen_px)


def _hands(picture: np.ndarray, scale: float, frame: FrameLayers, which: Hands, pen_px: int) -> None:
    raw, fused = ({h.hand: h for h in frame.hands if h.stage == stage and which in (word, "both")} for word, stage in _STAGE_OF.items())
    for name, hand in raw.items():
        if name not in fused:
            _skeleton(picture, scale, hand, ROLE_COLORS[f"hand_{name}"] if hand.solved else UNSURE_COLOR, pen_px)
        elif _apart(hand, fused[name]) * scale > DIFFERS_PX * pen_px:
            lines(picture, _bones(hand), scale, UNSURE_COLOR, pen_px)
    for name, hand in fused.items():
        _skeleton(picture, scale, hand, ROLE_COLORS[f"hand_{name}"] if hand.observed else UNSURE_COLOR, pen_px)


def _skeleton(picture: np.ndarray, scale: float, hand: Hand, color: Color, pen_px: int) -> None:
    bones = _bones(hand)
    lines(picture, bones, scale, (0, 0, 0), 3 * pen_px)
    lines(picture, bones, scale, (255, 255, 255), pen_px)
    lines(picture, [[joint, joint] for joint in hand.joints_px if joint], scale, color, 3 * pen_px)


def _bones(hand: Hand) -> list[Line]:
    ends = ((hand.joints_px[a], hand.joints_px[b]) for a, b in BONES)
    return [[a, b] for a, b in ends if a and b]


def _apart(a: Hand, b: Hand) -> float:
    """The largest distance between the same joint of two skeletons, pixels of the video."""
    pairs = [(p, q) for p, q in zip(a.joints_px, b.joints_px, strict=True) if p and q]
    return max((float(np.hypot(p[0] - q[0], p[1] - q[1])) for p, q in pairs), default=0.0)


def _thing(picture: np.ndarray, scale: float, thing: Thing, pen_px: int) -> None:
    """The box of its dimensions, where known, and its axes; grey where the pose does not stand."""
    lines(picture, thing.edges_px, scale, ROLE_COLORS["object"] if thing.stands else UNSURE_COLOR, pen_px)
    for axis, color in zip(thing.axes_px, AXIS_COLORS, strict=True):
        if axis:
            lines(picture, [axis], scale, color if thing.stands else UNSURE_COLOR, (2 if thing.stands else 1) * pen_px)


def to_picture(points_px: np.ndarray, scale: float) -> np.ndarray:
    """Video pixels to picture pixels; (0, 0) is the centre of the first pixel in both."""
    return (points_px + 0.5) * scale - 0.5
