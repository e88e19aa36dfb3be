"""Stage `depth`: how far away each pixel of a frame is. One file a backend. Other stages read its maps through `operators/depth_maps.py`."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import METRIC_SHARE, Metric
from egoworld_ops.operators.base import Stage

_UNIT = "See that metres_per_unit and encoding of the sidecar's depth, the camera's focal length, and sizes of hands and objects there, are right"

TABLE = schema.Table(
    "depth",
    "The depth map of one frame. No rows where the backend is `given` and no depth is named in the sidecar.",
    ("video_id", "clip_id", "frame_index"),
    schema.per_frame(
        schema.Column(
            "counts",
            pa.binary(),
            "the map: depth along the optical axis of the video's camera (z, not the range along the ray), as counts of step_m from 1 to 65535; "
            "0 where it is unknown or beyond. 2 * map_width * map_height bytes, compressed with zstd: of each count, row by row, the difference d to "
            "its left neighbour, modulo 65536 as a signed number, folded to 2 d, or -2 d - 1 where d < 0; first all low bytes, then all high ones",
            nullable=True,
        ),
        schema.Column("map_width", pa.int32(), "width of the map", "px", "", True, minimum=1),
        schema.Column("map_height", pa.int32(), "height of the map", "px", "", True, minimum=1),
        *(
            schema.Column(
                f"map_{name}_px",
                pa.float64(),
                f"{what} of the pinhole camera that the map is seen through, in the place and frame of the video's camera, whatever its lens",
                "px",
                "",
                True,
            )
            for name, what in (
                ("fx", "focal length, x,"),
                ("fy", "focal length, y,"),
                ("cx", "principal point, x,"),
                ("cy", "principal point, y,"),
            )
        ),
        schema.Column(
            "step_m",
            pa.float64(),
            "depth of one count: what the map is rounded to; it holds 65535 of them",
            "m",
            "camera",
            True,
            minimum=1e-6,
        ),
        schema.Column("valid_share", pa.float32(), "pixels of the map with a depth", "", "", True, minimum=0, maximum=1),
        schema.Column("median_m", pa.float64(), "median of the depths", "m", "camera", True, minimum=0),
        schema.Column("depth_source", pa.string(), "a depth camera's or another program's, or a network's", allowed=("given", "network")),
        schema.Column(
            "later_s", pa.float64(), "how much later than the frame the depth was taken; null where it is the frame's own", "s", "", True
        ),
        schema.Column(
            "scale",
            pa.float64(),
            "by which the depths of the clip, as their source has them, are to be multiplied so that its hands, or an object of known dimensions, "
            "have their size. Null where the clip shows neither",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column("scale_source", pa.string(), "what it was fitted to", allowed=("hands", "dimensions", "none")),
        schema.Column("scale_error_share", pa.float32(), "standard error of scale as a share of it", "", "", True, minimum=0),
        schema.Column(
            "scale_applied",
            pa.bool_(),
            "whether step_m and median_m have been multiplied by scale: a network's are where scale is sure enough and contradicts them by more than "
            "two standard errors, those of a depth camera never",
        ),
        schema.Column(
            "depth_error_share",
            pa.float64(),
            "standard error of the depths that all of the clip have in common, as a share of them: of given depth as the sidecar says; of a "
            "network that of a scale that is sure enough, and what it differs from 1 where it was not applied. Null where nobody knows it",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "hand_scale",
            pa.float64(),
            "by which size and distance of the clip's hands in hand_pose are to be multiplied so that they lie where the depth shows them; fusion "
            "does so. Null where depth_error_share or the focal length is unknown, where a network's depth has its scale from hands, where hands are "
            "surer of their own, and beyond 0.67 to 1.5, where it is not the hands that are wrong",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column("hand_scale_error_share", pa.float64(), "standard error of hand_scale as a share of it", "", "", True, minimum=0),
        *schema.INTRINSICS,
        schema.reason("the map"),
        schema.reason_class(),
    ),
)

STAGE = Stage(
    name="depth",
    doc="Metric depth of each pixel, with what is not known, and how it fits to the hands of the clip.",
    inputs=("masks", "hand_pose"),
    default_backend="given",
    sidecar=("camera", "objects", "depth", "hands"),
    table=TABLE,
    metrics=(
        METRIC_SHARE,
        Metric(
            "mapped_share",
            "avg((counts IS NOT NULL)::INT)",
            "frames with a depth map",
            minimum=0.5,
            cure="See column reason of table depth",
        ),
        Metric("valid_share_median", "median(valid_share)", "pixels of a map with a depth", minimum=0.3),
        Metric(
            "depth_scale",
            "median(scale)",
            "factor that brings the depth to the size of the hands, or of an object of known dimensions",
            0.67,
            1.5,
            cure=_UNIT,
        ),
        Metric(
            "depth_scale_errors",
            "median(abs(ln(scale)) / scale_error_share) FILTER (NOT scale_applied AND scale > 0 AND scale_error_share > 0)",
            "standard errors by which the depth contradicts the size of the hands, or of an object of known dimensions",
            maximum=3.0,
            cure=_UNIT,
        ),
    ),
    sample=(
        {
            "counts": bytes.fromhex("28b52ffd2008410000d000d00007000700"),
            "map_width": 2,
            "map_height": 2,
            "map_fx_px": 1.6,
            "map_fy_px": 2.1,
            "map_cx_px": 0.5,
            "map_cy_px": 0.5,
            "step_m": 0.0005,
            "valid_share": 1.0,
            "median_m": 0.5,
            "depth_source": "given",
            "scale": 1.02,
            "scale_source": "hands",
            "scale_error_share": 0.1,
            "scale_applied": False,
            "depth_error_share": 0.02,
            "hand_scale": 0.98,
            "hand_scale_error_share": 0.03,
            "fx_px": 500.0,
            "fy_px": 500.0,
            "cx_px": 319.5,
            "cy_px": 239.5,
            "lens_model": "pinhole",
            "distortion": [],
            "intrinsics_source": "file",
            "focal_error_share": 0.0,
            "metric": True,
        },
    ),
)
