"""Which intrinsics a video is processed with, and where they come from. Never a silent default."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from egoworld_ops.errors import BadSidecar, UnknownIntrinsics
from egoworld_ops.types import Camera, Raster, StatedLens
from egoworld_ops.video.fields_of_view import assumed_error_share
from egoworld_ops.video.sidecar import Sidecar, SidecarCamera

if TYPE_CHECKING:
    from egoworld_ops.video.settings import CameraSettings


_NOT_SQUARE = 0.01
"""Aspect ratios that differ by less count as equal."""


_EQUIVALENT_WIDTH_MM = 43.267 * 4 / 5
"""Of a 4:3 sensor on whose diagonal (that of 24 x 36 mm, as CIPA DCG-001 defines the equivalent) a 35 mm equivalent is stated."""
_VIDEO_CROP, _VIDEO_CROP_ERROR = 1.09, 0.1
"""How much narrower a phone's video is than its sensor, for stabilisation: 1 without, 1.09 and 1.18 measured on iPhones; and its standard error."""


def resolve(
    width: int,
    height: int,
    sidecar: Sidecar,
    settings: CameraSettings,
    culprit: object,
    raster: Raster | None = None,
    focal_35mm_mm: float | None = None,
    lens: StatedLens | None = None,
) -> Camera:
    """The camera of a video that is shown as `width` x `height` upright, square pixels.

    From the sidecar (`source = "file"`), its lens included, scaled where it was calibrated at another resolution of the same aspect ratio; else from
    the lens that the container states, or its focal length, across the picture's longer side and with a tenth of error (`source = "container"`);
    else, where the settings allow it, from an assumed field of view along the longer side of the picture shown (`source = "assumed_fov"`): a phone
    that is held upright has the same lens. `focal_error_share` is what the sidecar or the container says, or how far the focal lengths of real
    cameras lie from the assumed one.

    Args:
        focal_35mm_mm: 35 mm equivalent focal length that the container states.
        lens: the lens that the container states.
        raster: the stored picture, if it differs from the one shown: a sidecar's camera may refer to either, and its size tells which.

    Raises:
        BadSidecar: the aspect ratio of the calibration is not that of the video, or it assumes square pixels where they are not square.
        UnknownIntrinsics: no intrinsics are known and `camera.require_known` is set.
    """
    if sidecar.camera is not None:
        return _given(sidecar.camera, width, height, culprit, raster)
    if lens is not None:
        return _stated(lens, width, height, raster)
    if focal_35mm_mm is not None:
        f_px = max(width, height) * focal_35mm_mm / _EQUIVALENT_WIDTH_MM * _VIDEO_CROP
        return Camera(f_px, f_px, (width - 1) / 2, (height - 1) / 2, width, height, "container", focal_error_share=_VIDEO_CROP_ERROR)
    if settings.require_known:
        raise UnknownIntrinsics(
            culprit,
            "no intrinsics in a sidecar, and camera.require_known is set",
            "Import a calibration with `egoworld calibrate import`, or write the sidecar's camera section; or allow an assumed field of view with "
            "camera.require_known = false",
        )
    focal_per_side = 1 / (2 * math.tan(math.radians(settings.assumed_hfov_deg) / 2))
    f_px, error_share = max(width, height) * focal_per_side, assumed_error_share(focal_per_side)
    return Camera(f_px, f_px, (width - 1) / 2, (height - 1) / 2, width, height, "assumed_fov", focal_error_share=error_share)


def _stated(lens: StatedLens, width: int, height: int, raster: Raster | None) -> Camera:
    """The container's lens in pixels of the picture shown: its axis meets the middle of the stored picture."""
    whole = Raster(width, height, 1.0, 1.0, 0, 0) if raster is None else raster
    stored_w, stored_h = whole.width * whole.scale_x, whole.height * whole.scale_y
    f_px = lens.focal_per_diagonal * math.hypot(stored_w, stored_h)
    cx_px, cy_px = (stored_w - 1) / 2 - whole.left_px, (stored_h - 1) / 2 - whole.top_px
    return Camera(f_px, f_px, cx_px, cy_px, width, height, "container", lens.model, lens.distortion, lens.error_share)


def _given(given: SidecarCamera, width: int, height: int, culprit: object, raster: Raster | None) -> Camera:
    """The sidecar's camera in pixels of the picture shown."""
    size, stored = (given.width, given.height), (raster.width, raster.height) if raster else None
    if size != (width, height) and raster and (size == stored or not _same_shape(size, (width, height))) and _same_shape(size, stored):
        return _of_raster(given, width, height, culprit, raster)
    if not _same_shape(size, (width, height)):
        is_stored = f", as it is stored {raster.width}x{raster.height}" if raster else ""
        raise BadSidecar(
            culprit,
            f"camera is for {given.width}x{given.height}, the upright video is {width}x{height}{is_stored}: another aspect ratio",
            "Give the intrinsics of the upright video",
        )
    sx, sy = width / given.width, height / given.height
    cx, cy = (given.cx + 0.5) * sx - 0.5, (given.cy + 0.5) * sy - 0.5
    return given.seen_as(sx, sy, cx, cy, width, height)


def _of_raster(given: SidecarCamera, width: int, height: int, culprit: object, raster: Raster) -> Camera:
    """A camera that was calibrated on the stored picture, turned upright."""
    sx, sy = raster.width / given.width * raster.scale_x, raster.height / given.height * raster.scale_y
    aspect = sx / sy
    if abs(aspect - 1) > _NOT_SQUARE and abs(given.fy / given.fx - 1) < abs(given.fy / given.fx / aspect - 1):
        raise BadSidecar(
            culprit,
            f"camera: fx {given.fx:g} and fy {given.fy:g} are for square pixels, those of {given.width}x{given.height} are {aspect:.3g} to 1",
            f"Give fy = {aspect:.4g} fx for the stored picture, or the camera of the {width}x{height} px it is shown with",
        )
    cx, cy = (given.cx + 0.5) * sx - 0.5 - raster.left_px, (given.cy + 0.5) * sy - 0.5 - raster.top_px
    return given.seen_as(sx, sy, cx, cy, width, height)


def _same_shape(one: tuple[int, int], other: tuple[int, int] | None) -> bool:
    """Whether two sizes (width, height) have the same aspect ratio."""
    return other is not None and abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= _NOT_SQUARE
