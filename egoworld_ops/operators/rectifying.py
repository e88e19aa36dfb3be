"""Rectified views: a stage that needs a pinhole camera sees the clip through virtual ones, turned to its objects, in the place of the video's own.

No picture plane holds all the rays of a wide lens, and around each object there is one. Objects that lie near each other share a view; it is fixed
for the whole clip, so that points can be followed and planes move by homographies in it. Frames, masks and poses go in as the view sees them; rows
come back in the frame and the pixels of the video's camera. An object is given no pose while it is more than 70 degrees from its view's middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.operators import depth_maps
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.rows import QUATERNION, intrinsics, pose_columns, pose_of
from egoworld_ops.types import Camera, Frame
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import matrix_from_quaternion, project, quaternion_from_matrix, towards
from egoworld_ops.vision.lenses import pixels_per_radian, rectified_map, unproject

SHARED_DEG = 40.0
"""Objects within this angle of their common middle share a view."""
LEAST_REACH = 0.6
MOST_REACH = 2.75
"""A view reaches at least and at most so far to each side: tangents of 31 and 70 degrees. The background is seen beside the object."""
MARGIN = 0.25
MOST_SIDE_PX = 4096
_VELOCITY = ("vx_m_s", "vy_m_s", "vz_m_s")


def run_rectified(stage: str, item: ClipInput, run: Callable[[ClipInput], pa.Table]) -> pa.Table:
    """The table of a stage whose rows are about object tracks, by `run`, which takes a pinhole camera's clip.

    A pinhole camera's clip is handed over as it is. Of another, `run` gets one clip for each view, in which `ClipInput.unseen` says where the lens
    shows nothing.
    """
    if item.camera.is_pinhole:
        return run(item)
    rows = [row for view in _views(item) for row in view.restored(run(view.seen))]
    return schema.from_rows(stage, rows) if rows else schema.empty(stage)


@dataclass(frozen=True)
class _View:
    """A virtual pinhole camera in the place of the video's, `R_camera_view` (3, 3) turned against it, and the object tracks it is for."""

    item: ClipInput
    track_ids: frozenset[int]
    camera: Camera
    R_camera_view: np.ndarray

    @cached_property
    def seen(self) -> ClipInput:
        """The clip as the view sees it."""
        width, height = self.camera.width, self.camera.height
        return replace(
            self.item,
            clip=replace(self.item.clip, width=width, height=height, raster=None),
            tables=_Tables(self.item.tables, self._turned),
            camera=self.camera,
            open_frames=self._frames,
            unseen=self._unseen,
        )

    def restored(self, table: pa.Table) -> Iterator[dict[str, Any]]:
        """Rows about the view's own tracks, in the frame and the pixels of the video's camera."""
        lens = intrinsics(self.item.camera)
        for row in table.to_pylist():
            if row["track_id"] not in self.track_ids:
                continue
            if "fx_px" in row:
                row |= lens
            if row.get("reprojection_px") is not None and row["x_m"] is not None:
                row["reprojection_px"] *= self._shrinking(np.array([row["x_m"], row["y_m"], row["z_m"]]))
            yield _rotated(row, self.R_camera_view)

    @cached_property
    def _map(self) -> tuple[np.ndarray, np.ndarray]:
        return rectified_map(self.item.camera, self.camera, self.R_camera_view)

    @cached_property
    def _unseen(self) -> np.ndarray:
        """(h, w) bool, with a pixel's margin."""
        columns, rows = self._map
        width, height = self.item.clip.width, self.item.clip.height
        outside = (columns < 0) | (rows < 0) | (columns > width - 1) | (rows > height - 1)
        return cv2.dilate(outside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)

    def _frames(self) -> Iterator[Frame]:
        for frame in self.item.frames():
            yield Frame(frame.index, frame.timestamp_s, cv2.remap(frame.rgb, *self._map, cv2.INTER_LINEAR))

    def _masks(self, masks: pa.Table) -> pa.Table:
        size, columns = (self.item.clip.height, self.item.clip.width), dict[str, list[Any]](rle=[], bbox_px=[], area_px=[], mask_scale=[])
        for value in masks["rle"].to_pylist():
            mask = cv2.remap(rle.decode_at(value, size).astype(np.uint8) * 255, *self._map, cv2.INTER_LINEAR) >= 128
            made = (rle.encode(mask), rle.mask_bbox(mask).tolist(), int(mask.sum()), 1.0)
            for name, cell in zip(columns, made, strict=True):
                columns[name].append(cell)
        for name, values in columns.items():
            field = masks.schema.field(name)
            masks = masks.set_column(masks.schema.get_field_index(name), field, pa.array(values, field.type))
        return masks

    def _turned(self, name: str, table: pa.Table) -> pa.Table:
        """The rows of an upstream table, as if they had been made from the view."""
        if name == "masks":
            return self._masks(table)
        if name == "depth":
            return depth_maps.turned(table, self.camera, self.R_camera_view)
        rows = []
        for row in table.to_pylist():
            if "joints_px" in row:
                rays = unproject(self.item.camera, np.array(row["joints_px"]))
                row["joints_px"] = project(self.camera, rays @ self.R_camera_view).tolist()
            if "fx_px" in row:
                row |= intrinsics(self.camera)
            rows.append(_seen_from(row, self.R_camera_view) if name == "camera" else _rotated(row, self.R_camera_view.T))
        return pa.Table.from_pylist(rows, schema.table(name).arrow_schema())

    def _shrinking(self, place_view_m: np.ndarray) -> float:
        """Pixels of the video over those of the view, around a place."""
        of_lens = pixels_per_radian(self.item.camera, self.R_camera_view @ place_view_m)
        return float(np.nan_to_num(of_lens / pixels_per_radian(self.camera, place_view_m), nan=1.0))


class _Tables(Mapping[str, pa.Table]):
    """The clip's tables as a view sees them, each turned when it is first asked for: turning depth maps takes long, and few backends read them."""

    def __init__(self, given: Mapping[str, pa.Table], turned: Callable[[str, pa.Table], pa.Table]) -> None:
        self._given, self._turned = given, turned
        self._made: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        if name not in self._made:
            self._made[name] = self._turned(name, self._given[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def _rotated(row: dict[str, Any], R: np.ndarray) -> dict[str, Any]:
    """A row with its poses, joints and velocities turned from one camera into another."""
    if "qw" in row and (T := pose_of(row)) is not None:
        row |= pose_columns(R @ T[:3, :3], R @ T[:3, 3])
    if row.get("joints_m") is not None:
        row["joints_m"] = (np.array(row["joints_m"]) @ R.T).tolist()
    if row.get("vx_m_s") is not None:
        row |= dict(zip(_VELOCITY, (R @ [row[name] for name in _VELOCITY]).tolist(), strict=True))
    return row


def _seen_from(row: dict[str, Any], R_camera_view: np.ndarray) -> dict[str, Any]:
    """A row of table `camera` with the pose of a camera in the same place, turned."""
    R = matrix_from_quaternion(np.array([row[name] for name in QUATERNION])) if row["qw"] is not None else None
    return row if R is None else row | dict(zip(QUATERNION, quaternion_from_matrix(R @ R_camera_view).tolist(), strict=True))


def _views(item: ClipInput) -> list[_View]:
    """As few views as hold all objects of the clip."""
    groups: list[dict[int, np.ndarray]] = []
    for track_id, rays in _outlines(item).items():
        near = next((group for group in groups if _spread_deg([*group.values(), rays]) <= SHARED_DEG), None)
        if near is None:
            groups.append({track_id: rays})
        else:
            near[track_id] = rays
    return [_view(item, group) for group in groups]


def _outlines(item: ClipInput) -> Mapping[int, np.ndarray]:
    """Rays (N, 3) to the corners of each object's boxes over the clip, by track id."""
    found: dict[int, list[np.ndarray]] = {}
    for row in item.tables["masks"].select(["track_id", "role", "bbox_px"]).to_pylist():
        if row["role"] == "object":
            x, y, w, h = row["bbox_px"]
            box = np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h], [x + w / 2, y + h / 2]]) - 0.5
            found.setdefault(row["track_id"], []).append(box)
    rays = {track_id: unproject(item.camera, np.concatenate(boxes)) for track_id, boxes in sorted(found.items())}
    shown = {track_id: of[np.isfinite(of).all(1)] for track_id, of in rays.items()}
    return {track_id: of for track_id, of in shown.items() if len(of)}


def _middle(rays: Sequence[np.ndarray]) -> np.ndarray:
    """Unit direction between the extreme ones."""
    every = np.concatenate(rays)
    axis = every.mean(0)
    for _ in range(30):
        axis = axis / np.linalg.norm(axis)
        axis = axis + 0.2 * every[(every @ axis).argmin()]
    middle: np.ndarray = axis / np.linalg.norm(axis)
    return middle


def _spread_deg(rays: Sequence[np.ndarray]) -> float:
    cosine = float((np.concatenate(rays) @ _middle(rays)).min())
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _view(item: ClipInput, group: Mapping[int, np.ndarray]) -> _View:
    """The view of a group of objects: as fine in its middle as the lens is there, and as wide as they need."""
    axis = _middle(list(group.values()))
    R_camera_view = towards(axis[None])[0]
    rays = np.concatenate(list(group.values())) @ R_camera_view
    plane = rays[rays[:, 2] > 0.1]
    plane = plane[:, :2] / plane[:, 2:]
    low = np.clip(plane.min(0) - MARGIN, -MOST_REACH, -LEAST_REACH)
    high = np.clip(plane.max(0) + MARGIN, LEAST_REACH, MOST_REACH)
    focal_px = min(float(pixels_per_radian(item.camera, axis)), MOST_SIDE_PX / float((high - low).max()))
    width, height = (int(side) + 1 for side in np.ceil((high - low) * focal_px))
    cx_px, cy_px = (-low * focal_px).tolist()
    camera = Camera(focal_px, focal_px, cx_px, cy_px, width, height, item.camera.source, focal_error_share=item.camera.focal_error_share)
    return _View(item, frozenset(group), camera, R_camera_view)
