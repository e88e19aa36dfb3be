"""Stage `points`: the points of the world that the camera saw, sparse. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "points",
    "One point of the world at rest, in the row of the first frame that saw it. No rows where table camera has no poses.",
    ("video_id", "clip_id", "frame_index", "point_id"),
    schema.per_frame(
        schema.Column("point_id", pa.int32(), "identity within the clip", minimum=0),
        schema.Column("x_m", pa.float64(), "position, x; null where the scale of the clip is unknown", "m", "world", True),
        schema.Column("y_m", pa.float64(), "position, y", "m", "world", True),
        schema.Column("z_m", pa.float64(), "position, z", "m", "world", True),
        schema.Column(
            "position_units",
            schema.fixed_list(pa.float64(), 3),
            "position in the units of the clip's reconstruction, as in camera",
            "",
            "world",
        ),
        schema.METRIC,
        schema.Column("rgb", schema.fixed_list(pa.uint8(), 3), "colour in the first frame: red, green, blue"),
        schema.Column("track_length", pa.int32(), "frames that saw the point", "frames", minimum=2),
        schema.Column(
            "reprojection_px", pa.float32(), "largest error of the point in a frame it was solved from", "px", "image", minimum=0
        ),
        schema.Column(
            "angle_deg", pa.float32(), "widest angle between two rays to the point: the depth of one with little is weak", "deg", minimum=0
        ),
    ),
)

STAGE = Stage(
    name="points",
    doc="Sparse points of the world at rest, with colour, number of sightings and error.",
    inputs=("masks", "hand_pose", "camera"),
    default_backend="triangulated",
    sidecar=("camera",),
    table=TABLE,
    metrics=(Metric("point_reprojection_px_median", "median(reprojection_px)", "error of the points in the picture", maximum=4.0),),
    parents=(Parent("camera", ("frame_index",)),),
    sample=(
        {
            "point_id": 1,
            "x_m": 0.1,
            "y_m": 0.0,
            "z_m": 0.5,
            "position_units": [0.1, 0.0, 0.5],
            "metric": True,
            "rgb": [120, 100, 90],
            "track_length": 12,
            "reprojection_px": 0.5,
            "angle_deg": 4.0,
        },
    ),
)
