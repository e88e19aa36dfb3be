"""The packet index of a video: where each packet of the stream lies in the file, its frame, and where decoding must begin to get that frame.

A packet's number is its position in decoding order; a frame's index its position in presentation order. The index is made once, when the
manifest decodes the whole video (`indexing.py`), and read for each clip (`index_file.py`, `by_index.py`). It changes no pixel and no time: it
is checked during use, and if a check fails the video is decoded from its start, as if there were no index.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import av
import numpy as np

from egoworld_ops.video.decoder import DecoderSetup
from egoworld_ops.video.picture import Layout

FORMAT = 2
"""Increased whenever the meaning of an index changes: older ones are not read."""
ROW = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("offset", "<i4"),
        ("size", "<i4"),
        ("crc", "<u4"),
        ("key", "<i4"),
        ("begin", "<i4"),
        ("frame", "<i4"),
        ("time_s", "<f8"),
        ("picture", "<u4"),
    ]
)
"""One packet. The file's bytes [start, end) hold it; in the stream's bytes extracted from them (see `Stored`) it has `size` bytes from `offset`
on, with this CRC-32. `key` is 1 for a keyframe. To get its frame, decoding begins at packet number `begin`. `frame` is the index of that
frame, -1 if it is not shown; `time_s` its time and `picture` its checksum (`picture_crc`)."""
NOT_SHOWN = -1
_EVERY_ROW = 16
"""Step between the picture rows in its checksum: every macroblock has such a row."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How the packets lie in the file.

    Args:
        kind: `plain`: as they are, one piece each; `transport`: cut into packets of a transport stream (`transport.py`); `demuxed`: only the
            container's demuxer can assemble them, and it reads the file from its start.
        pid, packet_bytes: of a transport stream.
        reason: why they are `demuxed`.
    """

    kind: Literal["plain", "transport", "demuxed"]
    pid: int = 0
    packet_bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What holds for all packets of a video.

    Args:
        bytes: size of the file.
        stored: how the packets lie in it.
        setup: the decoder.
        layout: how the frames are shown.
    """

    bytes: int
    stored: Stored
    setup: DecoderSetup
    layout: Layout


@dataclass(frozen=True, slots=True)
class Section:
    """The packets to decode for some frames, from a keyframe on; `rows[0]` is packet number `first`."""

    first: int
    rows: np.ndarray


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """The whole index of a video: what holds for all packets, and (n,) `ROW` of them in decoding order."""

    about: About
    rows: np.ndarray

    def section(self, wanted: range) -> Section:
        """The packets to decode for these frames.

        Raises:
            IndexDiffers: the index does not have them all.
        """
        return section_of(self.rows, 0, wanted)


class IndexDiffers(Exception):
    """A file does not match its index, or the index is incomplete: it is not used, and the video is decoded from its start."""


def section_of(rows: np.ndarray, first: int, wanted: range) -> Section:
    """The packets to decode for these frames, where `rows[0]` is packet number `first`.

    Raises:
        IndexDiffers: the rows do not hold them all.
    """
    [chosen] = np.nonzero(is_wanted(rows["frame"], wanted))
    if len(chosen) != len(wanted):
        raise IndexDiffers(f"it has {len(chosen)} of the {len(wanted)} frames from {wanted.start} to {wanted[-1]}")
    begin = int(rows["begin"][chosen].min()) - first
    if begin < 0:
        raise IndexDiffers(f"packets before number {first} are needed")
    return Section(first + begin, rows[begin : int(chosen[-1]) + 1])


def is_wanted(frames: np.ndarray, wanted: range) -> np.ndarray:
    """Which of these frame indices are in a range."""
    return (frames >= wanted.start) & (frames < wanted.stop) & ((frames - wanted.start) % wanted.step == 0)


def begins(keys: np.ndarray, frames: np.ndarray, lead: int) -> np.ndarray:
    """(n,) number of the packet at which decoding begins for each packet.

    That is the last keyframe decoded before it whose frame is not shown after its own, then `lead` keyframes before that.

    Args:
        keys: (n,) whether each packet is a keyframe.
        frames: (n,) index of its frame, NOT_SHOWN where it has none.
    """
    [numbers] = np.nonzero(keys)
    if not len(numbers) or numbers[0]:
        numbers = np.concatenate([[0], numbers])
    place = np.searchsorted(numbers, np.arange(len(keys)), "right") - 1
    shown = frames[numbers]
    while len(leading := np.nonzero((frames != NOT_SHOWN) & (frames < shown[place]) & (place > 0))[0]):
        place[leading] -= 1
    return numbers[np.maximum(place - lead, 0)]


def picture_crc(frame: av.VideoFrame) -> int:
    """Checksum of every 16th row of a frame, and of how it is to be shown; a different picture almost never has the same."""
    shown = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range), bool(frame.interlaced_frame))
    crc = zlib.crc32(repr(shown).encode())
    for plane, sample_bytes in zip(frame.planes, _sample_bytes(frame.format.name), strict=False):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)  # type: ignore[call-overload]
        crc = zlib.crc32(rows[::_EVERY_ROW, : plane.width * sample_bytes].tobytes(), crc)
    return crc


@lru_cache
def _sample_bytes(pix_fmt: str) -> tuple[int, ...]:
    """Bytes that the samples at one position take in each plane of a format."""
    return tuple(_by_plane(pix_fmt))


def _by_plane(pix_fmt: str) -> Iterator[int]:
    components = av.VideoFormat(pix_fmt, 16, 16).components
    for plane in range(1 + max((component.plane for component in components), default=0)):
        yield sum(-(-component.bits // 8) for component in components if component.plane == plane)
