"""Stage `movement`: how objects move and which hand holds them. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric, answered_share
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "movement",
    "How one object moves in one frame, and which hand holds it.",
    ("video_id", "clip_id", "frame_index", "track_id"),
    schema.per_frame(
        schema.TRACK,
        schema.LABEL,
        schema.Column("vx_m_s", pa.float64(), "velocity relative to the camera, x", "m/s", "camera", True),
        schema.Column("vy_m_s", pa.float64(), "velocity relative to the camera, y", "m/s", "camera", True),
        schema.Column("vz_m_s", pa.float64(), "velocity relative to the camera, z", "m/s", "camera", True),
        schema.Column(
            "speed_background_m_s",
            pa.float64(),
            "speed relative to the background, camera motion taken out; where the camera's path is uncertain, or it walks and nobody gives its "
            "path, the object moves at least so fast",
            "m/s",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "turning_background_rad_s",
            pa.float64(),
            "turning rate relative to the background, camera motion taken out; of the same path of the camera as the speed",
            "rad/s",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "background_source",
            pa.string(),
            "what took the camera's motion out: the poses of table camera, or the background's motion in the picture; null where neither could",
            "",
            "",
            True,
            ("camera", "picture"),
        ),
        schema.Column(
            "state",
            pa.string(),
            "moving or still relative to the background; null where neither is known, as where the camera walks by a path that nobody gives "
            "and both would look the same",
            "",
            "",
            True,
            ("moving", "still"),
        ),
        schema.Column(
            "held_by",
            pa.string(),
            "the hand that holds it; none where it was judged that no hand does, unknown where that could not be judged",
            allowed=("left", "right", "both", "none", "unknown"),
        ),
        schema.Column(
            "hold_score", pa.float32(), "probability that held_by is right; null where it is unknown", "", "", True, minimum=0, maximum=1
        ),
        schema.Column(
            "hold_reason",
            pa.string(),
            "why held_by is unknown: the object moves, or may while the camera walks, no hand is seen at it, and not both hands are seen; a hand is "
            "at it for a short time, and whether it moves is not known; the hand at it has no points to follow; a hand is not seen that was, or "
            "will be, at it within a second; nothing moves, and the hand at it has neither joints nor points; or it looks neither like a hold nor "
            "like none. Null where held_by is known",
            "",
            "",
            True,
            ("moves_without_hand", "motion_unknown", "hand_without_points", "hand_lost", "hand_without_joints", "undecided"),
        ),
        schema.METRIC,
        schema.reason("velocity or state"),
        schema.reason_class(),
    ),
)

STAGE = Stage(
    name="movement",
    doc="Velocity of each object, whether it moves relative to the background, and which hand holds it.",
    inputs=("masks", "hand_pose", "object_pose", "camera"),
    default_backend="classical",
    sidecar=("camera",),
    table=TABLE,
    metrics=(
        answered_share("masks", "role = 'object'"),
        Metric(
            "stated_share",
            "avg((state IS NOT NULL)::INT)",
            "objects said to move or be still",
            minimum=0.5,
            cure="Column reason says why; where it is camera_walks, name a trajectory in VIDEO.egoworld.json, or choose "
            "stages.camera.backend = 'colmap'",
        ),
        Metric(
            "held_unknown_share",
            "avg((held_by = 'unknown')::INT)",
            "share of objects of which it could not be judged who holds them",
            maximum=0.2,
            cure="Column hold_reason says why; hands that are not found are the usual cause",
        ),
        Metric(
            "over_cut_share",
            "avg((reason_class IS NOT DISTINCT FROM 'cut')::INT)",
            "share of rows at which a track goes on from one scene to another",
            maximum=0.0,
            cure="A cut was not found: lower scenes.threshold, or choose another scenes.detector. What the track was before it may be another thing",
        ),
        Metric(
            "moving_unheld_share",
            "avg((held_by = 'none')::INT) FILTER (state = 'moving')",
            "share of moving objects that no hand is said to hold",
            maximum=0.5,
            cure="A hand that carries them is missed, or they are no objects: look at the preview; or the camera walks, and nobody gives its path: "
            "name a trajectory in VIDEO.egoworld.json, or choose stages.camera.backend = 'colmap'",
        ),
    ),
    parents=(Parent("masks", ("track_id", "role")),),
    sample=(
        {
            "track_id": 10,
            "vx_m_s": 0.1,
            "vy_m_s": 0.0,
            "vz_m_s": 0.0,
            "speed_background_m_s": 0.1,
            "turning_background_rad_s": 0.0,
            "background_source": "picture",
            "state": "moving",
            "held_by": "left",
            "hold_score": 0.9,
            "metric": True,
        },
    ),
)
