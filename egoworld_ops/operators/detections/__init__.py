"""Stage `detections`: hands and objects in each frame, the prompts for all that follows. One file a backend."""

from dataclasses import replace

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.operators.base import Stage

_IS_HAND = "role IN ('hand_left', 'hand_right')"

TABLE = schema.Table(
    "detections",
    "One hand or object found in one frame: the prompts for all that follows.",
    ("video_id", "clip_id", "frame_index", "role", "track_id"),
    schema.per_frame(
        replace(
            schema.ROLE,
            doc="what the row is about; `hand_other` is a hand that is neither the left nor the right one of the person whose video it is",
            allowed=(*schema.ROLE.allowed, "hand_other"),
        ),
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
        schema.Column(
            "rle",
            schema.RLE,
            "COCO RLE of the pixels that the box bounds, at the raw video's resolution; null where the backend sees boxes alone",
            nullable=True,
        ),
        schema.SCORE,
        schema.Column(
            "score_age_s",
            pa.float64(),
            "how long before the frame the network was asked that gave the score: 0 where it was asked in the frame itself; null where the score "
            "is a rule's, that of all of the clip, or one of `sam3` that is capped by the score of the thing's first detection",
            "s",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "owner",
            pa.string(),
            "whose hand it is: `wearer` where the arms come from the bottom of the picture, `other` for another person's; `unknown` for a second "
            "hand of one side, and where arms do not come from the bottom. Null for objects",
            nullable=True,
            allowed=("wearer", "other", "unknown"),
        ),
        schema.Column(
            "owner_reason",
            pa.string(),
            "why owner is `unknown`: it would be a second left or right hand; both arms of a person come from another edge of the picture than the "
            "bottom; or one arm does, and no second hand is seen with it: the side is that of whoever it belongs to, who may be another person",
            nullable=True,
            allowed=(
                "second_of_one_side",
                *(f"{arms}_from_{edge}" for arms in ("arms", "one_arm") for edge in ("top", "left", "right")),
            ),
        ),
        schema.Column(
            "jumped",
            pa.bool_(),
            "the hand is further from its place in the processed frame before than a hand moves; null where it was not seen there, and for objects",
            nullable=True,
        ),
        schema.Column(
            "source",
            pa.string(),
            "network or rule that found it",
            allowed=("palm", "tracked", "motion_color", "sidecar", "text", "detector"),
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
        Metric(
            "hand_any_share",
            f"count(DISTINCT frame_index) FILTER ({_IS_HAND}) / nullif((SELECT sum(frames) FROM processed), 0)",
            "share of all frames in which a hand of the wearer was found",
            minimum=0.2,
            cure="Look at the video: hands may be out of view, gloved, too small or too dark",
        ),
        Metric(
            "handless_clips",
            f"CASE WHEN count(*) FILTER ({_IS_HAND}) > 0 THEN (SELECT count(*) FROM processed WHERE frames > 0) "
            f"- count(DISTINCT clip_id) FILTER ({_IS_HAND}) ELSE 0 END",
            "clips in which no hand was found, of a video that has hands in others",
            maximum=0,
            cure="Look at these clips; leave them out where nothing is done in them",
        ),
        Metric("hand_score_mean", "avg(score) FILTER (role <> 'object')", "confidence of the hand network", minimum=0.7),
        Metric(
            "tracked_share",
            "avg((source = 'tracked')::INT) FILTER (role <> 'object' AND source NOT IN ('text', 'detector'))",
            "hands followed from the frame before, of those not found anew in each frame; low where hands are lost all the time",
            minimum=0.5,
        ),
        Metric(
            "hand_other_share",
            "avg((owner = 'other')::INT) FILTER (role <> 'object')",
            "hands of another person",
            maximum=0.05,
            cure="They have role hand_other and no pose; where they are the wearer's, the camera was worn otherwise than upright",
        ),
        Metric(
            "hand_second_share",
            "avg((role = 'hand_other' AND owner = 'unknown')::INT) FILTER (role <> 'object')",
            "hands that would be a second left or right one of the same person",
            maximum=0.02,
            cure="Look at the preview: there is another person, or the network takes one hand for its mirror image",
        ),
        Metric(
            "hand_owner_unknown_share",
            "avg((owner = 'unknown')::INT) FILTER (role IN ('hand_left', 'hand_right'))",
            "hands whose arms do not come from the bottom of the picture",
            maximum=0.5,
            cure="The camera is not worn, was turned, or sees another person's hands only",
        ),
        Metric(
            "hand_jumps",
            "count(*) FILTER (jumped)",
            "hands that are elsewhere than in the frame before",
            maximum=0,
            cure="A cut was not found, or a side was given to another hand: look at these frames",
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
            "score_age_s": 0.0,
            "owner": "wearer",
            "jumped": None,
            "source": "palm",
        },
    ),
)
