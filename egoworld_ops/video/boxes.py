"""Reads what libav does not pass on about a track from its container: the crop, encryption, and Dolby Vision's profile.

MP4 and QuickTime boxes (ISO 14496-12, QuickTime File Format), Matroska elements (RFC 9559), scrambling bits of MPEG-TS (ISO 13818-1),
ASF objects. Only headers are read. Malformed data ends the search without an error: whether the file decodes is checked later.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

MAX_PARTS = 100_000
"""Maximum number of boxes or elements read in one file."""

_SAMPLE_ENTRY_BYTES = 78
_ENCRYPTED_ENTRIES = (b"encv", b"drmi")
_DRM_OBJECTS = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),  # Content Encryption Object
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),  # Extended Content Encryption Object
)
_TS_PACKET, _M2TS_PACKET = 188, 192
_TS_LOOKED_AT = 500

# Matroska element IDs, with their length marker
_SEGMENT, _TRACKS, _TRACK = 0x18538067, 0x1654AE6B, 0xAE
_TYPE, _ENCODINGS, _ENCODING, _ENCRYPTION, _VIDEO = 0x83, 0x6D80, 0x6240, 0x5035, 0xE0
_IS_VIDEO = 1
_CROPS = {0x54CC: 0, 0x54BB: 1, 0x54DD: 2, 0x54AA: 3}


class Crop(NamedTuple):
    """Stored pixels at each edge of the stored picture that are not shown."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


NO_CROP = Crop()


@dataclass(frozen=True, slots=True)
class Track:
    """What the container says of one track.

    Args:
        crop: clean aperture (`clap`) or PixelCrop.
        encrypted: the container's own word for the encryption; empty if there is none.
        dolby_vision_profile: from the configuration record; None if there is none.
    """

    crop: Crop = NO_CROP
    encrypted: str = ""
    dolby_vision_profile: int | None = None


def tracks(descriptor: int, demuxer: str) -> dict[int, Track]:
    """Tracks of an open file by libav's stream id; in Matroska, where libav gives none, by their rank among the video tracks.

    Args:
        descriptor: of a regular file; its position is not moved.
        demuxer: as from `containers.sniff`.
    """
    file = File(descriptor)
    try:
        if demuxer == "mov":
            return dict(_mov_tracks(file))
        if demuxer == "matroska":
            return dict(_matroska_tracks(file))
        if demuxer == "mpegts":
            return {pid: Track(encrypted="transport_scrambling_control") for pid in _scrambled(file)}
        if demuxer == "asf" and any(found in file.at(0, 1 << 16) for found in _DRM_OBJECTS):
            return {number: Track(encrypted="Content Encryption Object") for number in range(128)}
    except (struct.error, IndexError, ZeroDivisionError):
        return {}
    return {}


class File:
    """An open file, read at any offset; counts the parts that are read of it.

    Args:
        descriptor: of a regular file; its position is not moved.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._left = MAX_PARTS

    def at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset."""
        return os.pread(self._descriptor, size, offset)

    def one_more(self) -> bool:
        """Count one more part; False if there are too many."""
        self._left -= 1
        return self._left >= 0


class Part(NamedTuple):
    """A box: its kind, and where its content begins and ends in the file."""

    kind: bytes
    start: int
    end: int


def boxes_in(file: File, start: int, end: int) -> Iterator[Part]:
    """Consecutive boxes in `[start, end)`: kind and range of the content."""
    while start + 8 <= end and file.one_more():
        size, kind = struct.unpack(">I4s", file.at(start, 8))
        header = 8
        if size == 1:
            [size], header = struct.unpack(">Q", file.at(start + 8, 8)), 16
        stop = end if size == 0 else start + size
        if stop < start + header or stop > end:
            return
        yield Part(kind, start + header, stop)
        start = stop


def below(file: File, part: Part, *path: bytes) -> Iterator[Part]:
    """All boxes below `part` on this path of kinds."""
    if not path:
        yield part
        return
    for child in boxes_in(file, part.start, part.end):
        if child.kind == path[0]:
            yield from below(file, child, *path[1:])


def _mov_tracks(file: File) -> Iterator[tuple[int, Track]]:
    moov = next(below(file, Part(b"", 0, file.size), b"moov"), None)
    for trak in below(file, moov, b"trak") if moov else ():
        header = next(below(file, trak, b"tkhd"), None)
        handler = next(below(file, trak, b"mdia", b"hdlr"), None)
        if header is None or handler is None or file.at(handler.start + 8, 4) != b"vide":
            continue
        id_at = 20 if file.at(header.start, 1) == b"\x01" else 12
        [track_id] = struct.unpack(">I", file.at(header.start + id_at, 4))
        track = Track()
        for table in below(file, trak, b"mdia", b"minf", b"stbl", b"stsd"):
            for entry in boxes_in(file, table.start + 8, table.end):
                track = _sample_entry(file, entry, track)
        yield track_id, track


def _sample_entry(file: File, entry: Part, track: Track) -> Track:
    if entry.kind in _ENCRYPTED_ENTRIES:
        track = replace(track, encrypted=entry.kind.decode())
    width, height = struct.unpack(">HH", file.at(entry.start + 24, 4))
    for box in boxes_in(file, entry.start + _SAMPLE_ENTRY_BYTES, entry.end):
        if box.kind == b"sinf":
            track = replace(track, encrypted=track.encrypted or "sinf")
        elif box.kind == b"clap":
            track = replace(track, crop=_clean_aperture(struct.unpack(">IIIIiIiI", file.at(box.start, 32)), width, height))
        elif box.kind in (b"dvcC", b"dvvC"):
            track = replace(track, dolby_vision_profile=file.at(box.start + 2, 1)[0] >> 1)
    return track


def _clean_aperture(numbers: tuple[int, ...], width: int, height: int) -> Crop:
    """The crop of a `clap` box, from four fractions: the size of the aperture, and the offset of its centre from the picture's centre."""
    shown_x, shown_y, off_x, off_y = (Fraction(numbers[i], numbers[i + 1]) for i in range(0, 8, 2))
    left, top = round((width - shown_x) / 2 + off_x), round((height - shown_y) / 2 + off_y)
    return Crop(left, top, width - left - round(shown_x), height - top - round(shown_y))


def _elements(file: File, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Consecutive EBML elements in `[start, end)`: ID and range of the content. An element of unknown size extends to `end`."""
    while start < end and file.one_more():
        head = file.at(start, 12)
        id_bytes = _marker(head[0])
        kind = int.from_bytes(head[:id_bytes], "big")
        size_bytes = _marker(head[id_bytes])
        value = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
        content = start + id_bytes + size_bytes
        start = end if value == (1 << 7 * size_bytes) - 1 else content + value
        yield kind, content, min(start, end)


def _marker(first: int) -> int:
    """Length of an EBML number in bytes, from its first byte."""
    if not first:
        raise IndexError("an EBML number has at most 8 bytes")
    return 9 - first.bit_length()


def _within(file: File, start: int, end: int, *path: int) -> Iterator[tuple[int, int]]:
    """Range of the content of every element on this path of IDs."""
    if not path:
        yield start, end
        return
    for kind, first, last in _elements(file, start, end):
        if kind == path[0]:
            yield from _within(file, first, last, *path[1:])


def _matroska_tracks(file: File) -> Iterator[tuple[int, Track]]:
    first_tracks = next(_within(file, 0, file.size, _SEGMENT, _TRACKS), (0, 0))
    rank = 0
    for start, end in _within(file, *first_tracks, _TRACK):
        kind_of_track, track, crop = 0, Track(), [0, 0, 0, 0]
        for kind, first, last in _elements(file, start, end):
            if kind == _TYPE:
                kind_of_track = file.at(first, 1)[0]
            elif kind == _ENCODINGS and any(_within(file, first, last, _ENCODING, _ENCRYPTION)):
                track = replace(track, encrypted="ContentEncryption")
            elif kind == _VIDEO:
                for name, value, stop in _elements(file, first, last):
                    if name in _CROPS:
                        crop[_CROPS[name]] = int.from_bytes(file.at(value, min(stop - value, 8)), "big")
        if kind_of_track == _IS_VIDEO:
            yield rank, replace(track, crop=Crop(*crop))
            rank += 1


def _scrambled(file: File) -> set[int]:
    """PIDs of a transport stream with scrambled packets near its start."""
    found: set[int] = set()
    head = file.at(0, _M2TS_PACKET * _TS_LOOKED_AT)
    size, offset = (_TS_PACKET, 0) if head[:1] == b"\x47" else (_M2TS_PACKET, 4)
    for at in range(offset, len(head) - _TS_PACKET, size):
        if head[at] == 0x47 and head[at + 3] & 0xC0:
            found.add(int.from_bytes(head[at + 1 : at + 3], "big") & 0x1FFF)
    return found
