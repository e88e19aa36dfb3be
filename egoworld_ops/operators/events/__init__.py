"""Stage `events`: what hands do to objects, as intervals. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "events",
    "One phase of what one hand does to one object. frame_index and timestamp_s are those of its first frame: where clips overlap, it is of the "
    "clip that owns this frame.",
    ("video_id", "clip_id", "frame_index", "hand", "phase"),
    schema.per_frame(
        schema.HAND,
        schema.TRACK,
        schema.LABEL,
        schema.Column(
            "phase",
            pa.string(),
            "reach: the hand comes nearer until it is at the object; grasp: from then until it holds it; carry: it holds it, moving or not; "
            "release: from then until it has left it",
            allowed=("reach", "grasp", "carry", "release"),
        ),
        schema.Column("last_frame_index", pa.int64(), "the last frame of the phase", minimum=0),
        schema.Column("end_s", pa.float64(), "presentation time of the last frame", "s"),
        schema.Column(
            "event_score",
            pa.float32(),
            "probability that the hand holds the object in the carry that it belongs to: mean of hold_score",
            minimum=0,
            maximum=1,
        ),
        schema.Column("begun_before", pa.bool_(), "it is on in the clip's first frame: it may have begun before"),
        schema.Column("goes_on", pa.bool_(), "it is on in the clip's last frame: it may go on after"),
    ),
)

STAGE = Stage(
    name="events",
    doc="Reach, grasp, carry and release, as intervals of one hand and one object.",
    inputs=("contacts",),
    default_backend="classical",
    table=TABLE,
    metrics=(
        Metric(
            "carry_s_median",
            "median(end_s - timestamp_s) FILTER (phase = 'carry' AND NOT begun_before AND NOT goes_on)",
            "length in seconds of carries that begin and end in the clip",
            minimum=0.2,
            cure="Holds flicker: look at held_by of movement in the preview",
        ),
    ),
    parents=(Parent("contacts", ("frame_index", "hand")),),
    sample=(
        {
            "hand": "left",
            "track_id": 10,
            "label": "mug",
            "phase": "carry",
            "last_frame_index": 30,
            "end_s": 1.0,
            "event_score": 0.9,
            "begun_before": False,
            "goes_on": False,
        },
    ),
)
