"""COLMAP's cameras.txt: a line a camera, `CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]`.

Models and the order of their parameters are those of COLMAP's src/colmap/sensor/models.h. COLMAP's (0, 0) is the corner of the top-left pixel and
its centre (0.5, 0.5), as its documentation says (Output format, images.txt): half a pixel is taken off the principal point.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from egoworld_ops.video.calibrations.base import Calibration, NotUnderstood, numbers, whole

_CORNER_TO_CENTRE_PX = 0.5
_LINE = re.compile(r"\s*\d+\s+[A-Z][A-Z_0-9]+\s+\d+\s+\d+(\s+\S+)+\s*")
_Lens = tuple[str, list[float], list[float]]


def _one_focal(model: str, *zeros: float) -> Callable[[list[float]], _Lens]:
    """Of models with parameters f, cx, cy and some coefficients; the sidecar's further ones are zero."""
    return lambda p: (model, [p[0], p[0], p[1], p[2]], [*p[3:], *zeros])


def _two_focals(model: str, *zeros: float) -> Callable[[list[float]], _Lens]:
    """Of models with parameters fx, fy, cx, cy and the first coefficients in the sidecar's order; its further ones are zero."""
    return lambda p: (model, p[:4], [*p[4:], *zeros])


MODELS: Mapping[str, tuple[int, Callable[[list[float]], _Lens]]] = {
    "SIMPLE_PINHOLE": (3, _one_focal("pinhole")),
    "PINHOLE": (4, _two_focals("pinhole")),
    "SIMPLE_RADIAL": (4, _one_focal("plumb_bob", 0.0, 0.0, 0.0)),
    "RADIAL": (5, _one_focal("plumb_bob", 0.0, 0.0)),
    "OPENCV": (8, _two_focals("plumb_bob")),
    "OPENCV_FISHEYE": (8, _two_focals("kannala_brandt")),
    # k1 k2 p1 p2 k3 k4 k5 k6, as OpenCV has them
    "FULL_OPENCV": (12, _two_focals("rational_polynomial")),
    "SIMPLE_FISHEYE": (3, _one_focal("kannala_brandt", *[0.0] * 4)),
    "FISHEYE": (4, _two_focals("kannala_brandt", *[0.0] * 4)),
    "SIMPLE_RADIAL_FISHEYE": (4, _one_focal("kannala_brandt", 0.0, 0.0, 0.0)),
    "RADIAL_FISHEYE": (5, _one_focal("kannala_brandt", 0.0, 0.0)),
    "RAD_TAN_THIN_PRISM_FISHEYE": (16, _two_focals("fisheye624")),
}
"""By COLMAP's name: how many parameters there are, and the sidecar's model, (fx, fy, cx, cy) and coefficients out of them."""


def cameras(text: str, picture: tuple[int, int]) -> Sequence[Calibration] | None:
    """COLMAP cameras.txt (models SIMPLE_PINHOLE to FULL_OPENCV, and the fisheye ones); cameras are named by their ids."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines or not _LINE.fullmatch(lines[0]):
        return None
    return [_camera(line) for line in lines]


def _camera(line: str) -> Calibration:
    if not _LINE.fullmatch(line):
        raise NotUnderstood(f"want CAMERA_ID MODEL WIDTH HEIGHT PARAMS[] in each line, got {line!r:.60}")
    name, model, width, height, *rest = line.split()
    values = numbers(rest, f"camera {name}")
    size = whole(width, "width"), whole(height, "height")
    if model not in MODELS:
        return Calibration(name, model, 0, 0, 0, 0, *size)
    count, lens_of = MODELS[model]
    if len(values) != count:
        raise NotUnderstood(f"camera {name}: {model} has {count} parameters, got {len(values)}")
    lens, (fx, fy, cx, cy), distortion = lens_of(values)
    return Calibration(name, lens, fx, fy, cx - _CORNER_TO_CENTRE_PX, cy - _CORNER_TO_CENTRE_PX, *size, tuple(distortion))
