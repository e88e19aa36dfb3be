"""Stage `hand_pose`: metric hand joints in the camera frame. One file a backend."""

from typing import Any

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import METRIC_SHARE, Metric, answered_share
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import ReadByOption, Stage

_LENGTH = "list_distance(joints_wrist_m[10], joints_wrist_m[1])"
_HALF = "greatest((cx_px + 0.5) / fx_px, (cy_px + 0.5) / fy_px)"
_PERSPECTIVE = "'pinhole', 'plumb_bob', 'rational_polynomial'"

TABLE = schema.Table(
    "hand_pose",
    "The 3D pose of one hand in one frame.",
    ("video_id", "clip_id", "frame_index", "hand"),
    schema.per_frame(
        schema.HAND,
        schema.SCORE,
        schema.Column("joints_px", schema.POINTS_2D, "image points the pose was solved from", "px", "image"),
        *schema.hand_in_camera(),
        schema.Column(
            "mano_pose",
            schema.fixed_list(pa.float32(), 48),
            "MANO axis-angles against the flat hand, where the backend has them: of the whole hand in the camera frame, then of 15 joints against "
            "their parents; of a left hand for MANO's left model",
            "rad",
            nullable=True,
        ),
        schema.Column("mano_betas", schema.fixed_list(pa.float32(), 10), "MANO shape, where the backend has it", nullable=True),
        schema.Column(
            "vertices_wrist_m",
            pa.list_(schema.fixed_list(pa.float32(), 3)),
            "the surface, in the wrist frame and to 2^-14 m, where the backend has it and was asked for it: MANO's 778 vertices in MANO's order, of "
            "a left hand those of the mirrored right one, whose faces are MANO's right ones turned around",
            "m",
            "wrist",
            True,
            length=778,
        ),
        schema.Column(
            "reprojection_px",
            pa.float32(),
            "root mean square distance of the projected joints_m to joints_px",
            "px",
            "image",
            True,
            minimum=0,
        ),
        schema.DEPTH_ERROR,
        *schema.INTRINSICS,
        schema.OBSERVED,
        schema.reason("the pose"),
        schema.reason_class(),
    ),
)

_POSE: dict[str, Any] = {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "x_m": 0.0, "y_m": 0.0, "z_m": 0.5}
_POSE |= {"fx_px": 500.0, "fy_px": 500.0, "cx_px": 319.5, "cy_px": 239.5}
_POSE |= {"lens_model": "pinhole", "distortion": [], "intrinsics_source": "file"}
_POSE |= {"focal_error_share": 0.0, "depth_error_share": 0.1, "metric": True}

STAGE = Stage(
    name="hand_pose",
    doc="3D joints of each hand in the camera frame and in its own wrist frame.",
    inputs=("detections",),
    optional=(ReadByOption("masks", "mask_boxes"),),
    default_backend="mediapipe",
    sidecar=("camera",),
    table=TABLE,
    metrics=(
        METRIC_SHARE,
        answered_share("detections", "role IN ('hand_left', 'hand_right')"),
        Metric(
            "reprojection_share_median",
            "median(reprojection_px / greatest(list_distance(joints_px[1], joints_px[10]), list_distance(joints_px[6], joints_px[18]), 1))",
            "distance of projected joints to their image points, over the length or width of the palm",
            maximum=0.2,
        ),
        Metric("solved_share", "avg((joints_m IS NOT NULL)::INT)", "hands with a pose", minimum=0.9),
        Metric("depth_m_median", "median(z_m)", "distance of the wrist from the camera; hands of one's own are within reach", 0.1, 1.2),
        Metric(
            "hand_length_m_median",
            f"median({_LENGTH}) FILTER ({_LENGTH} > 0)",
            "distance from the wrist to the middle finger's knuckle",
            0.05,
            0.13,
            cure="The lengths of the backend are not in metres, or its hands have no shape",
        ),
        Metric(
            "field_of_view_deg",
            f"median(2 * degrees(CASE WHEN lens_model IN ({_PERSPECTIVE}) THEN atan({_HALF}) ELSE {_HALF} END))",
            "field of view along the longer side of the picture, by the intrinsics of the rows",
            40.0,
            200.0,
            cure="The focal length is that of another resolution or lens: look at the camera section of VIDEO.egoworld.json",
        ),
    ),
    parents=(Parent("detections", ("frame_index", "role"), ("masks",)),),
    sample=(
        {
            "hand": "left",
            "score": 0.9,
            "joints_px": [[15.0, 25.0]] * 21,
            "joints_m": [[0.0, 0.0, 0.5]] * 21,
            "joints_wrist_m": [[0.0, 0.0, 0.0]] * 21,
            **_POSE,
            "reprojection_px": 1.0,
            "observed": True,
        },
    ),
)
