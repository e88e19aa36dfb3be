"""Project Aria's device calibration (factory JSON, or MPS's online_calibration.jsonl), and the camera_models.json of HOT3D.

Names, models and sizes are those of projectaria_tools (core/calibration: loader/SensorCalibrationJson.cpp, loader/AriaCalibRescaleAndCrop.cpp,
camera_projections/). Pixel (0, 0) is the centre of the top-left one: its scaling maps c to s (c + 0.5) - 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from egoworld_ops.video.calibrations.base import Calibration, NotUnderstood, numbers, whole

MODELS: Mapping[str, tuple[str, int]] = {
    "FisheyeRadTanThinPrism": ("fisheye624", 12),
    "CameraModelType.FISHEYE624": ("fisheye624", 12),
    "Fisheye62": ("fisheye62", 8),
    "CameraModelType.FISHEYE62": ("fisheye62", 8),
    "KannalaBrandtK3": ("kannala_brandt", 4),
    "CameraModelType.KANNALA_BRANDT_K3": ("kannala_brandt", 4),
    "Linear": ("pinhole", 0),
    "CameraModelType.LINEAR": ("pinhole", 0),
}
"""By Aria's name: the sidecar's model and its number of coefficients, which follow (f or fx, fy), cx, cy."""
_GEN1 = {"camera-rgb": (2880, 2880), "camera-slam-left": (640, 480), "camera-slam-right": (640, 480)}
"""Sizes that the first generation's files are calibrated for, which they do not name."""
_HALF_RGB, _HALF_RGB_CUT_PX = (1408, 1408), 32
"""The RGB stream of that size is the calibrated one, 32 pixels cut off at each edge, at half the resolution."""


def cameras(text: str, picture: tuple[int, int]) -> Sequence[Calibration] | None:
    """Project Aria calibration JSON (device, or online_calibration.jsonl: its first line), or HOT3D's camera_models.json; by their labels."""
    said = _first_json(text)
    if isinstance(said, Mapping) and isinstance(said.get("CameraCalibrations"), list):
        gen1 = "gen2" not in str(_mapping(said.get("DeviceClassInfo", {})).get("DeviceClass", "")).lower().replace(" ", "")
        sizes = said.get("ImageSizes") or [None] * len(said["CameraCalibrations"])
        return [_of_device(_mapping(one), size, gen1, picture) for one, size in zip(said["CameraCalibrations"], sizes, strict=True)]
    if isinstance(said, list) and said and all(isinstance(one, Mapping) and "projectionModelType" in one for one in said):
        return [_of_hot3d(one) for one in said]
    return None


def _first_json(text: str) -> Any:
    for candidate in (text, text.partition("\n")[0]):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise NotUnderstood(f"want an object, got {value!r:.60}")
    return value


def _of_hot3d(said: Mapping[str, Any]) -> Calibration:
    name = str(said.get("label", ""))
    width, height = whole(said.get("imageWidth"), f"{name}: imageWidth"), whole(said.get("imageHeight"), f"{name}: imageHeight")
    return _camera(name, str(said["projectionModelType"]), said.get("projectionParams"), width, height)


def _of_device(said: Mapping[str, Any], size: Any, gen1: bool, picture: tuple[int, int]) -> Calibration:
    name, projection, config = str(said.get("Label", "")), _mapping(said.get("Projection", {})), _mapping(said.get("ConfigData", {}))
    if size is None and {"ImageWidth", "ImageHeight"} <= set(config):
        size = [config["ImageWidth"], config["ImageHeight"]]
    width, height = (
        (whole(side, f"{name}: size") for side in size) if size is not None else (_GEN1.get(name, (None, None)) if gen1 else (None, None))
    )
    found = _camera(name, str(projection.get("Name", "")), projection.get("Params"), width, height)
    if name == "camera-rgb" and (width, height) == _GEN1[name] and picture == _HALF_RGB and found.known:
        return _half(found)
    return found


def _half(full: Calibration) -> Calibration:
    """The RGB camera as it records 1408 x 1408."""
    cx, cy = ((c - _HALF_RGB_CUT_PX + 0.5) / 2 - 0.5 for c in (full.cx, full.cy))
    note = "of 2880x2880, cropped and halved as the device does for 1408x1408"
    return Calibration(full.name, full.model, full.fx / 2, full.fy / 2, cx, cy, *_HALF_RGB, full.distortion, note)


def _camera(name: str, model: str, params: Any, width: int | None, height: int | None) -> Calibration:
    if model not in MODELS:
        return Calibration(name, model, 0, 0, 0, 0, width, height)
    lens, n_coefficients = MODELS[model]
    values = numbers(params, f"{name}: parameters")
    if len(values) == n_coefficients + 3:
        values = [values[0], *values]
    if len(values) != n_coefficients + 4 or min(values[:2]) <= 0:
        raise NotUnderstood(
            f"{name}: {model} has {n_coefficients + 3} or {n_coefficients + 4} parameters, focal lengths first, got {values!r:.60}"
        )
    fx, fy, cx, cy, *distortion = values
    return Calibration(name, lens, fx, fy, cx, cy, width, height, tuple(distortion))
