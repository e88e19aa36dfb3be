"""What is known to be true of one video, whatever data set it is from: plain values, checked for shape at birth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from egoworld_ops.types import Hand
from egoworld_ops.vision.rle import Rle


@dataclass(frozen=True, slots=True)
class HandTruth:
    """One hand in one frame.

    Args:
        joints_m: (21, 3) in the camera frame, OpenPose order, metres; NaN for joints that are not known.
        joints_px: (21, 2) in the image, or None where the source has none.
    """

    frame_index: int
    hand: Hand
    joints_m: np.ndarray
    joints_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.joints_m.shape != (21, 3) or (self.joints_px is not None and self.joints_px.shape != (21, 2)):
            raise ValueError(f"hand of frame {self.frame_index}: want joints_m (21, 3) and joints_px (21, 2)")


@dataclass(frozen=True, slots=True)
class ObjectTruth:
    """One object in one frame.

    Args:
        T_camera_object: (4, 4), metres.
        visible: whether enough of it is seen to be scored.
        held_by: hands that hold it; None where the source does not say.
        moving: relative to the world; None where the source does not say.
    """

    frame_index: int
    label: str
    T_camera_object: np.ndarray
    visible: bool = True
    held_by: frozenset[Hand] | None = None
    moving: bool | None = None

    def __post_init__(self) -> None:
        if self.T_camera_object.shape != (4, 4):
            raise ValueError(f"object {self.label} of frame {self.frame_index}: want T_camera_object (4, 4)")


@dataclass(frozen=True, slots=True)
class MaskTruth:
    """The pixels of one thing in one frame. `label` tells objects apart; hands have none."""

    frame_index: int
    role: str
    rle: Rle
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ShapeTruth:
    """The surface of an object, for distances between poses.

    Args:
        points_m: (N, 3) points of its surface in the object's frame.
        symmetries: (K, 3, 3) rotations that leave it unchanged, the identity among them.
    """

    points_m: np.ndarray
    symmetries: np.ndarray = field(default_factory=lambda: np.eye(3)[None])

    @property
    def diameter_m(self) -> float:
        """The largest distance between two of its points, metres."""
        from scipy.spatial.distance import pdist

        return float(pdist(self.points_m).max())


@dataclass(frozen=True, slots=True)
class Truth:
    """All that is known of one video. What the source does not have is None and is not scored.

    Args:
        source: where it was read from, for people.
        frames: frames of the video that the source speaks of; rows of other frames are not scored.
        camera: T_world_camera (4, 4) by frame.
        shapes: by label.
        cuts: first frames of new shots.
        complete: whether the source names every hand and object that can be seen, so that a row without one is false.
    """

    source: str
    frames: frozenset[int]
    hands: tuple[HandTruth, ...] | None = None
    objects: tuple[ObjectTruth, ...] | None = None
    masks: tuple[MaskTruth, ...] | None = None
    camera: Mapping[int, np.ndarray] | None = None
    shapes: Mapping[str, ShapeTruth] = field(default_factory=dict)
    cuts: tuple[int, ...] | None = None
    complete: bool = True
