"""Colours of the synthetic scene: the cuboid's six faces, three tables, floor. RGB floats from 0 to 255."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Floats = np.ndarray
_TEXEL_M = 0.0004
_LATTICE = 256
_FACE_RGB = ((18, 120, 140), (230, 205, 40), (150, 25, 120), (30, 60, 150), (25, 135, 75), (235, 235, 240))
_INK_RGB = ((245, 245, 245), (15, 15, 20), (250, 215, 40), (0, 175, 215), (30, 50, 150), (190, 30, 130), (40, 165, 80))
_PRINT_SPREAD = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_SHAPES_PER_M2 = 2600.0


class Noise:
    """Smooth random function of the plane with values in [0, 1], periodic after 256 cells."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the lattice."""
        self._values = rng.random((_LATTICE, _LATTICE), dtype=np.float32)

    def __call__(self, x: Floats, y: Floats) -> Floats:
        """Value at each point, in cells."""
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        s, t = (x - column).astype(np.float32), (y - row).astype(np.float32)
        s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
        c0, c1, r0, r1 = column % _LATTICE, (column + 1) % _LATTICE, row % _LATTICE, (row + 1) % _LATTICE
        v = self._values
        upper = v[r0, c0] * (1 - s) + v[r0, c1] * s
        return np.asarray(upper * (1 - t) + (v[r1, c0] * (1 - s) + v[r1, c1] * s) * t)

    def octaves(self, x: Floats, y: Floats, count: int) -> Floats:
        """Sum of `count` octaves, each of half the size and weight, scaled to [0, 1]."""
        total = sum(0.5**k * self(x * 2**k + 17.3 * k, y * 2**k + 5.1 * k) for k in range(count))
        return np.asarray(total / (2 - 0.5 ** (count - 1)), np.float32)


@lru_cache(maxsize=4)
def noise(seed: int) -> Noise:
    """The scene's noise."""
    return Noise(np.random.default_rng([seed, 3]))


@lru_cache(maxsize=4)
def box_faces(seed: int, dimensions_m: tuple[float, float, float]) -> tuple[Floats, ...]:
    """Pictures (rows, columns, 3) of the faces -x, +x, -y, +y, -z, +z: irregular shapes and lines of print, none alike."""
    rng = np.random.default_rng([seed, 4])
    order = rng.permutation(len(_FACE_RGB))
    faces = []
    for face in range(6):
        rows_m, columns_m = (dimensions_m[axis] for axis in range(3) if axis != face // 2)
        faces.append(_face(rng, rows_m, columns_m, np.array(_FACE_RGB[order[face]], np.float32)))
    return tuple(faces)


def _face(rng: np.random.Generator, rows_m: float, columns_m: float, base_rgb: Floats) -> Floats:
    shape = round(rows_m / _TEXEL_M), round(columns_m / _TEXEL_M)
    y_m, x_m = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) * np.float32(_TEXEL_M)
    picture = np.broadcast_to(base_rgb, (*shape, 3)).copy()
    inks = [np.array(ink, np.float32) for ink in _INK_RGB if np.abs(np.subtract(ink, base_rgb)).sum() > 150]
    for _ in range(max(6, round(_SHAPES_PER_M2 * rows_m * columns_m))):
        u, v = x_m - rng.uniform(0, columns_m), y_m - rng.uniform(0, rows_m)
        angle, size_m, slimness = rng.uniform(0, np.pi), rng.uniform(0.004, 0.012), rng.uniform(0.3, 1.0)
        u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
        picture[_shape(int(rng.integers(4)), u, v, size_m, slimness)] = inks[rng.integers(len(inks))]
    _print_lines(rng, picture, x_m, y_m, inks)
    return blurred(picture, _PRINT_SPREAD)


def _shape(kind: int, u: Floats, v: Floats, size_m: float, slimness: float) -> np.ndarray:
    """Where a bar (0), triangle (1), ring (2) or disc (3) covers the plane, bool."""
    radius = np.hypot(u, v / (0.5 + slimness / 2))
    covered = (
        (np.abs(u) < size_m) & (np.abs(v) < size_m * slimness * 0.6),
        (v > -size_m * 0.5) & (v < size_m - np.abs(u) * (1 + slimness)),
        (radius < size_m) & (radius > 0.55 * size_m),
        radius < 0.7 * size_m,
    )
    return np.asarray(covered[kind])


def _print_lines(rng: np.random.Generator, picture: Floats, x_m: Floats, y_m: Floats, inks: list[Floats]) -> None:
    """A small block of print: rows of bars of random widths."""
    rows_m, columns_m = float(y_m.max()), float(x_m.max())
    top_m, left_m = rng.uniform(0.1, 0.5) * rows_m, rng.uniform(0.05, 0.4) * columns_m
    ink = inks[rng.integers(len(inks))]
    for line in range(3):
        x = left_m
        while x < left_m + 0.45 * columns_m:
            width_m = rng.uniform(0.0015, 0.006)
            inside = (x_m > x) & (x_m < x + width_m) & (np.abs(y_m - top_m - 0.006 * line) < 0.0018)
            picture[inside] = ink
            x += width_m + 0.0015


def blurred(picture: Floats, weights: tuple[float, ...]) -> Floats:
    """Picture (H, W, 3) smoothed along rows and columns by an odd number of weights that sum to 1; edges are repeated."""
    reach = len(weights) // 2
    for axis in (0, 1):
        padded = np.pad(picture, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        parts = [w * padded.take(range(k, k + picture.shape[axis]), axis) for k, w in enumerate(weights)]
        picture = np.sum(parts, axis=0)
    return np.asarray(picture, np.float32)


def box_rgb(faces: tuple[Floats, ...], dimensions_m: tuple[float, float, float], points_m: Floats, face: np.ndarray) -> Floats:
    """Colour (n, 3) of surface points (n, 3) in the cuboid's frame; `face` (n,) numbers the faces as `box_faces` does."""
    rgb = np.empty((len(points_m), 3), np.float32)
    for number, picture in enumerate(faces):
        here = face == number
        across = [axis for axis in range(3) if axis != number // 2]
        texel = [(points_m[here, axis] + dimensions_m[axis] / 2) / _TEXEL_M for axis in across]
        rgb[here] = _bilinear(picture, texel[0], texel[1])
    return rgb


def striped_rgb(dimensions_m: tuple[float, float, float], points_m: Floats, face: np.ndarray) -> Floats:
    """As `box_rgb`, of a plain thing: a colour that its lengths decide, with stripes of uneven width along its faces."""
    rng = np.random.default_rng(np.round(1e4 * np.array(dimensions_m)).astype(np.int64))
    base = np.array(_FACE_RGB[rng.integers(len(_FACE_RGB))], np.float32) * np.float32(rng.uniform(0.6, 1.0))
    phase = (points_m @ rng.normal(0, 300, (3, 3))).astype(np.float32)
    stripes = 0.55 + 0.15 * (np.sin(phase + face[:, None]) > 0).sum(1)
    return np.asarray(base * stripes[:, None], np.float32)


def _bilinear(picture: Floats, row: Floats, column: Floats) -> Floats:
    row, column = np.clip(row, 0, picture.shape[0] - 1.001), np.clip(column, 0, picture.shape[1] - 1.001)
    r, c = row.astype(np.int64), column.astype(np.int64)
    s, t = (row - r)[:, None], (column - c)[:, None]
    upper = picture[r, c] * (1 - t) + picture[r, c + 1] * t
    return upper * (1 - s) + (picture[r + 1, c] * (1 - t) + picture[r + 1, c + 1] * t) * s


def table_rgb(kind: int, field: Noise, x_m: Floats, y_m: Floats) -> Floats:
    """Colour (..., 3) of table 0 (planks), 1 (checked cloth) or 2 (dark stone) with flat things lying on it."""
    rgb = (_planks, _cloth, _stone)[kind](field, x_m, y_m)
    for centre_m, half_m, turn_rad, colour in _FLAT_THINGS[kind]:
        u, v = x_m - centre_m[0], y_m - centre_m[1]
        u, v = np.cos(turn_rad) * u + np.sin(turn_rad) * v, np.cos(turn_rad) * v - np.sin(turn_rad) * u
        inside = (np.abs(u) < half_m[0]) & (np.abs(v) < half_m[1])
        lines = np.where((np.sin(v * 520) > 0.75) & (np.abs(u) < 0.8 * half_m[0]) & (np.abs(v) < 0.8 * half_m[1]), 0.45, 1.0)
        rgb = np.where(inside[..., None], np.array(colour, np.float32) * lines[..., None], rgb)
    return rgb.astype(np.float32)


_FLAT_THINGS = (
    (((-0.25, 0.33), (0.07, 0.10), 0.3, (232, 232, 226)), ((0.27, 0.36), (0.05, 0.05), -0.4, (70, 96, 80))),
    (((0.24, 0.34), (0.08, 0.06), -0.25, (214, 208, 160)), ((-0.28, 0.31), (0.04, 0.06), 0.5, (60, 60, 66))),
    (((-0.22, 0.38), (0.10, 0.04), 0.15, (196, 200, 205)), ((0.30, 0.30), (0.05, 0.08), -0.2, (150, 60, 60))),
)


def _mix(share: Floats, first: tuple[int, int, int], second: tuple[int, int, int]) -> Floats:
    share = share[..., None]
    return np.asarray((1 - share) * np.array(first, np.float32) + share * np.array(second, np.float32), np.float32)


def _planks(field: Noise, x_m: Floats, y_m: Floats) -> Floats:
    plank = np.floor(x_m / 0.13)
    grain = field.octaves(x_m * 34 + plank * 7.7, y_m * 4 + plank * 3.1, 3)
    rings = 0.5 + 0.5 * np.sin(28 * grain)
    fine = field(x_m * 420, y_m * 30)
    rgb = _mix(np.clip(0.55 * rings + 0.3 * fine + 0.12 * (plank % 3), 0, 1), (92, 66, 48), (150, 116, 84))
    edge = np.abs(x_m / 0.13 - plank - 0.5) > 0.488
    return np.where(edge[..., None], 0.5 * rgb, rgb).astype(np.float32)


def _cloth(field: Noise, x_m: Floats, y_m: Floats) -> Floats:
    stripes = (np.sin(x_m * 110) > 0).astype(np.float32) + (np.sin(y_m * 110) > 0)
    weave = field(x_m * 300, y_m * 300)
    return _mix(np.clip(stripes / 2 * 0.85 + 0.15 * weave, 0, 1), (226, 224, 214), (120, 146, 122))


def _stone(field: Noise, x_m: Floats, y_m: Floats) -> Floats:
    clouds = field.octaves(x_m * 26, y_m * 26, 4)
    specks = (field(x_m * 210 + 40, y_m * 210) > 0.86).astype(np.float32)
    return _mix(np.clip(0.75 * clouds + 0.4 * specks, 0, 1), (38, 42, 48), (124, 128, 136))


def floor_rgb(kind: int, field: Noise, x_m: Floats, y_m: Floats) -> Floats:
    """Colour (..., 3) of the floor beyond the table's edge."""
    tones = (((70, 72, 78), (104, 104, 106)), ((96, 70, 52), (124, 92, 66)), ((126, 122, 112), (160, 154, 142)))[kind]
    tile = (np.abs(x_m / 0.4 - np.round(x_m / 0.4)) < 0.012) | (np.abs(y_m / 0.4 - np.round(y_m / 0.4)) < 0.012)
    rgb = _mix(field.octaves(x_m * 12, y_m * 12, 3), *tones)
    return np.where(tile[..., None], 0.75 * rgb, rgb).astype(np.float32)


def sleeve_rgb(kind: int, along_m: Floats, around: Floats) -> Floats:
    """Colour (n, 3) of the sleeve: knitted, with a darker cuff; `around` in radians."""
    base = ((58, 74, 108), (58, 74, 108), (58, 74, 108))[kind]
    knit = 0.5 + 0.25 * np.sin(around * 70) + 0.25 * np.sin(along_m * 2600)
    rgb = _mix(knit.astype(np.float32), base, (base[0] + 26, base[1] + 26, base[2] + 26))
    return np.where((along_m < 0.052)[:, None], 0.72 * rgb, rgb).astype(np.float32)
