"""How far an assumed focal length may be from the true one: the cameras that people wear and hold, by their published fields of view."""

from __future__ import annotations

import math
from collections.abc import Mapping

_FOCAL_PER_WIDTH: Mapping[str, float] = {
    "phone, 26 mm (35 mm equivalent by the diagonal of a 4:3 sensor), stabilised video": 0.82,
    "phone, 13 mm, stabilised video": 0.41,
    "Project Aria, RGB, Fisheye624 calibrations of HOT3D: 610 px of 1408": 0.433,
    "Quest 3, SLAM cameras, Fisheye624 calibrations of HOT3D: 504 px of 1280": 0.394,
    "GoPro HERO3, wide: 114 to 121 degrees across, equidistant (measured by R. Cunniff, 2012)": 0.49,
    "HoloLens, video of 67 degrees (Microsoft, Locatable camera overview)": 0.755,
    "HoloLens, stabilised video of 48 degrees (same page)": 1.123,
    "RealSense D435, RGB of 69 degrees (Intel, D400 datasheet)": 0.727,
}
"""Focal length near the picture's middle over the picture's width."""


def assumed_error_share(focal_per_width: float) -> float:
    """Standard error of an assumed focal length as a share of it: the root mean square over these cameras, any of which it may have been.

    Args:
        focal_per_width: the assumed focal length over the picture's width, or over its height where it is upright.
    """
    return math.sqrt(sum((true / focal_per_width - 1) ** 2 for true in _FOCAL_PER_WIDTH.values()) / len(_FOCAL_PER_WIDTH))
