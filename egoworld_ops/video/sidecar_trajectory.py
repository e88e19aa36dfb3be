"""Section `trajectory` of the sidecar: a file of the video's folder with poses of the camera. Read by `trajectory.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from egoworld_ops.video.beside import file_at, file_sha256, plain_file, read_regular

MAX_BYTES = 512 * 1024 * 1024
MAX_ON_DEVICE_M = 3.0
_ENTRIES, _RIGID = 16, 1e-3
"""Of a 4 x 4 pose: its entries, and how far its rotation may be from one."""


class SidecarTrajectory(BaseModel):
    """A file of the video's folder with poses of the camera; its formats are those of `trajectory.py`.

    `starts_at_s`: the file's time, in seconds, of the video's time 0. `T_device_camera`: the camera in the device whose poses the file has, row by
    row, in metres; for a camera that is not the one posed, such as Aria's RGB camera. `metres_per_unit`: length of a unit of the file's positions, or
    `unknown`, as of a SLAM with one camera. Where it is not given, `tum`, `aria` and `arkit` are in metres, and `colmap` is of unknown scale, as its
    reconstructions are. `scale_error_share`: standard error of that length as a share of it; where it is not stated, it counts as 0.03.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    format: Literal["tum", "colmap", "aria", "arkit"]
    starts_at_s: Annotated[float, Field(ge=-1e12, le=1e12)] = 0.0
    T_device_camera: tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...] | None = None
    metres_per_unit: Annotated[float, Field(ge=1e-6, le=1e4)] | Literal["unknown"] | None = None
    scale_error_share: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def unit_m(self) -> float | None:
        """Metres in a unit of the file's positions; None where nobody knows."""
        if self.metres_per_unit is None:
            return None if self.format == "colmap" else 1.0
        return None if isinstance(self.metres_per_unit, str) else self.metres_per_unit

    @field_validator("file")
    @classmethod
    def _beside_the_video(cls, name: str) -> str:
        return plain_file(name, "file")

    @field_validator("T_device_camera")
    @classmethod
    def _rigid(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if values is not None:
            T = np.array(values).reshape(4, 4) if len(values) == _ENTRIES else np.zeros((4, 4))
            if (
                np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() > _RIGID
                or np.linalg.det(T[:3, :3]) < 0
                or np.abs(T[3] - [0, 0, 0, 1]).max() > _RIGID
            ):
                raise ValueError("T_device_camera: want 16 numbers of a 4 x 4 rotation and translation, row by row")
            if (far_m := float(np.linalg.norm(T[:3, 3]))) > MAX_ON_DEVICE_M:
                said = {"far": f"{far_m:.4g}", "cure": "Give its translation in metres"}
                raise PydanticCustomError("far", "{far} m from the device that it is on, no camera is", said)
        return values

    def path(self, folder: Path) -> Path:
        """The file, in the video's folder. Raises BadSidecar where it is not a regular file there."""
        return file_at(folder, self.file, "trajectory")

    def content(self, folder: Path) -> bytes:
        """What the file holds.

        Raises:
            BadSidecar: it is not a regular file there, or too large.
            StorageUnavailable: it cannot be read now.
        """
        return read_regular(self.path(folder), MAX_BYTES)

    def digest(self, folder: Path) -> bytes:
        """SHA-256 of the file. Raises as `content`."""
        return file_sha256(self.path(folder), MAX_BYTES)
