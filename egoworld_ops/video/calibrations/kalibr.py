"""Kalibr's camchain yaml: cam0, cam1, ... with camera_model, intrinsics, distortion_model, distortion_coeffs and resolution.

The format is that of Kalibr's wiki (Yaml formats; Supported models). Its corners come from OpenCV: pixel (0, 0) is the centre of the top-left one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from egoworld_ops.video.calibrations.base import Calibration, NotUnderstood, numbers, whole, yaml_mapping

MODELS: Mapping[tuple[str, str], str] = {
    ("pinhole", "radtan"): "plumb_bob",
    ("pinhole", "equi"): "kannala_brandt",
    ("pinhole", "equidistant"): "kannala_brandt",
    ("pinhole", "none"): "pinhole",
}


def cameras(text: str, picture: tuple[int, int]) -> Sequence[Calibration] | None:
    """Kalibr camchain YAML (pinhole with radtan, equi or none); cameras are named cam0, cam1 and so on."""
    said = yaml_mapping(text) or {}
    found = {str(name): one for name, one in said.items() if isinstance(one, Mapping) and {"camera_model", "intrinsics"} <= set(one)}
    if {"camera_model", "intrinsics"} <= set(said):
        found = {"": said}
    return [_camera(name, one) for name, one in sorted(found.items())] or None


def _camera(name: str, said: Mapping[str, Any]) -> Calibration:
    kind = str(said["camera_model"]), str(said.get("distortion_model", "none"))
    width, height = (whole(side, f"{name}: resolution") for side in numbers(said.get("resolution"), f"{name}: resolution", 2))
    if kind not in MODELS:
        return Calibration(name, f"{kind[0]}-{kind[1]}", 0, 0, 0, 0, width, height)
    fx, fy, cx, cy = numbers(said["intrinsics"], f"{name}: intrinsics", 4)
    if min(fx, fy) <= 0:
        raise NotUnderstood(f"{name}: intrinsics: focal lengths must be positive, got {fx:g} and {fy:g}")
    model = MODELS[kind]
    distortion = [] if model == "pinhole" else numbers(said.get("distortion_coeffs"), f"{name}: distortion_coeffs", 4)
    return Calibration(name, model, fx, fy, cx, cy, width, height, tuple(distortion))
