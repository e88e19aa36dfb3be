"""Frozen value types that reject wrong shapes and units at birth. No behaviour beyond that belongs here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

Hand = Literal["left", "right"]
HANDS: tuple[Hand, ...] = ("left", "right")
DecodesOn = Literal["cpu", "cuda"]
"""What decodes video: the CPU, or a GPU's own decoder."""
INTRINSICS_SOURCES = ("file", "container", "estimated", "assumed_fov")
"""Given in the sidecar, stated by the video's own container, estimated from its pictures, or assumed by the settings."""
UNSTATED_ERROR_SHARE = 0.03
"""Standard error of a focal length, or of the scale of a path, whose own nobody states: how cameras of one make differ. Not stated is not exact."""
LensModel = Literal["pinhole", "plumb_bob", "rational_polynomial", "kannala_brandt", "fisheye62", "fisheye624"]
LENS_MODELS: Mapping[str, tuple[int, ...]] = {
    "pinhole": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8,),
    "kannala_brandt": (4,),
    "fisheye62": (8,),
    "fisheye624": (12,),
}
"""Models of a lens, in the words of ROS and Foxglove and of Project Aria, and how many distortion coefficients each may have."""

_MP4_FAMILY = {".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2"}
_STREAMS = {".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv"}
VIDEO_SUFFIXES = frozenset({*_MP4_FAMILY, *_STREAMS, ".mkv", ".webm", ".avi", ".wmv", ".asf", ".ogv", ".ogg"})
"""Names that end so, in any case, are taken for videos."""

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}\Z")


def check_id(name: str, value: str) -> str:
    """Return `value` if it is a safe identifier (it becomes a path part), else raise ValueError."""
    if not _ID.match(value):
        raise ValueError(f"{name}: want lower-case letters, digits, '-' and '_', got {value!r}")
    return value


def sampled_frames(frame_start: int, frame_end: int, stride: int) -> range:
    """The frames of `[frame_start, frame_end)` that are processed: those whose index in the video is a multiple of `stride`."""
    return range(-(-frame_start // stride) * stride, frame_end, stride)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame.

    Args:
        index: position among the decoded frames of the raw video.
        timestamp_s: presentation time from the container's PTS, seconds.
        rgb: (H, W, 3) uint8, upright (rotation metadata applied).
    """

    index: int
    timestamp_s: float
    rgb: np.ndarray

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise ValueError(f"rgb: want (H, W, 3) uint8, got {self.rgb.shape} {self.rgb.dtype}")


@dataclass(frozen=True, slots=True)
class Camera:
    """Intrinsics in pixels, and the lens; the centre of the top-left pixel is (0, 0). `vision.lenses` projects.

    Args:
        fx_px, fy_px, cx_px, cy_px: focal lengths and principal point.
        width, height: of the picture, px.
        source: where the intrinsics come from.
        model: of the lens.
        distortion: coefficients of the model; they have no unit and are the same at every size of the picture. In OpenCV's order k1, k2, p1, p2,
            k3, k4, k5, k6 for plumb_bob and rational_polynomial and k1, k2, k3, k4 for kannala_brandt (its `fisheye`); in Project Aria's order
            k0 to k5, p0, p1, s0 to s3 for fisheye62 and fisheye624.
        focal_error_share: standard error of the focal length as a share of it. Depths solved with this camera have the same share of error from it.
    """

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width: int
    height: int
    source: str
    model: LensModel = "pinhole"
    distortion: tuple[float, ...] = ()
    focal_error_share: float = 0.0

    def __post_init__(self) -> None:
        if self.source not in INTRINSICS_SOURCES:
            raise ValueError(f"source: want one of {INTRINSICS_SOURCES}, got {self.source!r}")
        if not (self.fx_px > 0 and self.fy_px > 0 and self.width > 0 and self.height > 0):
            raise ValueError(f"camera: focal lengths and size must be positive, got {self}")
        if not self.focal_error_share >= 0:
            raise ValueError(f"focal_error_share: want at least 0, got {self.focal_error_share}")
        check_distortion(self.model, self.distortion)

    @property
    def metric(self) -> bool:
        """Whether lengths in the camera's frame are metric: false where the focal length, and so every depth, is an assumption."""
        return self.source != "assumed_fov"

    @property
    def is_pinhole(self) -> bool:
        """Whether straight lines are straight in the picture, so that `K` describes all of it."""
        return self.model == "pinhole"

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 intrinsic matrix of a pinhole camera.

        Raises:
            ValueError: the lens distorts; a matrix alone would give wrong results.
        """
        if not self.is_pinhole:
            raise ValueError(f"K: a {self.model} lens is no pinhole; project through vision.lenses, or rectify")
        return np.array([[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1]], np.float64)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Camera:
        """The camera that `dataclasses.asdict` was called on, after a way through JSON."""
        return cls(**(dict(value) | {"distortion": tuple(value["distortion"])}))


def check_distortion(model: str, distortion: tuple[float, ...]) -> None:
    """Raise ValueError for a lens that is not known, or coefficients that are not as many finite numbers as it has."""
    counts = LENS_MODELS.get(model)
    if counts is None:
        raise ValueError(f"model: want one of {', '.join(LENS_MODELS)}, got {model!r}")
    if len(distortion) not in counts or not all(math.isfinite(k) for k in distortion):
        raise ValueError(f"distortion: {model} has {' or '.join(map(str, counts))} finite coefficients, got {list(distortion)}")


@dataclass(frozen=True, slots=True)
class Raster:
    """The stored picture turned upright, and where it lies in the one shown, which is cropped and has square pixels.

    A stored pixel x is at (x + 0.5) * scale_x - 0.5 - left_px in the picture shown; the same holds for y.

    Args:
        width, height: of the stored picture, px.
        scale_x, scale_y: pixels shown a stored pixel.
        left_px, top_px: pixels of the picture shown that are cut off at its left and top.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    left_px: int
    top_px: int


@dataclass(frozen=True, slots=True)
class StatedLens:
    """The lens that a container states, whatever the size of the picture; its axis meets the middle of the stored picture.

    Args:
        focal_per_diagonal: focal length over the diagonal of the stored picture.
        model, distortion: as a `Camera` has them.
        error_share: standard error of the focal length as a share of it.
    """

    focal_per_diagonal: float
    model: LensModel
    distortion: tuple[float, ...]
    error_share: float

    def __post_init__(self) -> None:
        if not (self.focal_per_diagonal > 0 and self.error_share >= 0):
            raise ValueError(f"lens: want a positive focal length and an error from 0, got {self}")
        check_distortion(self.model, self.distortion)


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames `[frame_start, frame_end)` of one video: the smallest unit of work.

    `[own_start, own_end)` is the part that belongs to this clip alone; the rest overlaps the neighbours. `damaged` says that frames
    of the video are missing or broken, see `video.decode`. `width` and `height` are of the picture shown; `raster` is the stored one where
    it is another. `packet_index` is where the packet index of the video lies, if it has one: it spares reading, and changes no frame.
    `focal_35mm_mm` is the 35 mm equivalent focal length that the container states, `lens` the whole lens, where it states that.
    """

    video_id: str
    clip_id: str
    video_path: Path
    video_sha256: str
    frame_start: int
    frame_end: int
    own_start: int
    own_end: int
    start_s: float
    end_s: float
    fps: Fraction
    width: int
    height: int
    damaged: bool = False
    raster: Raster | None = None
    packet_index: Path | None = None
    focal_35mm_mm: float | None = None
    lens: StatedLens | None = None

    def __post_init__(self) -> None:
        check_id("video_id", self.video_id)
        check_id("clip_id", self.clip_id)
        if not 0 <= self.frame_start <= self.own_start < self.own_end <= self.frame_end:
            raise ValueError(
                f"clip {self.clip_id}: want 0 <= frame_start <= own_start < own_end <= frame_end, got "
                f"{self.frame_start}, {self.own_start}, {self.own_end}, {self.frame_end}"
            )

    @property
    def n_frames(self) -> int:
        """Number of frames, overlap included."""
        return self.frame_end - self.frame_start

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        index = str(self.packet_index.absolute()) if self.packet_index else None
        return asdict(self) | {"video_path": str(self.video_path), "fps": str(self.fps), "packet_index": index}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Clip:
        """The clip that `to_json` was called on."""
        raster = Raster(**value["raster"]) if value["raster"] else None
        index = Path(value["packet_index"]) if value["packet_index"] else None
        lens = StatedLens(**(value["lens"] | {"distortion": tuple(value["lens"]["distortion"])})) if value["lens"] else None
        known = {"video_path": Path(value["video_path"]), "fps": Fraction(value["fps"]), "raster": raster, "packet_index": index}
        return cls(**(value | known | {"lens": lens}))
