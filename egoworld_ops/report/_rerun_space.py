"""What a recording shows in space: the camera in the world of its clip, and in the camera's frame hands, objects and robot hands, in metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.operators.rows import by_frame, pose_of
from egoworld_ops.report._layer_rows import name
from egoworld_ops.report._overlay import ROLE_COLORS, UNSURE_COLOR
from egoworld_ops.report._rerun_robot import Robots
from egoworld_ops.report._rerun_shown import CENTRE_PX, Shown
from egoworld_ops.report.layer_values import BONES
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.types import Clip

WORLD = "world"
CAMERA = f"{WORLD}/camera"
_STAGES = ("camera", "fusion", "hand_pose", "object_pose", "mapping")
_AXIS_M = 0.05


class Space:
    """What stands in space in the frames of one clip.

    Args:
        layers: the tables of the clip.
        points: the rows of `points` of the clip; None where they do not count.
        clip: the clip.
        robots: the robot hands of the recording.
    """

    def __init__(self, layers: ClipLayers, points: pa.Table | None, clip: Clip, robots: Robots) -> None:
        self._camera, self._points, self._clip, self._robots = layers.camera, points, clip, robots
        self._rows = {stage: by_frame(table, table.schema.names) for stage, table in layers.tables.items() if stage in _STAGES}
        poses = {frame: pose_of(rows[0]) for frame, rows in self._rows.get("camera", {}).items()}
        self._T_world_camera = {frame: T for frame, T in poses.items() if T is not None}

    def begin(self, shown: Shown) -> None:
        """What holds for all frames of the clip: the camera's path, points, lens. In the place of those of the clip before."""
        import rerun as rr

        path = [self._T_world_camera[frame][:3, 3] for frame in sorted(self._T_world_camera)]
        shown.from_now(f"{WORLD}/path", rr.LineStrips3D([path] if len(path) > 1 else [], colors=UNSURE_COLOR))
        at = self._points_m()
        shown.from_now(f"{WORLD}/points", rr.Points3D([p for p, _ in at], colors=[rgb for _, rgb in at], radii=rr.Radius.ui_points(1.5)))
        lens = self._pinhole()
        shown.from_now(f"{CAMERA}/lens", rr.Clear(recursive=False) if lens is None else lens)

    def frame(self, shown: Shown, frame: int) -> None:
        """What stands in space in one frame; nothing where the camera has no pose in it although it has in others of the clip."""
        import rerun as rr

        T_world_camera = self._T_world_camera.get(frame) if self._T_world_camera else np.eye(4)
        if T_world_camera is None:
            return
        shown.now(CAMERA, rr.Transform3D(translation=T_world_camera[:3, 3], mat3x3=T_world_camera[:3, :3]), rr.TransformAxes3D(_AXIS_M))
        for row in self._of(frame, "fusion") or self._of(frame, "hand_pose"):
            _hand(shown, row)
        for row in self._of(frame, "object_pose"):
            _object(shown, row)
        for row in self._of(frame, "mapping"):
            self._robots.show(shown, row)

    def notes(self) -> list[str]:
        """What must be known to read the poses of this clip."""
        n = len(self._T_world_camera)
        said = [
            f"- camera: poses of {n} frames in the world of this clip"
            if n
            else "- camera: no poses in metres; all stands in the camera's frame"
        ]
        if self._camera is not None and not self._camera.metric:
            said.append("- **the focal length is assumed: lengths are right up to an unknown factor**")
        if self._camera is not None and not self._camera.is_pinhole:
            said.append(f"- a {self._camera.model} lens: no picture stands in space, what is drawn over the picture went through the lens")
        return said

    def _of(self, frame: int, stage: str) -> Sequence[Mapping[str, Any]]:
        return self._rows.get(stage, {}).get(frame, ())

    def _points_m(self) -> list[tuple[list[float], list[int]]]:
        """Place and color of each point; none without poses in metres, in whose world they stand."""
        if not self._T_world_camera or self._points is None:
            return []
        rows = self._points.select(["x_m", "y_m", "z_m", "rgb"]).to_pylist()
        return [([r["x_m"], r["y_m"], r["z_m"]], r["rgb"]) for r in rows if r["x_m"] is not None]

    def _pinhole(self) -> Any:
        """The lens, where it is one that Rerun has, else None."""
        import rerun as rr

        camera = self._camera
        if camera is None or not camera.is_pinhole:
            return None
        return rr.Pinhole(
            focal_length=[camera.fx_px, camera.fy_px],
            principal_point=[camera.cx_px + CENTRE_PX, camera.cy_px + CENTRE_PX],
            resolution=[self._clip.width, self._clip.height],
            image_plane_distance=0.15,
        )


def _hand(shown: Shown, row: Mapping[str, Any]) -> None:
    """The joints and bones of a row of `fusion` or `hand_pose`."""
    import rerun as rr

    if row["joints_m"] is None:
        return
    joints_m, color = np.array(row["joints_m"]), ROLE_COLORS[f"hand_{row['hand']}"] if row["observed"] else UNSURE_COLOR
    path = f"{CAMERA}/hands/{row['hand']}"
    shown.now(f"{path}/joints", rr.Points3D(joints_m, colors=color, radii=0.004))
    shown.now(f"{path}/bones", rr.LineStrips3D([joints_m[list(bone)] for bone in BONES], colors=color, radii=0.002))


def _object(shown: Shown, row: Mapping[str, Any]) -> None:
    """The frame of a row of `object_pose`, and the box of its dimensions."""
    import rerun as rr

    T_camera_object = pose_of(row)
    if T_camera_object is None:
        return
    path, color = f"{CAMERA}/objects/{row['track_id']}", ROLE_COLORS["object"] if row["converged"] else UNSURE_COLOR
    shown.now(path, rr.Transform3D(translation=T_camera_object[:3, 3], mat3x3=T_camera_object[:3, :3]), rr.TransformAxes3D(_AXIS_M))
    if row["dimensions_m"] is not None:
        shown.now(f"{path}/box", rr.Boxes3D(sizes=[row["dimensions_m"]], colors=color, labels=[name(row)]))
