"""Stage `object_pose`: 6D poses of masked objects. One file a backend."""

from typing import Any

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import METRIC_SHARE, Metric, answered_share
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

_METRES = "Things within reach are nearer and smaller: give dimensions and meshes in metres"

TABLE = schema.Table(
    "object_pose",
    "The 6D pose of one object in one frame (T_camera_object).",
    ("video_id", "clip_id", "frame_index", "track_id"),
    schema.per_frame(
        schema.TRACK,
        schema.LABEL,
        *schema.pose("camera", "the object frame (T_camera_object)"),
        schema.Column(
            "dimensions_m",
            schema.fixed_list(pa.float32(), 3),
            "size of the object along its own axes, given or estimated",
            "m",
            "object",
            True,
        ),
        schema.Column("scale_source", pa.string(), "what fixes the metric scale", allowed=("mesh", "dimensions", "depth", "hand", "none")),
        schema.SCORE,
        schema.Column("method", pa.string(), "how the pose was found", "", "", True, ("registered", "tracked", "reregistered", "outline")),
        schema.Column(
            "inliers", pa.int32(), "points that agree with the pose; null where it was found by its outline alone", "", "", True, minimum=0
        ),
        schema.Column("reprojection_px", pa.float32(), "root mean square error of the inliers", "px", "image", True, minimum=0),
        schema.Column(
            "reprojection_share",
            pa.float32(),
            "reprojection_px over the object's size, the root of its mask's median area",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "mask_iou",
            pa.float32(),
            "intersection over union of the shape's outline at the pose and the mask, where no hand or other thing hides them",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        schema.Column(
            "support",
            pa.float32(),
            "how well the poses of this track explain masks and picture edges of frames they were not solved by",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        schema.Column(
            "margin", pa.float32(), "support less that of the best pose turned otherwise by more than its symmetry", "", "", True
        ),
        schema.Column(
            "symmetry",
            pa.string(),
            "rotations that leave the shape as it is, up to which the orientation is known: some turns, all about one axis, all",
            "",
            "",
            True,
            ("none", "turns", "round", "ball"),
        ),
        schema.Column(
            "converged",
            pa.bool_(),
            "whether the pose is verified: by `classical` by other frames, against other poses, and by the mask here or by the poses just before "
            "and after; by `foundationpose` by mask and depth here",
        ),
        schema.DEPTH_ERROR,
        *schema.INTRINSICS,
        schema.OBSERVED,
        schema.Column(
            "reason",
            pa.string(),
            "why the pose is null, or why it is not verified where `converged` is false; null where it is",
            nullable=True,
        ),
        schema.reason_class(),
    ),
)

_POSE: dict[str, Any] = {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "x_m": 0.0, "y_m": 0.0, "z_m": 0.5}
_POSE |= {"fx_px": 500.0, "fy_px": 500.0, "cx_px": 319.5, "cy_px": 239.5}
_POSE |= {"lens_model": "pinhole", "distortion": [], "intrinsics_source": "file"}
_POSE |= {"focal_error_share": 0.0, "depth_error_share": 0.1, "metric": True}

STAGE = Stage(
    name="object_pose",
    doc="6D pose of each masked object in the camera frame, with what fixed its scale.",
    inputs=("masks", "hand_pose", "depth"),
    default_backend="classical",
    sidecar=("camera", "objects", "hands"),
    table=TABLE,
    metrics=(
        METRIC_SHARE,
        answered_share("masks", "role = 'object'"),
        Metric("depth_m_median", "median(z_m)", "distance of the objects from the camera", 0.05, 5.0, cure=_METRES),
        Metric("size_m_median", "median(list_max(dimensions_m))", "longest side of the objects", 0.01, 2.0, cure=_METRES),
        Metric("converged_share", "avg(converged::INT)", "objects whose pose is verified", minimum=0.5),
        Metric(
            "reprojection_share_median",
            "median(reprojection_share)",
            "error of the points that agree, over the object's size",
            maximum=0.03,
        ),
    ),
    parents=(Parent("masks", ("track_id", "role")),),
    sample=(
        {
            "track_id": 10,
            **_POSE,
            "dimensions_m": [0.06, 0.04, 0.05],
            "scale_source": "hand",
            "score": 0.9,
            "method": "registered",
            "inliers": 40,
            "reprojection_px": 1.0,
            "reprojection_share": 0.01,
            "mask_iou": 0.93,
            "support": 0.9,
            "margin": 0.1,
            "symmetry": "none",
            "converged": True,
            "observed": True,
        },
    ),
)
