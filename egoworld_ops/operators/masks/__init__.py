"""Stage `masks`: the pixels of hands and objects. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "masks",
    "The pixels of one hand or object in one frame.",
    ("video_id", "clip_id", "frame_index", "track_id"),
    schema.per_frame(
        schema.TRACK,
        schema.ROLE,
        schema.LABEL,
        schema.Column("rle", schema.RLE, "COCO RLE at mask_scale times the raw video's resolution"),
        schema.Column("mask_scale", pa.float32(), "resolution of the mask over that of the video", minimum=0, maximum=1),
        schema.Column("bbox_px", schema.BOX, "tight box of the mask, at the raw video's resolution", "px", "image"),
        schema.Column("area_px", pa.int64(), "pixels in the mask, at the mask's own resolution", "px", minimum=1),
        schema.SCORE,
        schema.OBSERVED,
    ),
)

STAGE = Stage(
    name="masks",
    doc="Masks of both hands and of objects, prompted by the detections, with stable track ids.",
    inputs=("detections",),
    default_backend="classical",
    table=TABLE,
    metrics=(
        Metric(
            "masked_share",
            "(SELECT avg((m.track_id IS NOT NULL)::INT) FROM detections AS d LEFT JOIN (SELECT DISTINCT clip_id, frame_index, track_id FROM masks) "
            "AS m USING (clip_id, frame_index, track_id) WHERE d.role <> 'hand_other')",
            "share of the hands and objects found that have a mask in their frame",
            minimum=0.9,
            cure="The stage lost them: look at the preview, or choose another backend",
            beside=("detections", "masks"),
        ),
        Metric("observed_share", "avg(observed::INT)", "masks seen rather than carried", minimum=0.5),
        Metric("score_mean", "avg(score)", "confidence of the masks", minimum=0.5),
    ),
    parents=(Parent("detections", ("track_id", "role")),),
    handed_on=True,
    sample=(
        {
            "track_id": 1,
            "role": "hand_left",
            "rle": {"size": [4, 4], "counts": "04<"},
            "mask_scale": 1.0,
            "bbox_px": [0.0, 0.0, 1.0, 4.0],
            "area_px": 4,
            "score": 0.9,
            "observed": True,
        },
    ),
)
