"""THE data contract: every table, column, type, unit and frame. Parquet schemas, checks, the docs page and the UI derive from it.

Belongs here: what a column means and what values it may take, and the columns that tables share. Does not belong here: the tables of stages,
which are declared with their stage (`operators/<stage>/__init__.py`, or a package that brings one); how a value is computed or where it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import gathered
from egoworld_ops.contract.reasons import CURES
from egoworld_ops.errors import ContractError
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


def _error_columns(nullable: bool) -> tuple[Column, ...]:
    return (
        Column("error_class", pa.string(), "class of the error", nullable=nullable),
        Column("reason", pa.string(), "what is wrong", nullable=nullable),
        Column("cure", pa.string(), "what a person can do about it", nullable=nullable),
    )


STEREO_MODES = (
    *("mono", "side_by_side", "top_bottom", "frame_alternate", "checkerboard", "side_by_side_quincunx", "interleaved_lines"),
    *("interleaved_columns", "unspecified"),
)
"""In the order of libav's AVStereo3DType."""
PROJECTIONS = (
    *("equirectangular", "cubemap", "tiled_equirectangular", "half_equirectangular", "rectilinear", "fisheye", "parametric_immersive"),
    "unspecified",
)
"""In the order of libav's AVSphericalProjection."""
_PICTURE = (
    Column("stored_width", pa.int32(), "width of the picture as it is stored", "px", "", True, minimum=1),
    Column("stored_height", pa.int32(), "height of the picture as it is stored", "px", "", True, minimum=1),
    Column("sample_aspect_ratio_num", pa.int64(), "width over height of a stored pixel, numerator; null where not said", "", "", True),
    Column("sample_aspect_ratio_den", pa.int64(), "width over height of a stored pixel, denominator; null where not said", "", "", True),
    *(
        Column(
            f"crop_{edge}_px", pa.int32(), f"stored pixels that are not shown, at the stored picture's {edge}", "px", "", True, minimum=0
        )
        for edge in ("left", "top", "right", "bottom")
    ),
    Column("mirrored", pa.bool_(), "left and right of the stored picture are swapped to show it", nullable=True),
    Column(
        "field_order",
        pa.string(),
        "progressive, or the order of fields (first stored, first shown; top or bottom); `interlaced` where the order is not said",
        "",
        "",
        True,
        ("progressive", "tt", "bb", "tb", "bt", "interlaced"),
    ),
    Column("interlaced_frames", pa.int64(), "frames marked as interlaced; both fields are shown at once", "frames", "", True, minimum=0),
    Column("color_space", pa.string(), "colour matrix (ITU-T H.273, ffprobe's name)", nullable=True),
    Column("color_primaries", pa.string(), "colour primaries", nullable=True),
    Column(
        "color_transfer", pa.string(), "transfer: smpte2084 (PQ) and arib-std-b67 (HLG) are HDR, shown without tone mapping", nullable=True
    ),
    Column("stereo_mode", pa.string(), "views packed into one picture; null where not said", "", "", True, STEREO_MODES),
    Column("projection", pa.string(), "projection of a spherical picture; null where not said", "", "", True, PROJECTIONS),
    Column("n_video_tracks", pa.int32(), "video streams with moving pictures", "", "", True, minimum=1),
    Column(
        "focal_35mm_mm",
        pa.float64(),
        "35 mm equivalent focal length that the container states (Apple's camera.focal_length.35mm_equivalent)",
        "mm",
        "",
        True,
        minimum=0,
    ),
    Column(
        "lens_focal_per_diagonal",
        pa.float64(),
        "focal length over the diagonal of the stored picture, of the lens that the container states (GoPro's GPMF); null where it states none",
        "",
        "",
        True,
        minimum=0,
    ),
    Column("lens_model", pa.string(), "model of that lens", "", "", True, tuple(LENS_MODELS)),
    Column("lens_distortion", pa.list_(pa.float64()), "coefficients of that model, in the sidecar's order", "", "", True),
    Column("lens_error_share", pa.float64(), "standard error of that focal length as a share of it", "", "", True, minimum=0),
    Column("video_track", pa.int32(), "index of the stream that is used: the largest picture that decodes", "", "", True, minimum=0),
)

VIDEOS = Table(
    "videos",
    "One raw video file, as probed. A file that cannot be used is a row with status `rejected` and a reason.",
    ("video_id",),
    (
        video_id(),
        Column("path", pa.string(), "path of the raw file when it was probed"),
        Column("sha256", pa.string(), "SHA-256 of the file's content, hex"),
        Column("bytes", pa.int64(), "size of the file", "B", minimum=0),
        Column("status", pa.string(), "whether the video can be processed", allowed=("ok", "rejected")),
        *_error_columns(nullable=True),
        Column("warning", pa.string(), "what is odd about a usable file (truncated tail, ...)", nullable=True),
        Column(
            "damaged",
            pa.bool_(),
            "frames are missing or broken: decoded by one thread from the start, so that pixels are always the same",
            nullable=True,
        ),
        Column("duration_s", pa.float64(), "last frame's end minus first frame's start", "s", "", True, minimum=0),
        Column("fps_num", pa.int64(), "frame rate, numerator", "", "", True, minimum=1),
        Column("fps_den", pa.int64(), "frame rate, denominator", "", "", True, minimum=1),
        Column("vfr", pa.bool_(), "variable frame rate: the PTS are not evenly spaced", nullable=True),
        Column("n_frames", pa.int64(), "frames that decode", "frames", "", True, minimum=1),
        Column(
            "n_frames_expected",
            pa.int64(),
            "frames that the container lists or holds packets of; null where it promises only a length, and more than decodes",
            "frames",
            "",
            True,
            minimum=1,
        ),
        Column(
            "decoded_share",
            pa.float64(),
            "share that decodes of the frames, or the length, that the container promises",
            "",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        Column("width", pa.int32(), "width shown: after crop, pixel aspect and rotation", "px", "", True, minimum=1),
        Column("height", pa.int32(), "height shown: after crop, pixel aspect and rotation", "px", "", True, minimum=1),
        Column("rotation_deg", pa.int32(), "clockwise turn applied to show the picture upright", "deg", "", True, minimum=0, maximum=270),
        Column("codec", pa.string(), "video codec", nullable=True),
        Column("pix_fmt", pa.string(), "pixel format of the decoder", nullable=True),
        Column("color_range", pa.string(), "range of the samples", "", "", True, ("limited", "full", "unspecified")),
        *_PICTURE,
        Column("audio_streams", pa.int32(), "number of audio streams", "", "", True, minimum=0),
        Column("recording", pa.string(), "parts and copies of one recording share it: from the sidecar, the name, or else the content"),
        Column(
            "split",
            pa.string(),
            "train, val or test: by hash of the recording, so that its parts and copies fall together",
            "",
            "",
            False,
            ("train", "val", "test"),
        ),
    ),
)

CLIPS = Table(
    "clips",
    "One clip: frames [frame_start, frame_end) of a video, of which [own_start, own_end) belong to it alone.",
    ("video_id", "clip_id"),
    (
        video_id(),
        clip_id(),
        Column("frame_start", pa.int64(), "first frame", "frames", minimum=0),
        Column("frame_end", pa.int64(), "one past the last frame", "frames", minimum=1),
        Column("own_start", pa.int64(), "first owned frame", "frames", minimum=0),
        Column("own_end", pa.int64(), "one past the last owned frame", "frames", minimum=1),
        Column("start_s", pa.float64(), "PTS of the first frame", "s"),
        Column("end_s", pa.float64(), "PTS of the last frame plus one frame's duration", "s"),
        Column("overlap_s", pa.float64(), "time shared with the clip before", "s", minimum=0),
        Column("scene_index", pa.int32(), "scene (between two cuts) the clip lies in", minimum=0),
        Column("cut_score", pa.float64(), "detector's score of the cut the scene starts at; null at the start of the video", nullable=True),
        Column("method", pa.string(), "how the cut was found", allowed=("adaptive", "content", "threshold", "dissolve", "whole_video")),
        Column("fallback_reason", pa.string(), "why the whole video is one scene, where detection failed or found no cut", nullable=True),
    ),
)

FAILURES = Table(
    "failures",
    "One clip that one stage could not process.",
    ("video_id", "clip_id", "stage"),
    (
        video_id(),
        clip_id(),
        Column("stage", pa.string(), "stage that failed"),
        Column("backend", pa.string(), "backend that failed"),
        Column("culprit", pa.string(), "what is at fault: a file, a clip, a setting, a weight"),
        *_error_columns(nullable=False),
        Column("retryable", pa.bool_(), "whether the same call may succeed later"),
        Column("attempts", pa.int32(), "how often it was tried", minimum=1),
        Column("dead_letter", pa.bool_(), "true where it is not tried again until a person redrives it, or what it depends on changes"),
        Column("frame_index", pa.int64(), "the last frame the operator had taken, where it had taken one", "", "", True, minimum=0),
        Column("traceback", pa.string(), "where it happened, innermost frames"),
    ),
)

STATES = Table(
    "states",
    "What one clip is in one stage, and whether its rows count: the views show the rows of those that are `done` and nothing else. "
    "Derived from the files of the video; it may say less than they do for a moment, and never more.",
    ("video_id", "clip_id", "stage"),
    (
        video_id(),
        Column("clip_id", pa.string(), "the clip; empty for the stage `manifest`, which is of whole videos"),
        Column("stage", pa.string(), "the stage, `manifest` included"),
        Column(
            "state",
            pa.string(),
            "done: the result counts; stale: it was made from inputs other than those that count now; failed: a failure is on record and "
            "nothing stands in for it (`manifest`: the video was rejected); blocked: an input is not done; missing: nothing is there; "
            "damaged: what is there is no whole file of the lake; unreadable: what is there could not be read when it was looked at; "
            "pending: its result is being replaced, or was to be",
            allowed=("done", "stale", "failed", "blocked", "missing", "damaged", "unreadable", "pending"),
        ),
        Column("digest", pa.string(), "digest of the table that is there, whether it counts or not", nullable=True),
        Column("rows", pa.int64(), "rows of the table that is there; clips for the stage `manifest`", "", "", True, minimum=0),
        Column("error_class", pa.string(), "class of the failure on record, also where a fallback backend stands in", nullable=True),
        Column("dead_letter", pa.bool_(), "whether that failure waits for a person; null where none is on record", nullable=True),
    ),
)

METRICS = Table(
    "metrics",
    "One number about one clip, or about a whole video, in one stage: a quality metric, or a column's mean with its distribution. Derived from the "
    "files of the video when they are judged; the views show those of files that count and are as they were then.",
    ("video_id", "clip_id", "stage", "metric"),
    (
        video_id(),
        Column("clip_id", pa.string(), "the clip; empty for the whole video"),
        Column("stage", pa.string(), "the stage, `manifest` included"),
        Column("metric", pa.string(), "name of the metric, with its unit; of a column, its name and `.mean`"),
        Column("value", pa.float64(), "its value: of a column, the mean; null where nothing can be said", nullable=True),
        Column("rows", pa.int64(), "rows that were looked at; of a column, those that have a number", minimum=0),
        Column("digest", pa.string(), "digest of the clip's table; null for a whole video, whose clips have theirs", nullable=True),
        Column("computed_at", pa.timestamp("ms", "UTC"), "when the result, of a video the last one, was computed", nullable=True),
        Column(
            "sketch",
            pa.list_(pa.struct([pa.field("bucket", pa.int32()), pa.field("count", pa.int64())])),
            "distribution of a column over the whole video; counts of equal buckets add up over videos. Bucket 0 holds zero, bucket k > 0 values in "
            "(g^(k-40001), g^(k-40000)] with g = 1.01 / 0.99, and -k those of the other sign; null for a metric",
            nullable=True,
        ),
    ),
)

INTAKE = Table(
    "intake",
    "One entry of the raw folder, and what became of it.",
    ("path",),
    (
        Column(
            "path",
            pa.string(),
            "absolute path, escaped where it is not UTF-8 and then never registered; or the key of a partition that stands for no file",
        ),
        Column("video_id", pa.string(), "the video it was registered as, or is a copy of", nullable=True),
        Column("status", pa.string(), "what became of it", allowed=("registered", "duplicate", "rejected", "unstable", "forgotten")),
        Column("sha256", pa.string(), "SHA-256 of the content, hex; null where it was not read", nullable=True),
        Column("bytes", pa.int64(), "size of the file", "B", "", True, minimum=0),
        Column("mtime_ns", pa.int64(), "time of the last change, as the file system has it", "ns", "", True),
        *_error_columns(nullable=True),
    ),
)


VERDICTS = Table(
    "verdicts",
    "What a person said of a clip, or of some of its frames. Rows are added, never changed: a later one of a judge takes the place of an earlier.",
    ("verdict_id",),
    (
        Column("verdict_id", pa.string(), "sorts by time: milliseconds since 1970 in 12 hex digits, a dash, 12 more at random"),
        Column("run_id", pa.string(), "the run whose results were looked at"),
        video_id(),
        Column("clip_id", pa.string(), "the clip"),
        Column("frame_start", pa.int64(), "first frame that is meant; null for the whole clip", "frames", "", True, minimum=0),
        Column("frame_end", pa.int64(), "one past the last frame that is meant; null for the whole clip", "frames", "", True, minimum=1),
        Column("verdict", pa.string(), "what was said", allowed=("good", "bad", "unsure")),
        Column("why", pa.string(), "in the judge's words", nullable=True),
        Column("judge", pa.string(), "by whom"),
        Column("judged_at", pa.timestamp("ms", "UTC"), "when"),
        Column("results", pa.string(), "SHA-256 over the digests of the clip's results that counted then: of others nothing was said"),
    ),
)

OWN_TABLES = (VIDEOS, CLIPS, FAILURES, STATES, METRICS, INTAKE, VERDICTS)
"""The tables that belong to no stage of `egoworld_ops.operators`; those of stages are declared with their stage."""


class _Tables(Mapping[str, Table]):
    """All tables by name, in the order of the chain. The stages' are gathered when it is first looked into."""

    def __getitem__(self, name: str) -> Table:
        return _tables()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_tables())

    def __len__(self) -> int:
        return len(_tables())


TABLES: Mapping[str, Table] = _Tables()


@cache
def _tables() -> dict[str, Table]:
    of_stages = [stage.table for stage in gathered.stages().values()]
    return {t.name: t for t in (VIDEOS, CLIPS, *of_stages, FAILURES, STATES, METRICS, INTAKE, VERDICTS)}


def table(name: str) -> Table:
    """The table of that name, or the contract of a view's rows; KeyError names the known tables."""
    if name in TABLES:
        return TABLES[name]
    try:
        found: Table = gathered.views()[name].table
        return found
    except KeyError:
        raise KeyError(f"no table {name!r} in the data contract; there are {', '.join(TABLES)}") from None


def from_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build a table from row mappings, in the contract's types and sorted by its key.

    numpy arrays are taken as nested lists; a missing nullable column becomes null.

    Raises:
        ContractError: an unknown column, a missing value, or a value of the wrong type or shape.
    """
    contract = table(name)
    known = {c.name for c in contract.columns}
    for row in rows:
        if unknown := row.keys() - known:
            raise broken(name, f"no column {sorted(unknown)}")
    columns = {column: [_plain(row.get(column)) for row in rows] for column in known}
    schema = contract.arrow_schema()
    try:
        built = pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise broken(name, str(error)) from error
    return sort(name, built)


def sort(name: str, rows: pa.Table) -> pa.Table:
    """Rows in the contract's order."""
    return rows.sort_by([(k, "ascending") for k in table(name).key]) if rows.num_rows > 1 else rows


def empty(name: str) -> pa.Table:
    """No rows, typed: what a stage returns that found nothing."""
    return table(name).arrow_schema().empty_table()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def broken(name: str, reason: str) -> ContractError:
    """The error of rows that are not as table `name` wants them."""
    return ContractError(f"table {name}", reason, "Mend the operator that made it, or delete the file: it is made anew")
