"""The path of the camera from a file beside the video, which the sidecar names (`trajectory`): resampled to the frames' times, never continued.

Where the sidecar names none, the table is empty and no frame is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.rows import common, intrinsics, pose_columns
from egoworld_ops.types import Frame
from egoworld_ops.video.sidecar_trajectory import SidecarTrajectory
from egoworld_ops.video.trajectory import Trajectory, read_trajectory

NAME = "given"
_NO_SCALE = Reason(
    "no_scale",
    "nobody says how long a unit of the trajectory is: the path is known up to its scale; the sidecar's `metres_per_unit` says it",
)


class GivenSettings(BackendSettings):
    """Settings of the backend `given`."""

    max_gap_s: Annotated[float, Field(gt=0)] = 0.25
    """Longest time between two poses of the file between which a pose is interpolated."""


class Backend(Operator):
    """The `given` backend of camera."""

    version = "2"
    Settings: ClassVar[type[BackendSettings]] = GivenSettings
    handles_lenses: ClassVar[bool] = True
    seconds_per_frame: ClassVar[float] = 0.002

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """No picture is looked at; where there is a trajectory, `run` decodes the frames for their times."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """Table `camera`: one row a frame; empty where the sidecar names no trajectory.

        Raises:
            BadSidecar: the file is no trajectory.
        """
        given = item.sidecar.trajectory
        if given is None:
            return schema.empty("camera")
        assert isinstance(self.settings, GivenSettings)
        trajectory = read_trajectory(item.clip.video_path.parent, given)
        rows = [_row(item, given, frame, trajectory, self.settings.max_gap_s) for frame in item.frames()]
        return schema.from_rows("camera", rows) if rows else schema.empty("camera")


def _row(item: ClipInput, given: SidecarTrajectory, frame: Frame, trajectory: Trajectory, max_gap_s: float) -> dict[str, Any]:
    row = common(item, frame.index, frame.timestamp_s, NAME) | intrinsics(item.camera)
    row |= {"scale_source": "none" if given.unit_m is None else "given"}
    row["metric"] = True  # its lengths are those of the file, whatever the focal length
    found = trajectory.pose(frame.index, frame.timestamp_s, max_gap_s)
    if found is None:
        return row | Reason("no_trajectory", "the trajectory has no pose here: the time is outside of it, or in a gap of it").columns()
    T, stands = found
    row |= {"method": None if stands else "interpolated", "position_units": T[:3, 3].tolist()}
    row |= pose_columns(T[:3, :3], T[:3, 3] * (given.unit_m or 1.0))
    if given.unit_m is None:
        return row | dict.fromkeys(("x_m", "y_m", "z_m")) | _NO_SCALE.columns()
    return row | {"metres_per_unit": given.unit_m, "scale_error_share": given.scale_error_share}
