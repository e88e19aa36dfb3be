"""What a calibration file says of one camera, in the models and the pixel convention of the sidecar; and YAML that is only ever data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from egoworld_ops.types import LENS_MODELS

PARAMETERS: Mapping[str, tuple[int, ...]] = {str(model): counts for model, counts in LENS_MODELS.items()}
"""How many distortion coefficients each model of the sidecar takes."""


class NotUnderstood(ValueError):
    """A file of this format that makes no sense; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The intrinsics of one camera; pixels, the centre of the top-left pixel is (0, 0).

    Args:
        name: of the camera in its file; empty where the file has none.
        model: of the sidecar; one that it does not have stays as the file names it, and the camera cannot be used.
        width, height: of the picture that was calibrated; None where the file does not say.
        distortion: coefficients, in the model's order.
        note: what a person should know about how the file was read.
    """

    name: str
    model: str
    fx: float
    fy: float
    cx: float
    cy: float
    width: int | None
    height: int | None
    distortion: tuple[float, ...] = ()
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether the sidecar has this model with so many coefficients."""
        return len(self.distortion) in PARAMETERS.get(self.model, ())

    def section(self) -> dict[str, Any]:
        """The sidecar's section `camera`."""
        said: dict[str, Any] = {name: getattr(self, name) for name in ("fx", "fy", "cx", "cy", "width", "height")}
        return said | ({"model": self.model, "distortion": list(self.distortion)} if self.model != "pinhole" else {})

    def __str__(self) -> str:
        lens = f"{self.model} {' '.join(f'{k:.6g}' for k in self.distortion)}".rstrip()
        return f"{lens}, fx {self.fx:.6g} fy {self.fy:.6g} cx {self.cx:.6g} cy {self.cy:.6g}, for {self.width}x{self.height}"


def numbers(values: Any, what: str, count: int | None = None) -> list[float]:
    """Finite floats out of a file.

    Raises:
        NotUnderstood: they are none, or not as many as wanted.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise NotUnderstood(f"{what}: want a list of numbers, got {values!r:.60}")
    if count is not None and len(values) != count:
        raise NotUnderstood(f"{what}: want {count} numbers, got {len(values)}")
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError):
        raise NotUnderstood(f"{what}: want numbers, got {list(values)!r:.60}") from None
    if not all(map(math.isfinite, found)):
        raise NotUnderstood(f"{what}: not all are finite: {list(values)!r:.60}")
    return found


def whole(value: Any, what: str) -> int:
    """A positive whole number out of a file, such as a width.

    Raises:
        NotUnderstood: it is none.
    """
    [number] = numbers([value], what)
    if number != int(number) or number <= 0:
        raise NotUnderstood(f"{what}: want a positive whole number, got {value!r:.60}")
    return int(number)


class _DataOnly(yaml.SafeLoader):
    """Plain values, and OpenCV's matrices as mappings; every other tag is an error, so that nothing of a file is ever run."""


for _tag in ("opencv-matrix", "opencv-nd-matrix"):
    _DataOnly.add_constructor(f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.construct_yaml_map)


def yaml_mapping(text: str) -> Mapping[str, Any] | None:
    """The mapping that a YAML file is, the header of OpenCV below 5 (`%YAML:1.0`) included; None where it is none."""
    first, _, rest = text.partition("\n")
    try:
        value = yaml.load(rest if first.startswith("%YAML:") else text, _DataOnly)  # noqa: S506 -- a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return value if isinstance(value, Mapping) else None
