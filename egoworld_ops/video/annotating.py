"""What a person draws and picks for a sidecar: checked against the video it is of, and the cameras that can be picked by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from egoworld_ops.errors import BadSidecar
from egoworld_ops.video.sidecar import Prompt, Sidecar, sidecar_path

SLACK_PX = 1.0
"""By which a box may reach over the border: browsers round."""
MESHES = (".glb", ".obj", ".ply", ".stl")


@dataclass(frozen=True, slots=True)
class Preset:
    """A camera that is near enough to a pinhole's.

    Args:
        focal_per_side: focal length over the longer side of the picture.
        error_share: its standard error, as a share of it.
    """

    focal_per_side: float
    error_share: float


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "Phone, main camera (26 mm), stabilised video": Preset(0.82, 0.1),
        "Phone, wide camera (13 mm), stabilised video": Preset(0.41, 0.1),
        "RealSense D435, colour (69 degrees)": Preset(0.727, 0.03),
        "HoloLens, video of 67 degrees": Preset(0.755, 0.03),
        "HoloLens, stabilised video of 48 degrees": Preset(1.123, 0.03),
    }
)
"""By name. Sources are those of `fields_of_view.py`; a phone's crop for stabilisation differs by a tenth from model to model."""


def camera_section(choice: Mapping[str, Any], size_px: tuple[int, int]) -> dict[str, Any] | None:
    """The section `camera` of a sidecar for what a person picked; None to leave it as it is.

    Args:
        choice: `{"preset": name}`, `{"hfov_deg", "error_share"}` with the field of view along the longer side, `{"fx", "fy", "cx", "cy"}` and
            perhaps `error_share`; or nothing.
        size_px: width and height of the picture shown.

    Raises:
        ValueError: it is none of these.
    """
    width, height = size_px
    if not choice:
        return None
    said: dict[str, Any] = {"width": width, "height": height}
    if "error_share" in choice:
        said["focal_error_share"] = choice["error_share"]
    if "fx" in choice:
        return said | {name: choice.get(name) for name in ("fx", "fy", "cx", "cy")}
    if "preset" in choice:
        if (preset := PRESETS.get(choice["preset"])) is None:
            raise ValueError("there is no such camera")
        return _centred(said | {"focal_error_share": preset.error_share}, preset.focal_per_side * max(size_px))
    angle = choice.get("hfov_deg")
    if not isinstance(angle, int | float) or not 1 <= angle <= 170:
        raise ValueError("the field of view is not between 1 and 170 degrees")
    return _centred(said, max(size_px) / 2 / math.tan(math.radians(angle) / 2))


def _centred(said: dict[str, Any], focal_px: float) -> dict[str, Any]:
    middle = {"cx": (said["width"] - 1) / 2, "cy": (said["height"] - 1) / 2}
    return said | {"fx": round(focal_px, 3), "fy": round(focal_px, 3)} | middle


def check_drawn(video_path: Path, sidecar: Sidecar, n_frames: int, size_px: tuple[int, int]) -> None:
    """Check what the sidecar alone cannot know: that its prompts lie in the video.

    Args:
        size_px: width and height of the picture shown.

    Raises:
        BadSidecar: a prompt names a frame that the video does not have, or lies outside of its picture, or shows nothing.
    """
    for item in sidecar.objects:
        for prompt in item.prompts:
            if wrong := _wrong(prompt, n_frames, *size_px):
                raise BadSidecar(sidecar_path(video_path), f"{item.label!r}, {wrong[0]}", wrong[1])


def _wrong(prompt: Prompt, n_frames: int, width: int, height: int) -> tuple[str, str] | None:
    """What is wrong with a prompt, and the cure; None where it is right."""
    where = f"frame {prompt.frame_index}"
    if prompt.frame_index >= n_frames:
        return f"{where}: the video has {n_frames} frames", f"Name one from 0 to {n_frames - 1}"
    if prompt.box_px is None and not prompt.points_px:
        return f"{where}: neither a box nor a point", "Draw one, or remove it"
    if prompt.box_px is not None:
        x, y, w, h = prompt.box_px
        if x < -SLACK_PX or y < -SLACK_PX or x + w > width + SLACK_PX or y + h > height + SLACK_PX:
            return f"{where}: the box {_px(prompt.box_px)} lies outside of the {width}x{height} picture", "Draw it within the picture"
    outside = [p for p in prompt.points_px if not (-SLACK_PX <= p[0] <= width and -SLACK_PX <= p[1] <= height)]
    if outside:
        return f"{where}: the point {_px(outside[0])} lies outside of the {width}x{height} picture", "Click within the picture"
    return None


def _px(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
