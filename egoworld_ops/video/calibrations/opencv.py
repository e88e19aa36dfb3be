"""A calibration by OpenCV, as cv::FileStorage writes it (YAML or JSON), or as ROS's camera_calibration does.

The names are those of OpenCV's samples (samples/cpp/tutorial_code/calib3d/camera_calibration; stereo_calib.cpp writes M1, D1, M2, D2) and of ROS
(camera_calibration_parsers). Pixel (0, 0) is the centre of the top-left pixel, as here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from egoworld_ops.video.calibrations.base import Calibration, NotUnderstood, numbers, whole, yaml_mapping

_MATRIX = ("camera_matrix", "Camera_Matrix", "cameraMatrix", "camera_matrix_left", "K", "M1", "intrinsic_matrix", "mtx")
_COEFFICIENTS = ("distortion_coefficients", "Distortion_Coefficients", "distCoeffs", "dist_coeffs", "D", "D1", "dist")
_STEREO = {"1": ("M1", "D1"), "2": ("M2", "D2")}
_WIDTH, _HEIGHT = ("image_width", "image_Width", "width"), ("image_height", "image_Height", "height")
_ROS = {
    "plumb_bob": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "equidistant": "kannala_brandt",
    "fisheye": "kannala_brandt",
}
_FULL = 8
"""Coefficients of the rational model; OpenCV's 12 and 14 add thin prisms and a tilted sensor."""
_AMBIGUOUS = "4 coefficients without a word on the model are read as k1 k2 p1 p2; for k1 to k4 of cv::fisheye say --model kannala_brandt"


def cameras(text: str, picture: tuple[int, int]) -> Sequence[Calibration] | None:
    """OpenCV calibration (FileStorage YAML or JSON; camera_matrix, distortion_coefficients, image_width, image_height), or ROS's camera_info YAML."""
    said = yaml_mapping(text)
    if said is None:
        return None
    if "M1" in said and "M2" in said:
        return [_camera(said, name, said.get(matrix), said.get(d)) for name, (matrix, d) in _STEREO.items()]
    matrix = _first(said, _MATRIX)
    if matrix is None:
        return None
    return [_camera(said, str(said.get("camera_name", "")), matrix, _first(said, _COEFFICIENTS))]


def _first(said: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((said[name] for name in names if name in said), None)


def _camera(said: Mapping[str, Any], name: str, matrix: Any, coefficients: Any) -> Calibration:
    fx, skew, cx, zero, fy, cy, *last = numbers(_flat(matrix), "camera matrix", 9)
    if (skew, zero, *last) != (0, 0, 0, 0, 1) or min(fx, fy) <= 0:
        raise NotUnderstood(f"camera matrix: want [fx 0 cx; 0 fy cy; 0 0 1], got {_flat(matrix)!r:.90}")
    distortion = numbers(_flat(coefficients), "distortion coefficients") if coefficients is not None else []
    width, height = _first(said, _WIDTH), _first(said, _HEIGHT)
    size = (None if width is None else whole(width, "width"), None if height is None else whole(height, "height"))
    model, distortion, note = _model(said, distortion)
    return Calibration(name, model, fx, fy, cx, cy, *size, tuple(distortion), note)


def _flat(matrix: Any) -> list[Any]:
    """The numbers of a matrix, row by row: OpenCV's and ROS's `data`, or nested lists."""
    values = matrix.get("data") if isinstance(matrix, Mapping) else matrix
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise NotUnderstood(f"want a matrix, got {matrix!r:.60}")
    return [value for row in values for value in (row if isinstance(row, Sequence) and not isinstance(row, str) else [row])]


def _model(said: Mapping[str, Any], distortion: list[float]) -> tuple[str, list[float], str]:
    """The sidecar's model, its coefficients, and a note."""
    word = said.get("distortion_model")
    if word is not None:
        model = _ROS.get(str(word), str(word))
        return ("pinhole", [], "") if not any(distortion) and model == "plumb_bob" else (model, distortion, "")
    if said.get("fisheye_model"):
        return "kannala_brandt", distortion, ""
    if not any(distortion):
        return "pinhole", [], ""
    if len(distortion) > _FULL and not any(distortion[_FULL:]):
        distortion = distortion[:_FULL]
    if len(distortion) == _FULL:
        return "rational_polynomial", distortion, ""
    if len(distortion) > _FULL:
        return f"OpenCV's model of {len(distortion)} coefficients", distortion, ""
    return "plumb_bob", distortion, _AMBIGUOUS if len(distortion) == len(["k1", "k2", "p1", "p2"]) else ""
