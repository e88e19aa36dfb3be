"""Stage `camera`: where the camera is in the world. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "camera",
    "The pose of the camera in one frame (T_world_camera). No rows where the backend is `given` and no trajectory is named in the sidecar.",
    ("video_id", "clip_id", "frame_index"),
    schema.per_frame(
        *schema.pose("world", "the camera (T_world_camera)"),
        schema.Column(
            "position_units",
            schema.fixed_list(pa.float64(), 3),
            "position in the units of the clip's reconstruction: the same path before its scale is known",
            "",
            "world",
            True,
        ),
        schema.Column(
            "metres_per_unit", pa.float64(), "length of one such unit; null where nothing fixes the scale", "m", "", True, minimum=0
        ),
        schema.Column(
            "scale_source", pa.string(), "what fixes the metric scale", allowed=("hands", "dimensions", "depth", "given", "none")
        ),
        schema.Column(
            "scale_error_share",
            pa.float32(),
            "standard error of metres_per_unit, as its share; null where unknown (in a given trajectory it then counts as 0.03)",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "method",
            pa.string(),
            "mapped: one of the keyframes reconstructed together; registered: solved on the points of those; interpolated: between two given times",
            "",
            "",
            True,
            ("mapped", "registered", "interpolated"),
        ),
        schema.Column("inliers", pa.int32(), "points that agree with the pose", "", "", True, minimum=0),
        schema.Column("reprojection_px", pa.float32(), "root mean square error of the inliers", "px", "image", True, minimum=0),
        schema.Column(
            "position_error_units",
            pa.float32(),
            "standard error of position_units relative to the clip's first pose, scale apart; null where unknown",
            "",
            "world",
            True,
            minimum=0,
        ),
        schema.Column(
            "rotation_error_deg",
            pa.float32(),
            "standard error of the orientation relative to the clip's first pose; null where unknown",
            "deg",
            "",
            True,
            minimum=0,
        ),
        *schema.INTRINSICS,
        schema.reason("the pose or its position in metres"),
        schema.reason_class(),
    ),
)

_POSE = {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "x_m": 0.0, "y_m": 0.0, "z_m": 0.0}

STAGE = Stage(
    name="camera",
    doc="Pose of the camera in the world in each frame, with what fixed its scale and how far it may be off.",
    inputs=("masks", "hand_pose", "object_pose"),
    default_backend="given",
    sidecar=("camera", "trajectory"),
    table=TABLE,
    metrics=(
        Metric(
            "posed_share",
            "avg((qw IS NOT NULL)::INT)",
            "frames whose camera pose is known",
            minimum=0.5,
            cure="See column reason of table camera; a trajectory beside the video can be named in its sidecar",
        ),
        Metric("rotation_error_deg_median", "median(rotation_error_deg)", "standard error of the orientation", maximum=2.0),
    ),
    sample=(
        {
            **_POSE,
            "position_units": [0.0, 0.0, 0.0],
            "metres_per_unit": 0.5,
            "scale_source": "dimensions",
            "scale_error_share": 0.1,
            "method": "mapped",
            "inliers": 80,
            "reprojection_px": 0.5,
            "position_error_units": 0.01,
            "rotation_error_deg": 0.1,
            "fx_px": 500.0,
            "fy_px": 500.0,
            "cx_px": 319.5,
            "cy_px": 239.5,
            "lens_model": "pinhole",
            "distortion": [],
            "intrinsics_source": "file",
            "focal_error_share": 0.0,
            "metric": True,
        },
    ),
)
