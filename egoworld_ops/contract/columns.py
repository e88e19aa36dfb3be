"""What a column and a table of the data contract are, the conventions that hold in all of them, and the columns that tables share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from egoworld_ops.contract.reasons import CURES
from egoworld_ops.types import INTRINSICS_SOURCES, LENS_MODELS

SCHEMA_VERSION = "10"
"""Raised whenever the meaning, type or unit of a column changes. Part of every digest."""

CONVENTIONS: Mapping[str, str] = {
    "camera_frame": "OpenCV: right-handed, x right, y down, z forward, metres",
    "transforms": "T_dst_src maps points of src to dst: p_dst = R(q) p_src + t",
    "quaternions": "columns qw, qx, qy, qz; unit norm; qw >= 0",
    "pixels": "x right, y down; the centre of the top-left pixel is (0, 0); upright image of square pixels: crop, pixel aspect and rotation applied",
    "boxes": "[x, y, width, height] in pixels, as COCO",
    "masks": "COCO RLE: size [h, w], column-major, counts as ASCII",
    "hand_joints": "21, OpenPose order: wrist; thumb CMC MCP IP TIP; index MCP PIP DIP TIP; middle; ring; little",
    "wrist_frame": (
        "MANO wrist frame as dex-retargeting has it: origin at the wrist; z from the wrist to the middle finger's MCP; y in the plane of "
        "wrist, index MCP and middle MCP, across z, towards the index finger on a right hand and away from it on a left one; "
        "x = y cross z, out of the palm on both"
    ),
    "hand": "left or right of the person, never of a mirrored image",
    "time": "timestamp_s is the container's PTS in seconds; frame_index counts decoded frames of the raw video",
    "metric": (
        "lengths in the camera's frame grow with its focal length; where that is assumed the row says metric = false, and exports and releases "
        "leave these lengths out. Sizes in the frames hand, wrist, object and robot do not depend on it"
    ),
    "missing": "a value that does not exist is null and `reason` says why; nothing is padded or repeated",
}

PARTITION_KEYS = ("video_id", "clip_id")


def fixed_list(item: pa.DataType, *shape: int) -> pa.DataType:
    """An Arrow type: lists of these fixed lengths, outermost first."""
    for n in reversed(shape):
        item = pa.list_(item, n)
    return item


BOX = fixed_list(pa.float32(), 4)
POINTS_2D = fixed_list(pa.float32(), 21, 2)
POINTS_3D = fixed_list(pa.float32(), 21, 3)
RLE = pa.struct([pa.field("size", fixed_list(pa.int32(), 2)), pa.field("counts", pa.string())])


@dataclass(frozen=True, slots=True)
class Column:
    """One column: Arrow type, meaning, unit, frame, and the values it may take (`minimum`/`maximum` are inclusive).

    `length` is that of each list, where they are long and mostly null: in a list of fixed size a null takes the room of all its values.
    """

    name: str
    type: pa.DataType
    doc: str
    unit: str = ""
    frame: str = ""
    nullable: bool = False
    allowed: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    length: int | None = None

    @property
    def rests_on_focal_length(self) -> bool:
        """Whether it holds lengths or speeds that are wrong by a factor where the focal length is."""
        return (self.unit == "m" or self.unit.startswith("m/")) and self.frame not in _FRAMES_OF_THINGS

    def field(self) -> pa.Field:
        """The Arrow field, with doc, unit and frame as its metadata."""
        described = {"doc": self.doc, "unit": self.unit, "frame": self.frame}
        return pa.field(self.name, self.type, self.nullable, {k: v for k, v in described.items() if v})


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns, the columns that identify a row (also the order of rows), and what a row stands for."""

    name: str
    doc: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        if len(set(names)) != len(names) or not set(self.key) <= set(names):
            raise ValueError(f"table {self.name}: repeated column, or key {self.key} not among {names}")

    @property
    def assumed_lengths(self) -> tuple[str, ...]:
        """The columns that are not metric in a row with `metric = false`; none where the table has no such column."""
        if all(c.name != METRIC.name for c in self.columns):
            return ()
        return tuple(c.name for c in self.columns if c.rests_on_focal_length)

    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema with field metadata (doc, unit, frame) and the conventions."""
        if self.name not in _ARROW_SCHEMAS:
            _ARROW_SCHEMAS[self.name] = pa.schema(
                [c.field() for c in self.columns],
                {"egoworld.table": self.name, "egoworld.schema_version": SCHEMA_VERSION}
                | {f"egoworld.convention.{k}": v for k, v in CONVENTIONS.items()},
            )
        return _ARROW_SCHEMAS[self.name]


_FRAMES_OF_THINGS = ("hand", "wrist", "object", "robot")
"""Frames in which sizes are known by other means than the picture's scale."""
_ARROW_SCHEMAS: dict[str, pa.Schema] = {}
"""Built once: every file that is read or written asks for one."""


def video_id() -> Column:
    """The column that names the video."""
    return Column("video_id", pa.string(), "slug of the file's name + first 12 hex digits of its SHA-256")


def clip_id() -> Column:
    """The column that names the clip."""
    return Column("clip_id", pa.string(), "identifier of the clip within its video, from its first frame and length")


def per_frame(*columns: Column) -> tuple[Column, ...]:
    """The columns every per-frame table starts with, and those it ends with."""
    return (
        video_id(),
        clip_id(),
        Column("frame_index", pa.int64(), "decoded frame of the raw video", minimum=0),
        Column("timestamp_s", pa.float64(), "presentation time from the container's PTS", "s"),
        Column("sample_stride", pa.int32(), "frames from one processed frame to the next", "frames", minimum=1),
        *columns,
        Column("backend", pa.string(), "the backend that made this row"),
    )


def pose(frame: str, what: str) -> tuple[Column, ...]:
    """The columns of an SE(3) pose in `frame`: unit quaternion and position in metres."""
    q = [
        Column(f"q{a}", pa.float64(), f"orientation of {what}, {a} of the unit quaternion", "", frame, True, minimum=-1, maximum=1)
        for a in "wxyz"
    ]
    p = [Column(f"{a}_m", pa.float64(), f"position of {what}, {a}", "m", frame, True) for a in "xyz"]
    return (*q, *p)


def hand_in_camera() -> tuple[Column, ...]:
    """The columns of a hand's 21 joints and its wrist, in the camera frame."""
    of_wrist = "joints in the wrist frame: joints_m = R(q) joints_wrist_m + (x_m, y_m, z_m)"
    return (
        Column("joints_m", POINTS_3D, "joints in the camera frame", "m", "camera", True),
        Column("joints_wrist_m", POINTS_3D, of_wrist, "m", "wrist", True),
        *pose("camera", "the wrist frame (T_camera_wrist)"),
    )


def reason(what: str) -> Column:
    """Why `what` is null."""
    return Column("reason", pa.string(), f"why {what} is null; null where it is not", nullable=True)


def reason_class() -> Column:
    """The kind of reason, beside `reason`."""
    return Column(
        "reason_class", pa.string(), "the kind of reason, for counting; null where `reason` is", nullable=True, allowed=tuple(CURES)
    )


ROLE = Column("role", pa.string(), "what the row is about", allowed=("hand_left", "hand_right", "object"))
HAND = Column("hand", pa.string(), "the person's own hand", allowed=("left", "right"))
SCORE = Column("score", pa.float32(), "confidence of the backend", "", "", True, minimum=0, maximum=1)
OBSERVED = Column("observed", pa.bool_(), "true where seen in this frame; false where carried or interpolated")
TRACK = Column(
    "track_id", pa.int32(), "identity within the clip; hand_left is 1, hand_right is 2, other hands are 3 to 9, objects from 10", minimum=1
)
LABEL = Column("label", pa.string(), "name of the thing, where known", nullable=True)
INTRINSICS_CURE = (
    "Give the camera's intrinsics: `egoworld calibrate import FILE VIDEO`, or the camera section of VIDEO.egoworld.json; or estimate them where the "
    "camera walks: `egoworld calibrate estimate VIDEO`"
)
"""What to do where they are assumed."""
METRIC = Column(
    "metric",
    pa.bool_(),
    "false where lengths (m, m/s) in the camera's frame rest on an assumed focal length: right up to an unknown factor",
)
DEPTH_ERROR = Column(
    "depth_error_share",
    pa.float64(),
    "standard error of z_m as a share of it, if the pose is right: of focal length, size and image points together",
    nullable=True,
    minimum=0,
)
INTRINSICS = (
    Column("fx_px", pa.float64(), "focal length used, x", "px"),
    Column("fy_px", pa.float64(), "focal length used, y", "px"),
    Column("cx_px", pa.float64(), "principal point used, x", "px"),
    Column("cy_px", pa.float64(), "principal point used, y", "px"),
    Column("lens_model", pa.string(), "model of the lens used, as in the sidecar", allowed=tuple(LENS_MODELS)),
    Column("distortion", pa.list_(pa.float64()), "coefficients of that model, in the sidecar's order; none of a pinhole"),
    Column("intrinsics_source", pa.string(), "where the intrinsics come from", allowed=INTRINSICS_SOURCES),
    Column(
        "focal_error_share",
        pa.float64(),
        "standard error of the focal length as a share of it; 0.03 where the sidecar gives a camera without one",
        minimum=0,
    ),
    METRIC,
)
