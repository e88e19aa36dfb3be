"""The tables of the data contract that belong to no stage: of videos, clips, failures and states, and of the whole lake."""

from __future__ import annotations

import pyarrow as pa

from egoworld_ops.contract.columns import Column, Table, clip_id, video_id
from egoworld_ops.types import LENS_MODELS
from egoworld_ops.verdict_words import VERDICT_WORDS


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
        Column("verdict", pa.string(), "what was said", allowed=VERDICT_WORDS),
        Column("why", pa.string(), "in the judge's words", nullable=True),
        Column("judge", pa.string(), "by whom"),
        Column("judged_at", pa.timestamp("ms", "UTC"), "when"),
        Column("results", pa.string(), "SHA-256 over the digests of the clip's results that counted then: of others nothing was said"),
    ),
)

OWN_TABLES = (VIDEOS, CLIPS, FAILURES, STATES, METRICS, INTAKE, VERDICTS)
"""The tables that belong to no stage of `egoworld_ops.operators`; those of stages are declared with their stage."""
