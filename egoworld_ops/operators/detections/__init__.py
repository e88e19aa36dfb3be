"""Stage `detections`: hands and objects in each frame, the prompts for all that follows. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "detections",
    "One hand or object found in one frame: the prompts for all that follows.",
    ("video_id", "clip_id", "frame_index", "role", "track_id"),
    schema.per_frame(
        schema.ROLE,
        schema.TRACK,
        schema.LABEL,
        schema.Column("box_px", schema.BOX, "box around the thing", "px", "image"),
        schema.Column("points_px", schema.POINTS_2D, "21 image points of a hand; null for objects", "px", "image", True),
        schema.Column(
            "landmarks_m",
            schema.POINTS_3D,
            "21 metric landmarks of a hand about its own centre, axes of the camera; null for objects",
            "m",
            "hand",
            True,
        ),
        schema.SCORE,
        schema.Column(
            "handedness_score",
            pa.float32(),
            "confidence that the hand is the left or right it is said to be",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        schema.Column(
            "source", pa.string(), "network or rule that found it", allowed=("palm", "tracked", "motion_color", "sidecar", "text")
        ),
    ),
)

STAGE = Stage(
    name="detections",
    doc="Hands (box, 21 points, left or right) and objects in or near them, tracked from frame to frame.",
    inputs=(),
    default_backend="mediapipe",
    sidecar=("objects",),
    table=TABLE,
    metrics=(
        Metric("hand_score_mean", "avg(score) FILTER (role <> 'object')", "confidence of the hand network", minimum=0.7),
        Metric(
            "tracked_share",
            "avg((source = 'tracked')::INT) FILTER (role <> 'object')",
            "hands followed from the frame before; low where hands are lost all the time",
            minimum=0.5,
        ),
    ),
    sample=(
        {
            "role": "hand_left",
            "track_id": 1,
            "box_px": [10.0, 20.0, 30.0, 40.0],
            "points_px": [[15.0, 25.0]] * 21,
            "landmarks_m": [[0.0, 0.0, 0.0]] * 21,
            "score": 0.9,
            "handedness_score": 0.9,
            "source": "palm",
        },
    ),
)
