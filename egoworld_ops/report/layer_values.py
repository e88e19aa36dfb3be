"""What is drawn over one frame, as plain numbers: small values that go to JSON as they are. Pixels are those of the video as it is shown, the centre
of the first pixel is (0, 0); all was projected through the lens of the clip. `layers.py` makes them.

A `Line` is a list of points `[x, y]` to be joined in order: of two points where the line is straight, of more where a lens bends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

Point = list[float]
Line = list[Point]

BONES = tuple((a, b) for f in range(5) for a, b in zip((0, *range(1 + 4 * f, 4 + 4 * f)), range(1 + 4 * f, 5 + 4 * f), strict=True))
"""Pairs of the 21 joints that are joined: the 20 bones of a hand."""
LAYERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "masks": ("masks",),
        "boxes": ("detections",),
        "hands": ("hand_pose", "fusion"),
        "objects": ("object_pose",),
        "robots": ("mapping",),
        "holds": ("movement",),
        "events": ("events",),
        "flags": ("agreement",),
        "camera": ("camera",),
    }
)
"""The layers, in the order in which they are drawn, and the tables that each is made of."""


class Value:
    """Base of what is drawn."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, by the names of the fields."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]  # all are dataclasses


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return value.to_json()
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Mask(Value):
    """The pixels of one thing.

    Args:
        name: of the thing: its label, else its role.
        outlines_px: closed lines through the centres of the outermost pixels; those of holes too: to be filled by the even-odd rule.
        box_px: [x, y, width, height].
        observed: false where it was carried, not seen.
    """

    track_id: int
    role: str
    name: str
    score: float | None
    observed: bool
    outlines_px: list[Line]
    box_px: list[float]


@dataclass(frozen=True)
class Box(Value):
    """What a detector saw.

    Args:
        box_px: [x, y, width, height].
        source: the network or rule that found it.
        phase: of the event that is on with this thing, such as `carry`; None where none is.
    """

    track_id: int
    role: str
    name: str
    score: float | None
    box_px: list[float]
    source: str
    phase: str | None


@dataclass(frozen=True)
class Hand(Value):
    """The skeleton of a hand; `BONES` says which joints are joined.

    Args:
        hand: left or right.
        stage: `hand_pose`, as it was found in the frame; or `fusion`, as it moves smoothly.
        joints_px: 21 points; None for one that the lens does not show.
        solved: whether the points are projections of joints in space. Else they are those that were seen in the picture, and no pose explains them.
        observed: false where the pose was filled in, not seen.
        score: confidence of the backend.
    """

    hand: str
    stage: str
    joints_px: list[Point | None]
    solved: bool
    observed: bool
    score: float | None


@dataclass(frozen=True)
class Thing(Value):
    """The pose of an object.

    Args:
        stands: whether the pose is verified; others are there to be looked at.
        axes_px: the lines of the x, y and z axis of the object's frame, from its origin; empty where the lens does not show one.
        edges_px: lines of the 12 edges of the box of its dimensions that are seen; none where the dimensions are not known.
        reason: why the pose is not verified; None where it is.
    """

    track_id: int
    name: str
    score: float | None
    stands: bool
    axes_px: list[Line]
    edges_px: list[Line]
    reason: str | None


@dataclass(frozen=True)
class Robot(Value):
    """The robot hand that one hand was mapped to.

    Args:
        hand: left or right.
        robot: its name.
        residual_m: mean distance of its fingertips to those of the person, scaled.
        bones_px: lines of its links, at the wrist of the person; empty where the place of the wrist or its camera is not known.
        flat: (n, 2, 2) its links alone, seen along the camera's axis, in hand lengths about their middle: for a picture beside the frame.
        reason: why there is none of these.
    """

    hand: str
    robot: str
    residual_m: float | None
    bones_px: list[Line]
    flat: list[Line]
    reason: str | None


@dataclass(frozen=True)
class Hold(Value):
    """How an object moves, and who holds it.

    Args:
        state: moving or still; None where that is not known.
        held_by: left, right, both, none or unknown.
        score: probability that `held_by` is right.
    """

    track_id: int
    name: str
    state: str | None
    held_by: str
    score: float | None


@dataclass(frozen=True)
class Event(Value):
    """One phase of what a hand does to an object; it is on in frames `[frame_index, last_frame_index]`."""

    hand: str
    track_id: int
    name: str
    phase: str
    frame_index: int
    last_frame_index: int
    score: float | None


@dataclass(frozen=True)
class Flag(Value):
    """What cannot be right in a frame: a word of column `disagreement` of table `agreement`."""

    track_id: int
    role: str
    name: str
    disagreement: str


@dataclass(frozen=True)
class CameraAt(Value):
    """The place of the camera.

    Args:
        position: [x, y, z] in the world of the clip.
        unit: of `position`: `m`, or `units` of the reconstruction where the scale is not known.
    """

    position: list[float]
    unit: str


@dataclass(frozen=True)
class FrameLayers(Value):
    """All that is drawn over one frame.

    Args:
        processed: whether the frame was looked at; of one that was not nothing is known.
        metric: false where lengths rest on an assumed focal length.
    """

    frame_index: int
    processed: bool
    metric: bool
    masks: tuple[Mask, ...] = ()
    boxes: tuple[Box, ...] = ()
    hands: tuple[Hand, ...] = ()
    objects: tuple[Thing, ...] = ()
    robots: tuple[Robot, ...] = ()
    holds: tuple[Hold, ...] = ()
    events: tuple[Event, ...] = ()
    flags: tuple[Flag, ...] = ()
    camera: CameraAt | None = None
