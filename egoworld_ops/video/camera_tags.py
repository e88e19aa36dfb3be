"""What a QuickTime or MP4 file says of the lens that it was recorded with: Apple's 35 mm equivalent focal length.

Metadata of the kind `mdta` (QuickTime File Format, Metadata atoms): a `meta` box with names (`keys`) and values (`ilst`), of the track or the movie.
iPhones write `com.apple.quicktime.camera.focal_length.35mm_equivalent` (AVFoundation's quickTimeMetadataKeyCameraFocalLength35mmEquivalent) with the
track, where libav does not pass it on, as a number or, since iOS 26, as text such as "26.00mm". It is the lens's own: no digital zoom and no crop for
stabilisation is in it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from egoworld_ops.video.boxes import File, Part, below, boxes_in

KEY = b"com.apple.quicktime.camera.focal_length.35mm_equivalent"
LENS_MM = (8.0, 400.0)
"""Equivalent focal lengths of lenses that are no fisheyes, from the widest to a long telephoto; others are passed over."""
_MOST_BYTES = 1 << 16
_NUMBERS = {21: "bhiq", 22: "BHIQ", 23: "f", 24: "d", **dict.fromkeys((65, 66, 67, 74), "bhiq"), **dict.fromkeys((75, 76, 77, 78), "BHIQ")}
"""Formats by the type of a value (QuickTime File Format, Well-known types): integers of any size, and floats."""
_UTF8 = 1


def focal_35mm(descriptor: int, demuxer: str, track_id: int) -> float | None:
    """The 35 mm equivalent focal length that a file states, in mm, its track before the movie; None where it states none that a lens has.

    Args:
        descriptor: of a regular file; its position is not moved.
        demuxer: as from `containers.sniff`.
        track_id: libav's stream id.
    """
    if demuxer != "mov":
        return None
    file = File(descriptor)
    try:
        for meta in _metas(file, track_id):
            value = _value(file, meta)
            if value is not None and LENS_MM[0] <= value <= LENS_MM[1]:
                return value
    except (struct.error, IndexError, ValueError):
        return None
    return None


def _metas(file: File, track_id: int) -> Iterator[Part]:
    """The `meta` boxes of a track, then those of the movie."""
    moov = next(below(file, Part(b"", 0, file.size), b"moov"), None)
    if moov is None:
        return
    for trak in below(file, moov, b"trak"):
        header = next(below(file, trak, b"tkhd"), None)
        if header is not None:
            id_at = 20 if file.at(header.start, 1) == b"\x01" else 12
            if struct.unpack(">I", file.at(header.start + id_at, 4))[0] == track_id:
                yield from below(file, trak, b"meta")
    yield from below(file, moov, b"meta")
    yield from below(file, moov, b"udta", b"meta")


def _value(file: File, meta: Part) -> float | None:
    """The number under the key in a `meta` box, which in MP4 begins with four bytes of version and flags, and in QuickTime does not."""
    start = meta.start if file.at(meta.start + 4, 4) == b"hdlr" else meta.start + 4
    parts = {part.kind: part for part in boxes_in(file, start, meta.end)}
    if b"keys" not in parts or b"ilst" not in parts:
        return None
    wanted = [number for number, name in enumerate(_names(file, parts[b"keys"]), 1) if name == KEY]
    for item in boxes_in(file, parts[b"ilst"].start, parts[b"ilst"].end):
        if struct.unpack(">I", item.kind)[0] in wanted:
            for data in below(file, item, b"data"):
                return _number(file.at(data.start, min(data.end - data.start, _MOST_BYTES)))
    return None


def _names(file: File, keys: Part) -> Iterator[bytes]:
    content = file.at(keys.start, min(keys.end - keys.start, _MOST_BYTES))
    at = 8
    while at + 8 <= len(content):
        [size] = struct.unpack(">I", content[at : at + 4])
        if size < 8:
            return
        yield content[at + 8 : at + size]
        at += size


def _number(data: bytes) -> float | None:
    [kind], value = struct.unpack(">I", data[:4]), data[8:]
    if kind == _UTF8:
        number = float(value.decode("ascii").removesuffix("mm"))
    else:
        form = next((c for c in _NUMBERS.get(kind, "") if struct.calcsize(f">{c}") == len(value)), None)
        if form is None:
            return None
        number = float(struct.unpack(f">{form}", value)[0])
    return number if math.isfinite(number) else None
