"""Stage `fusion`: hands that move smoothly and keep their size, from the poses of single frames. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric, answered_share
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage
from egoworld_ops.operators.hand_size import SOURCES

TABLE = schema.Table(
    "fusion",
    "The pose of one hand in one frame, from all frames of the clip: bones of one length and smooth motion. What was solved from the frame "
    "alone stays in hand_pose.",
    ("video_id", "clip_id", "frame_index", "hand"),
    schema.per_frame(
        schema.HAND,
        schema.Column(
            "track", pa.int32(), "number of the track of this hand in the clip; a new one begins after a gap", "", "", True, minimum=0
        ),
        schema.SCORE,
        *schema.hand_in_camera(),
        schema.Column(
            "scaling",
            pa.float64(),
            "size of the hand by the person's bone lengths in this clip over its size in hand_pose; its distance was multiplied by it too. Null "
            "where hand_pose has no pose",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "size_source",
            pa.string(),
            "whose word the size of the hands is: the sidecar's (given), that of depth of known error (depth), or that of hand_pose (network)",
            allowed=SOURCES,
        ),
        schema.Column(
            "shift_m", pa.float64(), "distance of the wrist from that in hand_pose; null likewise", "m", "camera", True, minimum=0
        ),
        schema.Column(
            "speed_m_s",
            pa.float64(),
            "speed of the wrist relative to the camera since the row before; null in the first row of a track",
            "m/s",
            "camera",
            True,
            minimum=0,
        ),
        schema.Column(
            "measured_speed_m_s",
            pa.float64(),
            "the same of hand_pose; null also where it has no pose here or in the row before",
            "m/s",
            "camera",
            True,
            minimum=0,
        ),
        schema.OBSERVED,
        schema.Column(
            "filled",
            pa.string(),
            "why the pose is not observed: hand_pose has none (gap), or one that contradicts those before and after (outlier)",
            "",
            "",
            True,
            ("gap", "outlier"),
        ),
        schema.DEPTH_ERROR,
        schema.METRIC,
        schema.reason("the pose"),
        schema.reason_class(),
    ),
)

STAGE = Stage(
    name="fusion",
    doc="Hands over the frames of a clip: one set of bone lengths, smooth motion, short gaps filled.",
    inputs=("hand_pose", "depth"),
    default_backend="smoothing",
    sidecar=("hands",),
    table=TABLE,
    metrics=(
        answered_share("hand_pose"),
        Metric(
            "observed_share",
            "avg(observed::INT)",
            "hands whose pose is from the frame itself; the others are filled in, or none",
            minimum=0.8,
            cure="Hands are lost for short times: look at hand_pose in the preview",
        ),
        Metric(
            "outlier_share",
            "avg((filled = 'outlier' OR reason_class = 'outlier')::INT)",
            "poses that contradict those around them",
            maximum=0.1,
        ),
        Metric(
            "size_ratio",
            "quantile_cont(scaling, 0.95) / quantile_cont(scaling, 0.05)",
            "how many times as large as itself a hand is in single frames: its distance jumps by as much",
            maximum=1.6,
            cure="Use this table's poses, not those of hand_pose, or another backend of hand_pose",
        ),
        Metric(
            "measured_speed_m_s_p95",
            "quantile_cont(measured_speed_m_s, 0.95)",
            "speed of wrists in hand_pose; people are slower than this, so the poses jump",
            maximum=3.0,
            cure="Use this table's poses, not those of hand_pose",
        ),
        Metric("speed_m_s_p95", "quantile_cont(speed_m_s, 0.95)", "speed of wrists after smoothing: they still jump", maximum=2.0),
    ),
    parents=(Parent("hand_pose", ("role",)),),
    sample=(
        {
            "hand": "left",
            "track": 0,
            "score": 0.9,
            "joints_m": [[0.0, 0.0, 0.5]] * 21,
            "joints_wrist_m": [[0.0, 0.0, 0.0]] * 21,
            "qw": 1.0,
            "qx": 0.0,
            "qy": 0.0,
            "qz": 0.0,
            "x_m": 0.0,
            "y_m": 0.0,
            "z_m": 0.5,
            "scaling": 1.0,
            "size_source": "network",
            "depth_error_share": 0.1,
            "shift_m": 0.001,
            "speed_m_s": 0.2,
            "measured_speed_m_s": 0.4,
            "observed": True,
            "metric": True,
        },
    ),
)
