"""A frame with its layers: the picture, and below it a strip with the robot hands, and in words who holds what, what happens and what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from egoworld_ops.report import _overlay, _robot_view
from egoworld_ops.report.layer_values import FrameLayers, Robot
from egoworld_ops.types import HANDS

STRIP_HEIGHT_PX = 108
INSET_WIDTH_PX = 104
LINE_PX = 14
COLUMN_PX = 160
BACKGROUND = (24, 24, 28)
TEXT = (235, 235, 235)
WARNING = (255, 190, 60)
NOT_METRIC = "assumed focal length: not metric"

_HELD = {"none": "free", "unknown": "hold unknown"}


@dataclass(frozen=True, slots=True)
class Look:
    """What is drawn and how.

    Args:
        over: layers that are drawn over the picture.
        below: layers that stand in the strip below it; there is none where this is empty.
        hands: as they were found, after fusion, or both; see `_overlay.draw`.
        pen_px: width of thin lines; all that is not of the picture grows with it.
    """

    over: Collection[str]
    below: Collection[str]
    hands: _overlay.Hands = "both"
    pen_px: int = 1


def tile(
    rgb: np.ndarray,
    scale: float,
    timestamp_s: float,
    frame: FrameLayers,
    look: Look,
    notes: Sequence[str] = (),
    path: np.ndarray | None = None,
) -> np.ndarray:
    """(H, W, 3) uint8: the picture with its layers drawn, and the strip below it.

    Args:
        rgb: (h, w, 3) uint8, the picture scaled down.
        scale: its pixels over the video's.
        notes: lines of warning at the picture's bottom.
        path: (n, 2) the camera's path from above, within [0, 1]; the camera of this frame is at its first point.
    """
    pen = look.pen_px
    drawn = _overlay.draw(rgb, scale, frame, look.over, pen, look.hands)
    _overlay.text(drawn, f"{frame.frame_index}  {timestamp_s:.2f} s", (4 * pen, 13 * pen), TEXT, pen)
    said = [*notes, *([] if frame.metric else [NOT_METRIC])]
    for i, line in enumerate(reversed(said)):
        _overlay.text(drawn, line, (4 * pen, drawn.shape[0] - 6 * pen - i * LINE_PX * pen), WARNING, pen)
    if not look.below:
        return drawn
    width = max(drawn.shape[1], 2 * INSET_WIDTH_PX * pen)
    whole = np.full((drawn.shape[0] + STRIP_HEIGHT_PX * pen, width, 3), BACKGROUND, np.uint8)
    whole[: drawn.shape[0], : drawn.shape[1]] = drawn
    _strip(whole[drawn.shape[0] :], frame, look, path)
    return whole


def _strip(strip: np.ndarray, frame: FrameLayers, look: Look, path: np.ndarray | None) -> None:
    """Draw the robot hands, left to the left; between them columns of words; and the camera's path, if there is room."""
    pen, words = look.pen_px, strip
    if "robots" in look.below:
        inset = INSET_WIDTH_PX * pen
        places, words = {"left": strip[:, :inset], "right": strip[:, -inset:]}, strip[:, inset:-inset]
        mapped = {robot.hand: robot for robot in frame.robots}
        for hand in HANDS:
            color = _overlay.ROLE_COLORS[f"hand_{hand}"]
            robot = mapped.get(hand)
            if robot is not None:
                _robot_view.draw(places[hand], robot, color, pen)
            _overlay.text(places[hand], _title(hand, robot), (4 * pen, 12 * pen), color, pen)
    if path is not None and words.shape[1] >= 2 * strip.shape[0]:
        words, place = np.split(words, [-strip.shape[0]], axis=1)
        _path(place, path, pen)
    columns = [(_held(frame) if "holds" in look.below else [], TEXT)]
    columns += [(_happening(frame) if "events" in look.below else [], TEXT), (_wrong(frame) if "flags" in look.below else [], WARNING)]
    for column, (lines, color) in enumerate((lines, color) for lines, color in columns if lines):
        if column * COLUMN_PX * pen < words.shape[1]:
            for i, line in enumerate(lines[:5]):
                _overlay.text(words[:, column * COLUMN_PX * pen :], line, (4 * pen, (28 + LINE_PX * i) * pen), color, pen)


def _title(hand: str, robot: Robot | None) -> str:
    if robot is None:
        return f"no robot {hand}"
    return f"robot {hand}" + (f" {robot.residual_m * 1e3:.0f} mm" if robot.residual_m is not None else "")


def _held(frame: FrameLayers) -> list[str]:
    """Two lines an object: its name; how it moves and who holds it."""
    lines = []
    for hold in frame.holds:
        lines += [hold.name[:16], f" {hold.state or 'unknown'}, " + _HELD.get(hold.held_by, f"held {hold.held_by}")]
    return lines


def _happening(frame: FrameLayers) -> list[str]:
    return [f"{event.hand} {event.phase} {event.name}"[:24] for event in frame.events]


def _wrong(frame: FrameLayers) -> list[str]:
    return [f"{flag.name}: {flag.disagreement}"[:24] for flag in frame.flags]


def _path(place: np.ndarray, path: np.ndarray, pen: int) -> None:
    """The camera's path from above, the camera itself as a dot."""
    edge = 16 * pen
    at = (path * (place.shape[0] - 2 * edge) + edge).tolist()
    _overlay.lines(place, [at[1:]], 1.0, _overlay.UNSURE_COLOR, pen)
    _overlay.lines(place, [[at[0], at[0]]], 1.0, WARNING, 4 * pen)
    _overlay.text(place, "camera", (4 * pen, 12 * pen), TEXT, pen)
