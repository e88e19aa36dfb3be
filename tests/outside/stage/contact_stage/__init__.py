"""A stage from another package: how crowded each frame is. Its table, metrics, references and sample rows are all here."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

STAGE = Stage(
    name="contact",
    doc="How much of the picture each thing covers.",
    inputs=("detections",),
    default_backend="share",
    table=schema.Table(
        "contact",
        "The share of the picture that one thing covers in one frame.",
        ("video_id", "clip_id", "frame_index", "track_id"),
        schema.per_frame(
            schema.ROLE, schema.TRACK, schema.Column("covered_share", pa.float64(), "area of its box over that of the picture", minimum=0)
        ),
    ),
    metrics=(Metric("covered_share_max", "max(covered_share)", "a thing as large as the picture is none", maximum=0.5),),
    parents=(Parent("detections", ("track_id", "role")),),
    sample=({"role": "object", "track_id": 10, "covered_share": 0.25},),
)
