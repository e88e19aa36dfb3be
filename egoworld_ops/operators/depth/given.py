"""Depth from pictures beside the video, which the sidecar names (`depth`): those of a depth camera, or of another program.

A frame gets the picture of its own number, or the nearest in time; it is resampled to the map's pixels by the nearest one, through the lens. Where
the sidecar names none, the table is empty and no frame is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.errors import BadSidecar
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.depth._rows import Rows
from egoworld_ops.operators.depth_maps import map_camera
from egoworld_ops.types import Camera
from egoworld_ops.video.depth_files import DepthFolder, depth_folder
from egoworld_ops.video.index_file import IndexFile
from egoworld_ops.video.packet_index import IndexDiffers
from egoworld_ops.vision.lenses import rectified_map, unproject

NAME = "given"
_FARTHEST_M, _NEAREST_M = 10.0, 0.05
"""Of what is nearest, and farthest, in a clip filmed by somebody who handles things; beyond them the unit is another."""
_SHARE = 5.0
"""Per cent of a map's pixels that count as its nearest and farthest."""


class GivenSettings(BackendSettings):
    """Settings of the backend `given`."""

    side_px: Annotated[int, Field(ge=16, le=8192)] = 640
    """Longer side of the maps; never more than the pictures have."""
    step_m: Annotated[float, Field(ge=1e-5, le=0.1)] = 0.0005
    """What depths are rounded to; 65535 steps are the farthest: 32.8 m. Whole millimetres are kept exactly."""
    max_gap_s: Annotated[float, Field(gt=0)] = 0.02
    """Longest time between a frame and the picture it is given."""


class Backend(Operator):
    """The `given` backend of depth."""

    version = "5"
    packages = ("opencv-python-headless", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = GivenSettings
    handles_lenses: ClassVar[bool] = True
    seconds_per_frame: ClassVar[float] = 0.03

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """No picture of the video is looked at; where there is depth, `run` asks for the frames' times."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """Table `depth`: one row a frame; empty where the sidecar names no depth.

        Raises:
            BadSidecar: the pictures are not there, damaged, of another shape than the video's, in another unit than said, or of frames that the
                video does not have.
            StorageUnavailable: they cannot be read now.
        """
        if item.sidecar.depth is None:
            return schema.empty("depth")
        assert isinstance(self.settings, GivenSettings)
        folder = depth_folder(item.clip.video_path.parent, item.sidecar.depth)
        _check_numbers(item, folder)
        pictures = _Pictures(item.camera, folder, self.settings.side_px)
        rows = Rows(item, NAME, "given", pictures.camera, self.settings.step_m)
        for frame_index, timestamp_s in item.times_s().items():
            found = folder.of(frame_index, timestamp_s, self.settings.max_gap_s)
            if found is None:
                rows.add(frame_index, timestamp_s, _missing(folder, self.settings.max_gap_s))
            else:
                rows.add(frame_index, timestamp_s, pictures.map(found[0]), None if folder.by_frame else found[1])
        pictures.check_unit()
        return rows.table()


class _Pictures:
    """The pictures of a folder as maps, and what of them is nearest and farthest."""

    def __init__(self, camera: Camera, folder: DepthFolder, side_px: int) -> None:
        first = folder.read(next(iter(folder.files.values())), camera.width, camera.height)
        self._folder, self._size, self._shape = folder, (camera.width, camera.height), first.shape
        self.camera = map_camera(camera, min(side_px, max(first.shape)))
        x, y = rectified_map(camera, self.camera, np.eye(3))
        self._x = ((x + 0.5) * np.float32(first.shape[1] / camera.width) - 0.5).astype(np.float32)
        self._y = ((y + 0.5) * np.float32(first.shape[0] / camera.height) - 0.5).astype(np.float32)
        self._along = _along(camera, first.shape) if folder.given.measures == "range" else None
        self._nearest_m, self._farthest_m = np.inf, 0.0

    def map(self, path: Path) -> np.ndarray:
        """(h, w) float32 depth z in metres of one picture, NaN where unknown.

        Raises:
            BadSidecar: as `DepthFolder.read`, and where it has another size than the others.
        """
        read = self._folder.read(path, *self._size)
        if read.shape != self._shape:
            sizes = " and not ".join(f"{columns}x{rows}" for rows, columns in (read.shape, self._shape))
            raise BadSidecar(path, f"is {sizes} as the others are", "Export all of it at one size")
        if (known := read[np.isfinite(read)]).size:
            near_m, far_m = np.percentile(known, (_SHARE, 100 - _SHARE))
            self._nearest_m, self._farthest_m = min(self._nearest_m, float(near_m)), max(self._farthest_m, float(far_m))
        z_m = read if self._along is None else read * self._along
        return cv2.remap(z_m, self._x, self._y, cv2.INTER_NEAREST, borderValue=float("nan"))

    def check_unit(self) -> None:
        """Raise BadSidecar where all that was seen is too far away, or too near, for the unit to be right."""
        given = self._folder.given
        cure = (
            "Give metres_per_unit of the depth in the sidecar: 0.001 if the numbers are millimetres, 1 if they are metres; or its encoding"
        )
        said = f"{given.encoding}, {given.metres_per_unit:g} m a count" if given.encoding == "linear" else given.encoding
        if np.isfinite(self._nearest_m) and self._nearest_m > _FARTHEST_M:
            raise BadSidecar(self._folder.path, f"as {said}, the nearest things in the clip are {self._nearest_m:.3g} m away", cure)
        if 0 < self._farthest_m < _NEAREST_M:
            raise BadSidecar(self._folder.path, f"as {said}, the farthest things in the clip are {self._farthest_m:.2g} m away", cure)


def _along(camera: Camera, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) float32 depth z over range at each pixel of pictures of that shape; NaN where the lens shows nothing."""
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64) + 0.5
    px = np.stack([u * camera.width / shape[1], v * camera.height / shape[0]], -1) - 0.5
    return np.asarray(unproject(camera, px)[..., 2].astype(np.float32))


def _missing(folder: DepthFolder, max_gap_s: float) -> Reason:
    why = "has the frame's number" if folder.by_frame else f"was taken within {max_gap_s:g} s of the frame"
    return Reason("no_depth", f"of the {len(folder.files)} pictures of depth none {why}")


def _check_numbers(item: ClipInput, folder: DepthFolder) -> None:
    """Raise BadSidecar where pictures are numbered beyond the video's frames, as far as its packet index tells how many it has."""
    if not folder.by_frame or item.clip.packet_index is None:
        return
    with suppress(IndexDiffers), IndexFile(item.clip.packet_index) as index:
        n_frames = int(index.rows()["frame"].max(initial=-1)) + 1
        if (last := max(folder.files)) >= n_frames:
            reason = f"has a picture of frame {last:.0f}, and the video has {n_frames} frames, from 0"
            raise BadSidecar(
                folder.path, reason, "Number the pictures of depth as the video's frames, or give fps and starts_at_s in the sidecar"
            )
