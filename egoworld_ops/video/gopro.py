"""What a GoPro's MP4 says of its lens: the box `udta/GPMF`, or the first sample of its `gpmd` track, read as a stranger's bytes.

GPMF is a list of keys, each with type, size of an item, number of items and big-endian values, padded to four bytes; a key without type holds a list
(github.com/gopro/gpmf-parser, docs). Of the lens it has VFOV (setting: W wide, M medium, N narrow, L linear, S SuperView, H HyperView, X Max
SuperView), ZFOV (diagonal field of view, degrees), VRES (size of the picture), EISE (whether it is stabilised), DZST (digital zoom), and from HERO8
on the lens itself. As GoPro's engineer says in issues 190 and 196 there: POLY is a polynomial from radius to angle, radians, PYCF the names of
its powers, ZMPL scales the radius, which is 1 at the picture's corner; MAPX and MAPY stretch the pictures of SuperView and HyperView, from the
aspect ratio ARUW to ARWA. Gyroflow (telemetry-parser, `gopro/lens_profile.rs`) reads them so.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from egoworld_ops.types import StatedLens
from egoworld_ops.video.boxes import File, Part, below

_MOST_BYTES, _DEEPEST = 1 << 16, 6
_FORMATS = {"b": "b", "B": "B", "s": "h", "S": "H", "l": "i", "L": "I", "j": "q", "J": "Q", "f": "f", "d": "d"}
_STRETCHED = {"S": "SuperView", "H": "HyperView", "X": "Max SuperView"}
_STEADY, _STABILISED, _SHAPE_ASSUMED = 0.03, 0.1, 0.1
_SAME_SHAPE = 0.01
_SAME_ANGLE_DEG = 3.0
_ANGLES_DEG = (5.0, 100.0)
_SAMPLES = 200
_FIT = 3e-3
_UNITY = 1e-3

Fields = Mapping[str, tuple[float, ...] | str]
"""Values by key: text, or numbers."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a file states of its lens: the `lens`, or `why` it cannot be used; neither where it says nothing."""

    lens: StatedLens | None = None
    why: str | None = None


def stated_lens(descriptor: int, demuxer: str, width: int, height: int) -> Stated:
    """What a GoPro's file says of its lens.

    Args:
        descriptor: of a regular file; its position is not moved.
        demuxer: as from `containers.sniff`.
        width, height: of the picture as it is stored, px.
    """
    if demuxer != "mov" or not width or not height:
        return Stated()
    file = File(descriptor)
    try:
        for payload in _payloads(file):
            for fields in _devices(payload):
                return _lens(fields, width, height)
    except (struct.error, IndexError, ValueError, OverflowError):
        return Stated()
    return Stated()


def _payloads(file: File) -> Iterator[bytes]:
    """GPMF of the whole file, then that of the first sample of the track of kind `gpmd`."""
    moov = next(below(file, Part(b"", 0, file.size), b"moov"), None)
    if moov is None:
        return
    for box in below(file, moov, b"udta", b"GPMF"):
        yield file.at(box.start, min(box.end - box.start, _MOST_BYTES))
    for table in below(file, moov, b"trak", b"mdia", b"minf", b"stbl"):
        entry = next(below(file, table, b"stsd"), None)
        if entry is None or file.at(entry.start + 12, 4) != b"gpmd":
            continue
        sizes, places = next(below(file, table, b"stsz"), None), _first_place(file, table)
        if sizes is not None and places is not None:
            same, _, first = struct.unpack(">III", file.at(sizes.start + 4, 12))
            yield file.at(places, min(same or first, _MOST_BYTES))


def _first_place(file: File, table: Part) -> int | None:
    """Where in the file the first chunk of a track lies."""
    for kind, form in ((b"stco", ">I"), (b"co64", ">Q")):
        for box in below(file, table, kind):
            return int(struct.unpack(form, file.at(box.start + 8, struct.calcsize(form)))[0])
    return None


def _devices(payload: bytes) -> Iterator[Fields]:
    """The fields of each device that says something of its field of view."""
    for key, kind, _, _, data in _items(payload):
        if key == b"DEVC" and kind == "\0":
            fields: dict[str, tuple[float, ...] | str] = {}
            _gather(data, fields, _DEEPEST)
            if fields.keys() & {"VFOV", "ZFOV"}:
                yield fields


def _gather(payload: bytes, fields: dict[str, tuple[float, ...] | str], depth: int) -> None:
    """Put the fields of a list and of the lists in it into `fields`; the first value of a key counts."""
    for key, kind, size, count, data in _items(payload):
        if kind == "\0":
            if depth:
                _gather(data, fields, depth - 1)
        elif kind in "cF":
            fields.setdefault(key.decode("latin-1"), data.decode("latin-1").strip("\0 "))
        elif kind in _FORMATS and size and not size % struct.calcsize(_FORMATS[kind]):
            form = f">{size * count // struct.calcsize(_FORMATS[kind])}{_FORMATS[kind]}"
            fields.setdefault(key.decode("latin-1"), tuple(map(float, struct.unpack(form, data))))


def _items(payload: bytes) -> Iterator[tuple[bytes, str, int, int, bytes]]:
    """Key, type, size of an item, number of items and bytes of each entry, up to the first that is cut off."""
    at = 0
    while at + 8 <= len(payload):
        key, kind, size, count = struct.unpack(">4scBH", payload[at : at + 8])
        data = payload[at + 8 : at + 8 + size * count]
        if len(data) < size * count:
            return
        yield key, kind.decode("latin-1"), size, count, data
        at += 8 + (size * count + 3) // 4 * 4


def _lens(fields: Fields, width: int, height: int) -> Stated:
    setting, zfov_deg = str(fields.get("VFOV", "")), _number(fields, "ZFOV")
    why = _unusable(fields, setting, zfov_deg, width, height)
    if why is not None:
        return Stated(why=f"a GoPro's lens is stated, and {why}")
    error = _STEADY if fields.get("EISE") == "N" else _STABILISED
    poly, scale = fields.get("POLY"), _number(fields, "ZMPL")
    if isinstance(poly, tuple) and scale is not None:
        lens = _of_polynomial(poly, scale, error)
        corner_deg = 2 * math.degrees(_angle(poly, scale))
        if lens is None or (zfov_deg and not abs(corner_deg - zfov_deg) <= _SAME_ANGLE_DEG):
            return Stated(
                why=f"a GoPro's lens is stated, and its polynomial contradicts its field of view ({corner_deg:.1f} and {zfov_deg} degrees)"
            )
        return Stated(lens)
    if not zfov_deg:
        return Stated(why="a GoPro's lens is stated, and its field of view is not")
    half_rad = math.radians(zfov_deg / 2)
    if setting == "L":
        return Stated(StatedLens(0.5 / math.tan(half_rad), "pinhole", (), _STABILISED))
    return Stated(StatedLens(0.5 / half_rad, "kannala_brandt", (0.0,) * 4, _SHAPE_ASSUMED))


def _unusable(fields: Fields, setting: str, zfov_deg: float | None, width: int, height: int) -> str | None:
    """Why the stated lens does not describe the picture of this size, if it does not."""
    projection = fields.get("PRJT", "GPRO")
    if projection != "GPRO":
        return f"its picture is of another projection ({projection})"
    unwarped, warped = _number(fields, "ARUW"), _number(fields, "ARWA")
    stretched = bool(unwarped and warped and abs(warped / unwarped - 1) > _SAME_SHAPE)
    if setting in _STRETCHED or stretched or not all(_is_identity(fields.get(key)) for key in ("MAPX", "MAPY")):
        return f"its picture is stretched unevenly ({_STRETCHED.get(setting, setting or 'MAPX')}), which no model of a lens here describes"
    if _number(fields, "DZST"):
        return "it was zoomed digitally"
    size = fields.get("VRES")
    if isinstance(size, tuple) and len(size) >= 2 and min(size[:2]) > 0 and abs(size[0] * height / (size[1] * width) - 1) > _SAME_SHAPE:
        return f"is of a picture of {size[0]:.0f}x{size[1]:.0f}, not of {width}x{height}"
    if zfov_deg and not 2 * _ANGLES_DEG[0] <= zfov_deg <= 2 * _ANGLES_DEG[1]:
        return f"its field of view is said to be {zfov_deg:g} degrees"
    return None


def _number(fields: Fields, key: str) -> float | None:
    value = fields.get(key)
    return value[0] if isinstance(value, tuple) and value and math.isfinite(value[0]) else None


def _is_identity(coefficients: tuple[float, ...] | str | None) -> bool:
    """Whether a stretching is none: absent, or 1 for the coordinate itself and 0 for its powers."""
    if not isinstance(coefficients, tuple):
        return True
    return bool(np.allclose(coefficients, np.eye(1, len(coefficients))[0], atol=_UNITY))


def _angle(poly: tuple[float, ...], scale: float, radius: float = 1.0) -> float:
    """Angle to the axis, radians, at a radius; 1 is the picture's corner."""
    return float(np.polynomial.polynomial.polyval(scale * radius, poly))


def _of_polynomial(poly: tuple[float, ...], scale: float, error: float) -> StatedLens | None:
    """The lens of kind kannala_brandt that is the polynomial's inverse out to the corner; None where there is none."""
    radii = np.linspace(0, 1, _SAMPLES)
    angles = np.polynomial.polynomial.polyval(scale * radii, poly)
    usual = math.radians(_ANGLES_DEG[0]) <= angles[-1] <= math.radians(_ANGLES_DEG[1])
    if not (np.isfinite(angles).all() and abs(angles[0]) < _UNITY and (np.diff(angles) > 0).all() and usual):
        return None
    powers = angles[:, None] ** np.arange(1, 10, 2)
    focal, *bent = np.linalg.lstsq(powers, radii, rcond=None)[0]
    if not (focal > 0 and np.abs(powers @ [focal, *bent] - radii).max() < _FIT):
        return None
    return StatedLens(float(focal) / 2, "kannala_brandt", tuple(float(k / focal) for k in bent), error)
