"""Backend `mediapipe`: metric joints in the camera frame from the detections' landmarks, image points and the intrinsics. Reads no frames.

The network's metric landmarks give the hand's shape and size, the image points and the intrinsics where it is (`_pnp.py`; through any lens,
`_lens.py`). Nothing is smoothed or carried over time. A scale error of the network on a hand gives a proportional error of its depth: one view
cannot reveal it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.hand_pose import _lens, _pnp
from egoworld_ops.operators.rows import PASSED_ON, depth_error_share, intrinsics, passed_on, pose_columns
from egoworld_ops.types import HANDS
from egoworld_ops.vision.hand_frame import in_wrist_frame, wrist_rotations

SIZE_ERROR_SHARE = 0.2
"""Standard error of the network's hand size, as a share of it: of depths with the true camera (`benchmarks/bench_depth_error.py`)."""


class Settings(BackendSettings):
    """Options of `[stages.hand_pose.mediapipe]`. Shares are of the hand's extent in the image, the longer side of its points' bounds."""

    robust_share: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Beyond this distance from its projection, a point's pull no longer grows."""
    rotation_pull_share: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Cost of a turn by one radian away from the network's own orientation, as an error of every point."""
    max_reprojection_share: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Above this error the landmarks and image points do not belong together: the pose is null."""


class Backend(Operator):
    """Solves each detected hand on its own. `score` is the detection's."""

    version: ClassVar[str] = "3"
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 0.001
    handles_lenses: ClassVar[bool] = True

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never: it works on tables alone."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """One row per detected hand with landmarks; a pose that cannot be solved is null with a reason."""
        detections = item.tables["detections"]
        hands = detections.filter(pc.field("role").isin(["hand_left", "hand_right"]) & pc.field("landmarks_m").is_valid())
        if not hands.num_rows:
            return schema.empty("hand_pose")
        options = cast("Settings", self.settings)
        points_px, landmarks_m = _floats(hands, "points_px", 21, 2), _floats(hands, "landmarks_m", 21, 3)
        extent_px = (points_px.max(1) - points_px.min(1)).max(1)
        on_lens = _lens.on_lens(item.camera, points_px)
        poses = _lens.solve(landmarks_m, points_px, item.camera, options.robust_share * extent_px, options.rotation_pull_share * extent_px)
        is_right = np.array(hands["role"].to_pylist()) == "hand_right"
        R_hand_wrist = wrist_rotations(landmarks_m, is_right)
        shared = intrinsics(item.camera) | {"observed": True}
        rows = []
        for i, detected in enumerate(hands.select([*PASSED_ON, "score"]).to_pylist()):
            row = passed_on(detected, "mediapipe") | shared
            row |= {"hand": HANDS[int(is_right[i])], "joints_px": points_px[i], "score": detected["score"]}
            if not on_lens[i]:
                rows.append(row | Reason("off_lens", f"a joint lies where the {item.camera.model} lens shows nothing").columns())
                continue
            pose = _pose(poses, i, landmarks_m[i], R_hand_wrist[i], options.max_reprojection_share * extent_px[i])
            if "joints_m" in pose:
                image_error = float(poses.reprojection_px[i] / extent_px[i])
                pose["depth_error_share"] = depth_error_share(item.camera, SIZE_ERROR_SHARE, image_error)
            rows.append(row | pose)
        return schema.from_rows("hand_pose", rows)


def _pose(poses: _pnp.Poses, i: int, landmarks_m: np.ndarray, R_hand_wrist: np.ndarray, limit_px: float) -> dict[str, Any]:
    """The columns of hand `i`'s pose, or why there is none."""
    if not poses.converged[i]:
        return Reason("no_fit", "no pose in front of the camera fits the landmarks").columns()
    error_px = float(poses.reprojection_px[i])
    if error_px > limit_px:
        reason = Reason("poor_fit", f"reprojection error {error_px:.1f} px is above {limit_px:.1f} px for a hand of this size")
        return {"reprojection_px": error_px, **reason.columns()}
    if np.isnan(R_hand_wrist).any():
        reason = Reason("degenerate", "wrist, index and middle knuckle lie on a line: the wrist frame is not defined")
        return {"reprojection_px": error_px, **reason.columns()}
    joints_m = landmarks_m @ poses.R_camera_hand[i].T + poses.t_camera_hand_m[i]
    return {
        "joints_m": joints_m,
        "joints_wrist_m": in_wrist_frame(landmarks_m, R_hand_wrist),
        "reprojection_px": error_px,
        **pose_columns(poses.R_camera_hand[i] @ R_hand_wrist, joints_m[0]),
    }


def _floats(table: pa.Table, name: str, *shape: int) -> np.ndarray:
    """A column of fixed-size lists as (rows, *shape) float64."""
    values = table[name].combine_chunks()
    for _ in shape:
        values = values.flatten()
    floats: np.ndarray = values.to_numpy().astype(np.float64).reshape(-1, *shape)
    return floats
