"""Which intrinsics a video is processed with, and where they come from. Never a silent default."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from egoworld_ops.errors import BadSidecar, UnknownIntrinsics
from egoworld_ops.types import Camera
from egoworld_ops.video.sidecar import Sidecar

if TYPE_CHECKING:
    from egoworld_ops.settings import CameraSettings


def resolve(width: int, height: int, sidecar: Sidecar, settings: CameraSettings, culprit: object) -> Camera:
    """The camera of a video of `width` x `height` upright pixels.

    From the sidecar (`source = "file"`), scaled where it was calibrated at another resolution of the same aspect ratio; else, where the
    settings allow it, from an assumed horizontal field of view (`source = "assumed_fov"`).

    Raises:
        BadSidecar: the aspect ratio of the calibration is not that of the video.
        UnknownIntrinsics: no intrinsics are known and `camera.require_known` is set.
    """
    if sidecar.camera is not None:
        given = sidecar.camera
        sx, sy = width / given.width, height / given.height
        if abs(sx / sy - 1) > 0.01:
            raise BadSidecar(
                culprit,
                f"camera is for {given.width}x{given.height}, the upright video is {width}x{height}: another aspect ratio",
                "Give the intrinsics of the upright video",
            )
        cx, cy = (given.cx + 0.5) * sx - 0.5, (given.cy + 0.5) * sy - 0.5
        return Camera(given.fx * sx, given.fy * sy, cx, cy, width, height, "file")
    if settings.require_known:
        raise UnknownIntrinsics(
            culprit,
            "no intrinsics in a sidecar, and camera.require_known is set",
            "Write the sidecar's camera section, or allow an assumed field of view with camera.require_known = false",
        )
    f_px = width / (2 * math.tan(math.radians(settings.assumed_hfov_deg) / 2))
    return Camera(f_px, f_px, (width - 1) / 2, (height - 1) / 2, width, height, "assumed_fov")
