"""Unit quaternions in SQL, as `vision.geometry` has them in numpy. A quaternion is named by its prefix: columns `{q}w`, `{q}x`, `{q}y`, `{q}z`."""

from __future__ import annotations

from collections.abc import Sequence


def product(a: str, b: str, sign: int = 1) -> list[str]:
    """Hamilton's product of two quaternions, w to z; `sign` -1 takes the inverse of the second."""
    v = {c: f"({'' if sign > 0 else '-'}{b}{c})" for c in "xyz"} | {"w": f"{b}w"}
    return [
        f"{a}w * {v['w']} - {a}x * {v['x']} - {a}y * {v['y']} - {a}z * {v['z']}",
        f"{a}w * {v['x']} + {a}x * {v['w']} + {a}y * {v['z']} - {a}z * {v['y']}",
        f"{a}w * {v['y']} - {a}x * {v['z']} + {a}y * {v['w']} + {a}z * {v['x']}",
        f"{a}w * {v['z']} + {a}x * {v['y']} - {a}y * {v['x']} + {a}z * {v['w']}",
    ]


def matrix(q: str) -> list[list[str]]:
    """The rotation matrix, by rows."""
    w, x, y, z = (f"{q}{c}" for c in "wxyz")
    return [
        [f"(1 - 2 * ({y} * {y} + {z} * {z}))", f"(2 * ({x} * {y} - {z} * {w}))", f"(2 * ({x} * {z} + {y} * {w}))"],
        [f"(2 * ({x} * {y} + {z} * {w}))", f"(1 - 2 * ({x} * {x} + {z} * {z}))", f"(2 * ({y} * {z} - {x} * {w}))"],
        [f"(2 * ({x} * {z} - {y} * {w}))", f"(2 * ({y} * {z} + {x} * {w}))", f"(1 - 2 * ({x} * {x} + {y} * {y}))"],
    ]


def rotated(q: str, p: Sequence[str]) -> list[str]:
    """A vector, given by its coordinates, turned by a quaternion."""
    return ["(" + " + ".join(f"{r} * {c}" for r, c in zip(row, p, strict=True)) + ")" for row in matrix(q)]
