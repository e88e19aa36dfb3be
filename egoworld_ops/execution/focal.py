"""The focal length of a video's camera from its own motion, with hands left out: for `egoworld calibrate estimate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.errors import CorruptVideo, UnknownIntrinsics
from egoworld_ops.execution.identity import operator_of
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.probing import layout_at_start
from egoworld_ops.video.sidecar import Sidecar

if TYPE_CHECKING:
    from egoworld_ops.settings import Settings

_STAGES = ("detections", "masks", "hand_pose")


@dataclass(frozen=True, slots=True)
class EstimatedCamera:
    """A pinhole camera with its principal point in the middle, and what its focal length was found from."""

    camera: Camera
    points: int
    keyframes: int
    error_px: float

    def section(self) -> dict[str, Any]:
        """The section `camera` of a sidecar."""
        c = self.camera
        said = {"fx": c.fx_px, "fy": c.fy_px, "cx": c.cx_px, "cy": c.cy_px, "width": c.width, "height": c.height}
        return said | {"source": "estimated", "focal_error_share": c.focal_error_share}


def estimated_camera(video: Path, settings: Settings, first_frame: int, frames: int) -> EstimatedCamera:
    """The camera of a video from so many frames from one on; whatever a sidecar says of it is not asked.

    Raises:
        UnknownIntrinsics: the frames do not tell it, with the reason.
        InputError, WeightsMissing: the video cannot be read, or hands cannot be found.
    """
    from egoworld_ops.operators.camera._focal import estimate

    width, height = layout_at_start(video).size_px
    times_s: dict[int, float] = {}

    def opened() -> Iterator[Frame]:
        for frame in looked_at(video, first_frame, frames):
            times_s[frame.index] = frame.timestamp_s
            yield frame

    assumed = resolve(width, height, Sidecar(), settings.camera.model_copy(update={"require_known": False}), video)
    wanted = first_frame + frames
    clip = Clip("estimate", "estimate", video, "0" * 64, first_frame, wanted, first_frame, wanted, 0.0, 0.0, Fraction(30), width, height)
    item = ClipInput(clip, {}, Sidecar(), assumed, 1, opened)
    tables: dict[str, pa.Table] = {}
    for stage in _STAGES:
        operator, options = operator_of(stage, settings)
        tables[stage] = operator(options, 1).run(replace(item, tables=tables))
        end = max(times_s, default=wanted - 1) + 1
        item = replace(item, clip=replace(clip, frame_end=end, own_end=end), indexed_times=lambda: times_s)
    found = estimate(replace(item, tables=tables | {"object_pose": schema.empty("object_pose")}))
    if isinstance(found, str):
        raise UnknownIntrinsics(
            video,
            f"its focal length cannot be estimated: {found}",
            "Choose a part in which the camera walks (--start), or import a calibration",
        )
    camera = replace(assumed, fx_px=found.focal_px, fy_px=found.focal_px, source="estimated", focal_error_share=found.error_share)
    return EstimatedCamera(camera, found.points, found.keyframes, found.error_px)


def looked_at(video: Path, first_frame: int, frames: int) -> Iterator[Frame]:
    """So many frames from one on, to where the video ends.

    Raises:
        CorruptVideo: there is none.
    """
    count = 0
    try:
        for frame in decode(video, first_frame, first_frame + frames):
            count += 1
            yield frame
    except CorruptVideo:
        if not count:
            raise
