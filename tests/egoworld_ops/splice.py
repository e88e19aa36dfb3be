"""Writes header elements that no muxer here writes into small files: boxes of MP4, elements of Matroska, scrambling bits of MPEG-TS."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

_SAMPLE_ENTRY_BYTES = 78
_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0


def box(kind: bytes, content: bytes) -> bytes:
    """An MP4 box."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def clap(width: int, height: int, right_px: int = 0, down_px: int = 0) -> bytes:
    """A clean aperture of this size, its centre so far right of and below that of the picture."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right_px, 1, down_px, 1))


def stereo(mode: int) -> bytes:
    """Google's stereo box: 1 is top-bottom, 2 is left-right."""
    return box(b"st3d", struct.pack(">IB", 0, mode))


def equirectangular() -> bytes:
    """Google's spherical box of an uncropped equirectangular picture."""
    header = box(b"svhd", struct.pack(">I", 0) + b"test\0")
    pose = box(b"prhd", struct.pack(">Iiii", 0, 0, 0, 0))
    bounds = box(b"equi", struct.pack(">IIIII", 0, 0, 0, 0, 0))
    return box(b"sv3d", header + box(b"proj", pose + bounds))


def dolby_vision(profile: int) -> bytes:
    """A Dolby Vision configuration record."""
    return box(b"dvcC", bytes([1, 0, profile << 1, 0b00001101]) + bytes(20))


def into_sample_entry(path: Path, *boxes: bytes, kind: bytes | None = None) -> Path:
    """Put boxes into the sample entry of an MP4's only track, whose moov comes last; `kind` renames the entry."""
    data = bytearray(path.read_bytes())
    added = b"".join(boxes)
    at, end, sizes = 0, len(data), []
    for wanted in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b""):
        while wanted and data[at + 4 : at + 8] != wanted:
            at += struct.unpack(">I", data[at : at + 4])[0]
            assert at < end, f"no {wanted!r}"
        sizes.append(at)
        at, end = at + 8 + (8 if wanted == b"stsd" else 0), at + struct.unpack(">I", data[at : at + 4])[0]
    entry = sizes[-1]
    for where in sizes:
        struct.pack_into(">I", data, where, struct.unpack(">I", data[where : where + 4])[0] + len(added))
    if kind is not None:
        data[entry + 4 : entry + 8] = kind
    data[entry + 8 + _SAMPLE_ENTRY_BYTES : entry + 8 + _SAMPLE_ENTRY_BYTES] = added
    path.write_bytes(data)
    return path


def element(kind: int, content: bytes) -> bytes:
    """A Matroska element."""
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (1 << 56 | len(content)).to_bytes(8, "big") + content


def unsigned(kind: int, value: int) -> bytes:
    """A Matroska element that holds a number."""
    return element(kind, value.to_bytes(2, "big"))


def into_matroska(path: Path, *elements: bytes, video: bool = True) -> Path:
    """Put elements into the first track of a Matroska file, into its Video element or beside it. Cues and seek heads then point astray."""
    data = path.read_bytes()
    wanted = [_SEGMENT, _TRACKS, _TRACK, *([_VIDEO] if video else [])]
    path.write_bytes(_grown(data, wanted, b"".join(elements)))
    return path


def _grown(data: bytes, wanted: list[int], added: bytes) -> bytes:
    if not wanted:
        return data + added
    at = 0
    while at < len(data):
        id_bytes = 9 - data[at].bit_length()
        kind = int.from_bytes(data[at : at + id_bytes], "big")
        size_bytes = 9 - data[at + id_bytes].bit_length()
        start = at + id_bytes + size_bytes
        size = int.from_bytes(data[at + id_bytes : start], "big") & ((1 << 7 * size_bytes) - 1)
        if kind == wanted[0]:
            return data[:at] + element(kind, _grown(data[start : start + size], wanted[1:], added)) + data[start + size :]
        at = start + size
    raise AssertionError(f"no element {wanted[0]:x}")


def scramble(path: Path, pid: int) -> Path:
    """Mark the packets of one PID of a transport stream as scrambled, and garble what they hold."""
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 188):
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == pid:
            data[at + 3] |= 0x80
            data[at + 100 : at + 188] = bytes(b ^ 0x5A for b in data[at + 100 : at + 188])
    path.write_bytes(data)
    return path


def apple_metadata(*values: tuple[bytes, int, bytes], quicktime: bool = True) -> bytes:
    """A `meta` box of Apple's keys, each with the type of its value and its bytes; with version and flags where it is not QuickTime's."""
    keys = b"".join(struct.pack(">I4s", 8 + len(key), b"mdta") + key for key, _, _ in values)
    items = b"".join(
        box(struct.pack(">I", n), box(b"data", struct.pack(">II", kind, 0) + value)) for n, (_, kind, value) in enumerate(values, 1)
    )
    handler = box(b"hdlr", struct.pack(">II4s", 0, 0, b"mdta") + bytes(13))
    content = handler + box(b"keys", struct.pack(">II", 0, len(values)) + keys) + box(b"ilst", items)
    return box(b"meta", content if quicktime else bytes(4) + content)


def into_track(path: Path, *boxes: bytes) -> Path:
    """Put boxes at the end of the first track of an MP4 whose moov comes last."""
    data = bytearray(path.read_bytes())
    added = b"".join(boxes)
    at, end = 0, len(data)
    for wanted in (b"moov", b"trak"):
        while data[at + 4 : at + 8] != wanted:
            at += struct.unpack(">I", data[at : at + 4])[0]
            assert at < end, f"no {wanted!r}"
        size = struct.unpack(">I", data[at : at + 4])[0]
        struct.pack_into(">I", data, at, size + len(added))
        at, end = at + 8, at + size
    data[end:end] = added
    path.write_bytes(data)
    return path


def gpmf(key: bytes, kind: str, *values: Any) -> bytes:
    """An entry of GoPro's GPMF: text (`c`), numbers of a kind, all one item, or, without a kind, other entries."""
    if kind == "c":
        size, count, data = 1, len(values[0]), values[0]
    elif kind:
        data = struct.pack(f">{len(values)}{kind.replace('S', 'H').replace('l', 'i').replace('L', 'I')}", *values)
        size, count = len(data), 1
    else:
        data = b"".join(values)
        size, count = 1, len(data)
    return struct.pack(">4scBH", key, kind.encode() or b"\0", size, count) + data + bytes(-len(data) % 4)


def into_moov(path: Path, *boxes: bytes) -> Path:
    """Put boxes at the end of the moov of an MP4 that it ends with."""
    data = bytearray(path.read_bytes())
    at = 0
    while data[at + 4 : at + 8] != b"moov":
        at += struct.unpack(">I", data[at : at + 4])[0]
    added = b"".join(boxes)
    struct.pack_into(">I", data, at, struct.unpack(">I", data[at : at + 4])[0] + len(added))
    path.write_bytes(data + added)
    return path


def gpmd_track(payload: bytes, at: int) -> bytes:
    """A track of GoPro's telemetry whose one sample, `payload`, lies `at` this place of the file."""
    entry = box(b"gpmd", bytes(6) + struct.pack(">H", 1))
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1) + entry)
        + box(b"stts", struct.pack(">IIII", 0, 1, 1, 1000))
        + box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1))
        + box(b"stsz", struct.pack(">IIII", 0, 0, 1, len(payload)))
        + box(b"stco", struct.pack(">III", 0, 1, at)),
    )
    header = box(b"tkhd", struct.pack(">IIIII", 7, 0, 0, 9, 0) + bytes(64))
    media = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, 1000, 0)) + box(b"hdlr", struct.pack(">II4s", 0, 0, b"meta") + bytes(13))
    return box(b"trak", header + box(b"mdia", media + box(b"minf", table)))
