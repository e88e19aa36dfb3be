"""Points triangulated from corners that are followed through the clip, with the poses of table `camera`, whatever backend made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.corners import views
from egoworld_ops.operators.rows import QUATERNION, common
from egoworld_ops.vision.geometry import make_transform, matrix_from_quaternion
from egoworld_ops.vision.tracks import WIDTH_PX, Sight
from egoworld_ops.vision.triangulation import triangulate_all

NAME = "triangulated"
_AGREE_PX = 2.0 / WIDTH_PX
"""As share of the picture's longer side: a point whose error is larger anywhere moves by itself, or was lost."""
_USED = 24
"""A point is solved from at most about so many of the frames that saw it, evenly over the clip's frames."""


class TriangulatedSettings(BackendSettings):
    """Settings of the backend `triangulated`."""

    min_angle_deg: Annotated[float, Field(ge=0)] = 1.0
    """Least angle between two rays to a point: with less its depth is uncertain."""
    min_seen: Annotated[int, Field(ge=2)] = 6
    """Frames that must see a point."""


class Backend(Operator):
    """The `triangulated` backend of points."""

    version = "1"
    packages = ("opencv-python-headless", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = TriangulatedSettings
    handles_lenses: ClassVar[bool] = True
    seconds_per_frame: ClassVar[float] = 0.03

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Only if the camera has poses."""
        return tables["camera"]["qw"].null_count < tables["camera"].num_rows

    def run(self, item: ClipInput) -> pa.Table:
        """Table `points`; empty where the camera has no poses."""
        if not self.reads_frames(item.tables):
            return schema.empty("points")
        assert isinstance(self.settings, TriangulatedSettings)
        cv2.setNumThreads(self.threads)
        poses, metres_per_unit = _poses(item.tables["camera"])
        metric_camera = item.tables["camera"]["metric"][0].as_py()
        sights, first, colours = _watch(item)
        step = max(1, len(poses) // _USED)
        used = dict(list(poses.items())[::step])
        found = triangulate_all(item.camera, sights, used, least_seen=2)
        numbers, counts = np.unique(np.concatenate([s.ids for s in sights]), return_counts=True)
        length = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        agree_px, rows = _AGREE_PX * max(item.camera.width, item.camera.height), []
        for number, point in found.items():
            if point.error_px <= agree_px and point.angle_deg >= self.settings.min_angle_deg and length[number] >= self.settings.min_seen:
                metric = point.position * metres_per_unit if metres_per_unit else (None, None, None)
                row: dict[str, Any] = common(item, first[number].frame_index, first[number].timestamp_s, NAME)
                row |= dict(zip(("x_m", "y_m", "z_m"), metric, strict=True))
                row |= {
                    "point_id": number,
                    "position_units": point.position.tolist(),
                    "rgb": colours[number].tolist(),
                    "metric": metric_camera,
                }
                row |= {"track_length": length[number], "reprojection_px": point.error_px, "angle_deg": point.angle_deg}
                rows.append(row)
        return schema.from_rows("points", rows) if rows else schema.empty("points")


def _poses(camera: pa.Table) -> tuple[dict[int, np.ndarray], float | None]:
    """`T_world_camera` (4, 4) in units of each frame that has one, by frame; and the metres in a unit, None where unknown."""
    rows = [row for row in camera.to_pylist() if row["qw"] is not None]
    poses = {
        row["frame_index"]: make_transform(matrix_from_quaternion(np.array([row[q] for q in QUATERNION])), np.array(row["position_units"]))
        for row in rows
    }
    return poses, rows[0]["metres_per_unit"]


def _watch(item: ClipInput) -> tuple[list[Sight], dict[int, Sight], dict[int, np.ndarray]]:
    """Corners in each frame; the first sight of each corner, and its colour there (3,) uint8, by its number."""
    sights: list[Sight] = []
    first: dict[int, Sight] = {}
    colours: dict[int, np.ndarray] = {}
    for view in views(item):
        rgb, sight = view.frame.rgb, view.sight
        sights.append(sight)
        columns, rows = np.clip(np.rint(view.px), 0, np.array(rgb.shape[1::-1]) - 1).astype(int).T
        for number, colour in zip(sight.ids.tolist(), rgb[rows, columns], strict=True):
            if number not in first:
                first[number], colours[number] = sight, colour
    return sights, first, colours
