"""Stage `contacts`: what each hand is at. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric, answered_share
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "contacts",
    "What one hand does in one frame: it holds an object, touches one, is near one, or is free.",
    ("video_id", "clip_id", "frame_index", "hand"),
    schema.per_frame(
        schema.HAND,
        schema.Column(
            "state",
            pa.string(),
            "holding: as held_by in movement; contact: borders or covers the object in the picture, and does not hold it; near: within half a hand "
            "of it there; free: none of these; unknown: it is at the object, and held_by in movement is unknown, or it was last "
            "seen there, and the hand is at no other",
            allowed=("free", "near", "contact", "holding", "unknown"),
        ),
        schema.Column(
            "track_id",
            pa.int32(),
            "the object it holds, or may hold unseen, or the nearest one; null where there is none",
            "",
            "",
            True,
            minimum=1,
        ),
        schema.LABEL,
        schema.Column(
            "gap_share",
            pa.float32(),
            "distance in the picture from the hand to that object, in hand sizes (the root of the hand's area); 0 where they meet, null where the "
            "object is not seen",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "hold_score",
            pa.float32(),
            "probability that it holds, or does not hold, the object that it is at: hold_score of movement; null where the state is near, free or "
            "unknown",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        schema.OBSERVED,
    ),
)

STAGE = Stage(
    name="contacts",
    doc="Whether each hand is free, near an object, at one or holding one, and which.",
    inputs=("masks", "movement"),
    default_backend="classical",
    table=TABLE,
    metrics=(
        answered_share("masks", "role IN ('hand_left', 'hand_right')"),
        Metric(
            "holding_unobserved_share",
            "avg((NOT observed)::INT) FILTER (state = 'holding')",
            "share of holds by a hand that is not seen in the frame",
            maximum=0.3,
            cure="The hand's track is carried on without being seen: look at the preview",
        ),
        Metric(
            "contact_unknown_share",
            "avg((state = 'unknown')::INT)",
            "share of hands at an object of which it could not be judged whether they hold it",
            maximum=0.2,
            cure="Column hold_reason of movement says why",
        ),
    ),
    parents=(Parent("masks", ("frame_index", "role")),),
    sample=({"hand": "left", "state": "holding", "track_id": 10, "label": "mug", "gap_share": 0.0, "hold_score": 0.9, "observed": True},),
)
