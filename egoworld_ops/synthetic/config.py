"""What a synthetic scene is made from: one frozen configuration, and the constants that truth and pictures share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from egoworld_ops.types import Camera, LensModel
from egoworld_ops.vision.lenses import is_one_to_one

N_SHOTS = 3
GENERATOR_VERSION = "1"
MOVING_SPEED_M_S = 0.02
MOVING_RATE_RAD_S = 0.15
OBJECT_LABEL = "box"
PlanName = Literal["carry", "hold", "near", "both", "other"]
"""What the shots show: the box is carried; it is held still, or a hand hovers above it or lies beside it; a hand crosses it, holds it, hovers; both
hands carry and hold it, which should be long; a person across the table carries and holds it, beside a hand of the one who sees it."""
CameraPath = Literal["sway", "walk", "turn", "still"]
"""How the head moves: little, as of one who sits; half a metre around the table; only turning, its centre at rest; not at all."""
_NEAREST_SIZE_PX = 32
_MAX_CLUTTER = 6


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """All that decides the pixels and the truth of one scene; equal configurations give equal scenes.

    Raises ValueError for sizes, rates, lengths or dimensions that cannot be rendered or encoded.
    """

    seed: int = 7
    width: int = 640
    height: int = 480
    fps: int = 30
    frames_per_shot: int = 56
    dimensions_m: tuple[float, float, float] = (0.16, 0.11, 0.06)
    lens: LensModel = "pinhole"
    distortion: tuple[float, ...] = ()
    focal_per_width: float = 0.86
    """The lens, and its focal length over the width of the picture: `WIDE` are the values of a head camera's wide lens."""
    plan: PlanName = "carry"
    camera_path: CameraPath = "sway"
    plain: bool = False
    """Table and floor without any texture."""
    clutter: int = 0
    """Things on the table that nobody touches, see `clutter.things`."""

    def __post_init__(self) -> None:
        """Refuse a scene that cannot be rendered."""
        if self.seed < 0:
            raise ValueError(f"seed: want a number from 0, got {self.seed}")
        if min(self.width, self.height) < _NEAREST_SIZE_PX or self.width % 2 or self.height % 2:
            raise ValueError(f"size: want even numbers from {_NEAREST_SIZE_PX}, got {self.width}x{self.height}")
        if self.fps < 1:
            raise ValueError(f"fps: want a number from 1, got {self.fps}")
        if self.frames_per_shot < N_SHOTS:
            raise ValueError(f"frames_per_shot: want at least {N_SHOTS}, got {self.frames_per_shot}")
        if self.plan not in get_args(PlanName):
            raise ValueError(f"plan: want one of {', '.join(get_args(PlanName))}, got {self.plan!r}")
        if self.camera_path not in get_args(CameraPath):
            raise ValueError(f"camera_path: want one of {', '.join(get_args(CameraPath))}, got {self.camera_path!r}")
        if not 0 <= self.clutter <= _MAX_CLUTTER:
            raise ValueError(f"clutter: want a number from 0 to {_MAX_CLUTTER}, got {self.clutter}")
        if min(self.dimensions_m) <= 0:
            raise ValueError(f"dimensions_m: want three positive lengths, got {self.dimensions_m}")

        if not 0 < self.focal_per_width < math.inf:
            raise ValueError(f"focal_per_width: want a positive number, got {self.focal_per_width}")
        if not is_one_to_one(self.camera):
            raise ValueError(f"distortion: a {self.lens} lens with {list(self.distortion)} shows two rays in one pixel, or none")

    @property
    def n_frames(self) -> int:
        """Frames in the whole video."""
        return N_SHOTS * self.frames_per_shot

    @property
    def cuts(self) -> tuple[int, ...]:
        """First frame of each shot but the first."""
        return tuple(self.frames_per_shot * shot for shot in range(1, N_SHOTS))

    @property
    def camera(self) -> Camera:
        """The camera, the same in each shot."""
        focal_px = self.focal_per_width * self.width
        return Camera(
            fx_px=focal_px,
            fy_px=focal_px,
            cx_px=(self.width - 1) / 2,
            cy_px=(self.height - 1) / 2,
            width=self.width,
            height=self.height,
            source="file",
            model=self.lens,
            distortion=self.distortion,
        )


WIDE: Mapping[str, Any] = {"lens": "kannala_brandt", "distortion": (0.02, -0.008, 0.003, -0.0006), "focal_per_width": 0.3835}
"""A lens that sees 150 degrees from left to right."""
