"""From the decoder's frame to an upright RGB picture of square pixels: crop, pixel aspect, rotation, colour matrix and range, bit depth."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from egoworld_ops.contract.own_tables import PROJECTIONS, STEREO_MODES
from egoworld_ops.errors import UnsupportedPicture
from egoworld_ops.types import Raster
from egoworld_ops.video.boxes import NO_CROP, Crop
from egoworld_ops.video.containers import Media, check_size

_UNSPECIFIED = 2
_FULL_RANGE = 2
_SD_HEIGHT = 576

# ITU-T H.273, in ffprobe's words, by number
MATRICES = (
    "gbr bt709 unspecified reserved-3 fcc bt470bg smpte170m smpte240m ycgco bt2020nc bt2020c smpte2085 chroma-derived-nc chroma-derived-c "
    "ictcp ipt-c2 ycgco-re ycgco-ro"
)
PRIMARIES = (
    "reserved-0 bt709 unspecified reserved-3 bt470m bt470bg smpte170m smpte240m film bt2020 smpte428 smpte431 smpte432 reserved-13 "
    "reserved-14 reserved-15 reserved-16 reserved-17 reserved-18 reserved-19 reserved-20 reserved-21 ebu3213"
)
TRANSFERS = (
    "reserved-0 bt709 unspecified reserved-3 gamma22 gamma28 smpte170m smpte240m linear log100 log316 iec61966-2-4 bt1361e iec61966-2-1 "
    "bt2020-10 bt2020-12 smpte2084 smpte428 arib-std-b67"
)
_SHOWN_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""Numbers of the colour matrices that swscale converts to RGB; it refuses the others."""
_HDR = {16: "PQ", 18: "HLG"}
_DOLBY_VISION_IPT = 5
"""Profile 5 stores IPT colours; the stream often leaves their matrix unspecified."""

FIELD_ORDERS = {1: "progressive", 2: "tt", 3: "bb", 4: "tb", 5: "bt"}
_ONE_VIEW = ("mono", "unspecified")
"""Multi-view streams state `unspecified`; the decoder gives their base view alone."""

_SQUARE = Fraction(1)
_NEARLY_SQUARE = Fraction(1, 100)
"""Pixel aspects this close to 1 count as square: encoders state them after rounding a size."""
_WIDEST = Fraction(4)
"""A pixel aspect beyond this comes from a damaged header: no lens or format has one."""
_WIDE_PX = 1920
_TWO_SIDE_BY_SIDE = 3.2
"""Wider than any film format; two 16:9 pictures side by side are 3.6 to 1."""
_ANYWAY = 'or write "picture": {"use_as_pinhole": true} into its sidecar'


@dataclass(frozen=True, slots=True)
class Layout:
    """How the stored picture becomes the one shown: scaled to square pixels, cropped, mirrored, turned, in this order.

    Args:
        width, height: of the stored picture, px.
        sample_aspect_ratio: width over height of a stored pixel.
        crop: stored pixels that are not shown.
        mirrored: whether left and right are swapped.
        rotation_deg: clockwise turn: 0, 90, 180 or 270.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction = _SQUARE
    crop: Crop = NO_CROP
    mirrored: bool = False
    rotation_deg: int = 0

    @property
    def scaled_px(self) -> tuple[int, int]:
        """Width and height of the stored picture in square pixels; it is enlarged along a pixel's longer side, so that no detail is lost."""
        aspect = self.sample_aspect_ratio
        if abs(aspect - 1) <= _NEARLY_SQUARE:
            return self.width, self.height
        return (round(self.width * aspect), self.height) if aspect > 1 else (self.width, round(self.height / aspect))

    @property
    def cut_px(self) -> Crop:
        """How much is cut off the scaled picture at each edge."""
        (width, height), crop = self.scaled_px, self.crop
        x, y = width / self.width, height / self.height
        return Crop(round(crop.left * x), round(crop.top * y), round(crop.right * x), round(crop.bottom * y))

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the picture shown."""
        (width, height), cut = self.scaled_px, self.cut_px
        size = (width - cut.left - cut.right, height - cut.top - cut.bottom)
        return self._turned(size)

    def _turned(self, size: tuple[Any, Any]) -> tuple[Any, Any]:
        return size[::-1] if self.rotation_deg in (90, 270) else size

    def raster(self) -> Raster | None:
        """Where the stored picture, mirrored and turned upright, lies in the one shown; None where they are the same."""
        if self.scaled_px == (self.width, self.height) and self.cut_px == NO_CROP:
            return None
        cut = tuple(self.cut_px)
        if self.mirrored:
            cut = (cut[2], cut[1], cut[0], cut[3])
        for _ in range(self.rotation_deg // 90):
            cut = (cut[3], cut[0], cut[1], cut[2])
        scaled = self.scaled_px
        scale = self._turned((scaled[0] / self.width, scaled[1] / self.height))
        return Raster(*self._turned((self.width, self.height)), *scale, cut[0], cut[1])

    def arrange(self, scaled: np.ndarray) -> np.ndarray:
        """The picture shown, made from the scaled one; both (H, W, 3) uint8."""
        cut = self.cut_px
        picture = scaled[cut.top : scaled.shape[0] - cut.bottom, cut.left : scaled.shape[1] - cut.right]
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, -(self.rotation_deg // 90)))


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What container and stream say of the picture; table `videos` defines the names."""

    stored_width: int
    stored_height: int
    sample_aspect_ratio_num: int | None
    sample_aspect_ratio_den: int | None
    crop_left_px: int
    crop_top_px: int
    crop_right_px: int
    crop_bottom_px: int
    mirrored: bool
    field_order: str
    interlaced_frames: int
    color_space: str
    color_primaries: str
    color_transfer: str
    stereo_mode: str | None
    projection: str | None
    n_video_tracks: int
    video_track: int


class Upright:
    """How the frames of one stream are shown, from the first frame's size and turn and from what the container says.

    Args:
        layout: the layout found when the whole video was decoded; None if it is to be taken from the first frame.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        self.layout = layout
        self.warnings: list[str] = []
        self.reformatter = VideoReformatter()
        self._sample_aspect_ratio: Fraction | None = None
        self._colours = (_UNSPECIFIED, _UNSPECIFIED, _UNSPECIFIED)
        self._stereo_mode: str | None = None
        self._projection: str | None = None
        self._tracks = (0, 0)
        self._field_order = 0
        self._n_frames = 0
        self._n_interlaced = 0

    def observe(self, frame: av.VideoFrame, media: Media) -> None:
        """Take the layout from the first frame; record a later frame of another size, which is scaled to the first's.

        Raises:
            UnsupportedPicture: the colours or the pixel aspect cannot be shown.
        """
        if self.layout is None:
            self._begin(frame, media)
        elif (frame.width, frame.height) != (self.layout.width, self.layout.height) and not any("changes size" in w for w in self.warnings):
            self.warnings.append(f"the picture changes size to {frame.width} x {frame.height} px; it is scaled to the first frame's")
        self._n_frames += 1
        self._n_interlaced += frame.interlaced_frame

    def _begin(self, frame: av.VideoFrame, media: Media) -> None:
        self._colours = (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        _check_colours(media.path, self._colours[0], media.track.dolby_vision_profile)
        self._field_order = int(media.stream.codec_context.field_order)
        self._tracks = (len(media.sizes), media.stream.index)
        if len(media.sizes) > 1:
            sizes = ", ".join(f"number {index} of {width} x {height} px" for index, width, height in media.sizes)
            self.warnings.append(f"{len(media.sizes)} video streams: {sizes}; number {media.stream.index} is used")
        if stereo := frame.side_data.get("STEREO3D"):
            self._stereo_mode = _named(STEREO_MODES, stereo)
        if spherical := frame.side_data.get("SPHERICAL"):
            self._projection = _named(PROJECTIONS, spherical)
        mirrored, rotation_deg = self._turn(frame)
        self._sample_aspect_ratio = media.stream.sample_aspect_ratio or None
        aspect = self._sample_aspect_ratio or _SQUARE
        if not 1 / _WIDEST <= aspect <= _WIDEST:
            reason = f"says that its pixels are {aspect.numerator}:{aspect.denominator}, which no picture is"
            raise UnsupportedPicture(media.path, reason, "Set its sample aspect ratio right (ffmpeg -aspect), or convert it")
        self.layout = Layout(frame.width, frame.height, aspect, self._crop(frame, media), mirrored, rotation_deg)
        check_size(media.path, *self.layout.scaled_px)
        if self.layout.scaled_px != (frame.width, frame.height):
            shown = "{} x {}".format(*self.layout.scaled_px)
            self.warnings.append(
                f"pixels are {aspect.numerator}:{aspect.denominator}: {frame.width} x {frame.height} px are shown as {shown} square ones"
            )

    def _crop(self, frame: av.VideoFrame, media: Media) -> Crop:
        crop = media.track.crop
        if crop == NO_CROP:
            return crop
        width, height = frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom
        if min(crop) < 0 or min(width, height) < 1:
            self.warnings.append(f"the container's crop {tuple(crop)} leaves nothing of the picture and is passed over")
            return NO_CROP
        self.warnings.append(f"the container crops the picture to {width} x {height} of {frame.width} x {frame.height} px")
        return crop

    def _turn(self, frame: av.VideoFrame) -> tuple[bool, int]:
        """Whether the display matrix mirrors the picture, and its clockwise turn, rounded to whole quarters."""
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return False, 0
        a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
        mirrored = a * d - b * c < 0
        sign = -1 if mirrored else 1
        angle_deg = math.degrees(math.atan2(sign * b, sign * a))
        rotation_deg = round(angle_deg / 90) % 4 * 90
        if abs(angle_deg - 90 * round(angle_deg / 90)) > 1:
            self.warnings.append(f"the display matrix turns by {angle_deg:.1f} degrees, {rotation_deg} are applied")
        if mirrored:
            self.warnings.append("the display matrix mirrors the picture, which is undone")
        return mirrored, rotation_deg

    @property
    def shown(self) -> Layout:
        """The layout; the first frame must have been observed."""
        if self.layout is None:
            raise ValueError("Upright: no frame was observed")
        return self.layout

    def check_pinhole(self, path: Path) -> None:
        """Raise UnsupportedPicture if the picture is marked as two views, or as not from a pinhole camera."""
        if self._stereo_mode not in (None, *_ONE_VIEW):
            cure = f"Crop it to one eye (ffmpeg -vf stereo3d, or crop), {_ANYWAY}"
            raise UnsupportedPicture(path, f"holds two views in each picture (stereo {self._stereo_mode})", cure)
        if self._projection not in (None, "rectilinear"):
            cure = f"Make a rectilinear view of it (ffmpeg -vf v360=...:flat), {_ANYWAY}"
            raise UnsupportedPicture(path, f"is a {self._projection} picture, not that of a pinhole camera", cure)

    def facts(self) -> PictureFacts:
        """What is known once all frames are observed."""
        layout, aspect = self.shown, self._sample_aspect_ratio
        matrix, primaries, transfer = self._colours
        woven = FIELD_ORDERS.get(self._field_order, "progressive")
        if self._n_interlaced and woven == "progressive":
            woven = "interlaced"
        return PictureFacts(
            layout.width,
            layout.height,
            aspect.numerator if aspect else None,
            aspect.denominator if aspect else None,
            *layout.crop,
            layout.mirrored,
            woven,
            self._n_interlaced,
            _word(MATRICES, matrix),
            _word(PRIMARIES, primaries),
            _word(TRANSFERS, transfer),
            self._stereo_mode,
            self._projection,
            *self._tracks,
        )

    def all_warnings(self) -> list[str]:
        """Oddities of the picture, once all frames are observed."""
        facts, said = self.facts(), list(self.warnings)
        if facts.field_order != "progressive":
            woven = f"{self._n_interlaced} of {self._n_frames} frames are interlaced (fields {facts.field_order})"
            said.append(f"{woven}: both fields are shown at once, moving edges are combed; deinterlace the video (ffmpeg -vf bwdif)")
        if self._colours[2] in _HDR:
            kind = f"HDR ({_HDR[self._colours[2]]}, transfer {facts.color_transfer})"
            said.append(f"colours are {kind} and shown without tone mapping; convert the video to SDR for colours as people see them")
        width, height = self.shown.size_px
        if self._projection is None and width == 2 * height and width >= _WIDE_PX:
            said.append("the picture is twice as wide as high, as 360 degree pictures are; if it is one, make a rectilinear view of it")
        if self._stereo_mode is None and width >= max(_WIDE_PX, _TWO_SIDE_BY_SIDE * height):
            said.append("the picture is as wide as two side by side; if it holds two views, crop it to one")
        if self._stereo_mode not in (None, *_ONE_VIEW):
            said.append(f"stereo {self._stereo_mode} is used as one pinhole picture, as the sidecar says")
        if self._projection not in (None, "rectilinear"):
            said.append(f"a {self._projection} picture is used as that of a pinhole camera, as the sidecar says")
        return said


def layout_of(row: Mapping[str, Any]) -> Layout:
    """The layout of a video, of its row in table `videos`."""
    aspect = Fraction(row["sample_aspect_ratio_num"] or 1, row["sample_aspect_ratio_den"] or 1)
    crop = Crop(*(row[f"crop_{edge}_px"] for edge in Crop._fields))
    return Layout(row["stored_width"], row["stored_height"], aspect, crop, row["mirrored"], row["rotation_deg"])


def _word(words: str, number: int) -> str:
    """The word with that number; the number itself if there is none."""
    return dict(enumerate(words.split())).get(number, f"reserved-{number}")


def _named(names: tuple[str, ...], side_data: Any) -> str:
    """The name of libav's enumeration that side data (AVStereo3D, AVSphericalMapping) begins with."""
    [number] = struct.unpack("=i", bytes(side_data)[:4])
    return names[number] if 0 <= number < len(names) else "unspecified"


def _check_colours(path: Path, matrix: int, dolby_vision_profile: int | None) -> None:
    cure = "Convert it to BT.709 (ffmpeg -vf libplacebo=colorspace=bt709, or the editor it comes from)"
    if matrix not in _SHOWN_MATRICES:
        raise UnsupportedPicture(path, f"has a colour matrix that cannot be shown here: {_word(MATRICES, matrix)}", cure)
    if dolby_vision_profile == _DOLBY_VISION_IPT:
        raise UnsupportedPicture(path, "has a colour matrix that cannot be shown here: IPT, of Dolby Vision profile 5", cure)


def to_rgb(frame: av.VideoFrame, upright: Upright) -> np.ndarray:
    """(H, W, 3) uint8 upright RGB, in square pixels, of a frame that `upright` has observed.

    The colour matrix is the stream's own; where it names none, BT.709 above 576 lines and BT.601 up to there, as players assume (ITU-R
    BT.709, BT.601). The range is the stream's own, limited where it names none.
    """
    layout = upright.shown
    guess = (Colorspace.ITU709 if layout.height > _SD_HEIGHT else Colorspace.ITU601) if frame.colorspace == _UNSPECIFIED else None
    scaled = upright.reformatter.reformat(frame, *layout.scaled_px, "rgb24", src_colorspace=guess, threads=1)
    return layout.arrange(scaled.to_ndarray())


def color_range(frame: av.VideoFrame) -> str:
    """`limited`, `full` or `unspecified`, as the stream says."""
    if frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj") or frame.format.is_rgb:
        return "full"
    return "limited" if frame.color_range else "unspecified"
