"""Runs with rows in every table, without a video to decode: overlapping clips, hands and an object in each frame, files as the pipeline has them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.files.tables import make_provenance, read_table, write_table
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake import counted
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import intake
from egoworld_ops.release import place
from egoworld_ops.video.scenes import Scene, Window, windows

FPS = 30
FUSED = ("scaling", "shift_m", "speed_m_s", "measured_speed_m_s")
TRACKS, ROLES, HANDS = (1, 2, 10), ("hand_left", "hand_right", "object"), ("left", "right")


def write_video(
    run: Run,
    name: str,
    n_frames: int = 60,
    clip_s: float = 1.0,
    overlap_s: float = 0.2,
    seed: int = 0,
    sample_stride: int = 1,
    metric: bool = True,
) -> str:
    """A video of random, valid rows in all tables; returns its video_id. Another seed gives other rows, digests and times.

    Args:
        metric: false as of a video whose focal length is assumed.
    """
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    video_id = f"{name}-{sha256[:12]}"
    for window in _cut(n_frames, clip_s, overlap_s):
        write_clip(run, video_id, sha256, window, seed, sample_stride, metric)
    return write_manifest(run, name, n_frames, clip_s, overlap_s, seed)


def write_manifest(
    run: Run, name: str, n_frames: int = 60, clip_s: float = 1.0, overlap_s: float = 0.2, seed: int = 0, path: str | None = None
) -> str:
    """Only the manifest of such a video, whose raw file is at `path`; its clips' existing results are counted."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    video_id, cut = f"{name}-{sha256[:12]}", _cut(n_frames, clip_s, overlap_s)
    said = {"schema": schema.SCHEMA_VERSION, "video": sha256, "seed": seed}
    stamp = make_provenance(sha256_of(said), said, len(cut), 0.1, run.run_id)
    clips = schema.from_rows("clips", [_clip_row(video_id, window) for window in cut])
    row = video_row(video_id, sha256, n_frames) | ({"path": path} if path else {})
    write_table(run.video_table("clips", video_id), "clips", clips, stamp)
    write_table(run.video_table("videos", video_id), "videos", schema.from_rows("videos", [row]), stamp)
    counted.count(run, video_id)
    return video_id


def register_videos(run: Run) -> None:
    """Enter the videos of a run into the intake, without reading raw files."""
    videos = [read_table(path, "videos").to_pylist()[0] for path in sorted(run.path.glob("video_id=*/videos.parquet"))]
    said = [{name: row[name] for name in ("path", "video_id", "sha256", "bytes")} for row in videos]
    intake.update(run.lake, [row | {"status": "registered", "mtime_ns": 1} for row in said])
    intake.lake_id(run.lake)


def _cut(n_frames: int, clip_s: float, overlap_s: float) -> list[Window]:
    starts_s = np.arange(n_frames) / FPS
    scene = Scene(0, 0, n_frames, None, "whole_video", "no cut")
    return list(windows(scene, starts_s, starts_s + 1 / FPS, clip_s, overlap_s))


def write_clip(run: Run, video_id: str, sha256: str, window: Window, seed: int, sample_stride: int = 1, metric: bool = True) -> None:
    """The tables of one clip, each with an identity as planning makes it."""
    rng = np.random.default_rng([int(sha256[:8], 16), window.frame_start, seed])
    digests: dict[str, str] = {}
    frames = np.array([i for i in range(window.frame_start, window.frame_end) if i % sample_stride == 0])
    for stage, description in operators.stages().items():
        rows = stage_rows(stage, video_id, window.clip_id, frames, rng)
        if not metric and "metric" in rows.schema.names:
            at = rows.schema.get_field_index("metric")
            rows = rows.set_column(at, rows.schema.field(at), pa.repeat(pa.scalar(False), rows.num_rows))
        identity = {
            "schema": schema.SCHEMA_VERSION,
            "operator": {"stage": stage, "backend": "test", "version": str(seed)},
            "video": sha256,
            "frames": [window.frame_start, window.frame_end],
            "sample_stride": sample_stride,
            "inputs": {name: digests[name] for name in description.inputs},
        }
        digests[stage] = sha256_of(identity)
        stamp = make_provenance(digests[stage], identity, rows.num_rows, 0.5, run.run_id)
        write_table(run.clip_table(stage, video_id, window.clip_id), stage, rows, stamp, validated=True)


def video_row(video_id: str, sha256: str, n_frames: int) -> dict[str, Any]:
    """A usable video."""
    row = {"video_id": video_id, "path": f"/raw/{video_id}.mp4", "sha256": sha256, "bytes": 1000, "status": "ok", "damaged": False}
    row |= {"duration_s": n_frames / FPS, "fps_num": FPS, "fps_den": 1, "vfr": False, "n_frames": n_frames, "width": 640, "height": 480}
    row |= {"stored_width": 640, "stored_height": 480, "mirrored": False} | {
        f"crop_{edge}_px": 0 for edge in ("left", "top", "right", "bottom")
    }
    return row | {
        "rotation_deg": 0,
        "codec": "h264",
        "pix_fmt": "yuv420p",
        "color_range": "limited",
        "audio_streams": 0,
        "split": "train",
        "recording": sha256[:16],
    }


def _clip_row(video_id: str, window: Window) -> dict[str, Any]:
    names = ("clip_id", "frame_start", "frame_end", "own_start", "own_end", "start_s", "end_s", "overlap_s")
    row = {name: getattr(window, name) for name in names}
    return row | {"video_id": video_id, "scene_index": 0, "method": "whole_video", "fallback_reason": "no cut"}


def stage_rows(stage: str, video_id: str, clip_id: str, frames: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Valid rows of a stage for these frames: both hands and one object in each of them."""
    each = {"detections": 3, "masks": 3, "hand_pose": 2, "fusion": 2, "mapping": 2, "object_pose": 1, "movement": 1}.get(stage)
    if each is None:
        return _sample_rows(stage, video_id, clip_id, frames)
    n = len(frames) * each
    index = np.repeat(frames, each)
    columns: dict[str, Any] = {
        "video_id": video_id,
        "clip_id": clip_id,
        "frame_index": index,
        "timestamp_s": index / FPS,
        "sample_stride": 1,
    }
    columns |= {"backend": "test", "score": rng.random(n), "observed": True, **_COLUMNS[stage](n, rng)}
    contract = schema.table(stage)
    return pa.Table.from_arrays([_array(columns.get(c.name), c.type, n) for c in contract.columns], schema=contract.arrow_schema())


def _sample_rows(stage: str, video_id: str, clip_id: str, frames: np.ndarray) -> pa.Table:
    """The rows that a stage of a package declares as samples, in each frame."""
    rows = [
        {
            "video_id": video_id,
            "clip_id": clip_id,
            "frame_index": int(i),
            "timestamp_s": i / FPS,
            "sample_stride": 1,
            "backend": "test",
            **row,
        }
        for i in frames
        for row in operators.stages()[stage].sample
    ]
    return schema.from_rows(stage, rows)


def _things(n: int, rng: np.random.Generator) -> dict[str, Any]:
    return {"track_id": np.tile(TRACKS, n // 3), "role": np.tile(ROLES, n // 3)}


def _detections(n: int, rng: np.random.Generator) -> dict[str, Any]:
    points = {"points_px": _walk(rng, n, 42, 0.5) + 300, "landmarks_m": _walk(rng, n, 63, 1e-3), "box_px": _walk(rng, n, 4, 0.5) + 300}
    return _things(n, rng) | points | {"source": "tracked"}


def _masks(n: int, rng: np.random.Generator) -> dict[str, Any]:
    lengths = rng.integers(200, 500, n)
    letters = (rng.integers(0, 40, lengths.sum()) + 48).astype(np.uint8).tobytes()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    counts = pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(letters))
    size = pa.FixedSizeListArray.from_arrays(pa.array(np.tile([480, 640], n), pa.int32()), 2)
    rle = pa.StructArray.from_arrays([size, counts], fields=list(schema.RLE))
    shape = {"rle": rle, "mask_scale": 1.0, "bbox_px": _walk(rng, n, 4, 0.5) + 300, "area_px": rng.integers(1, 50_000, n)}
    return _things(n, rng) | shape


def _pose(n: int, rng: np.random.Generator) -> dict[str, Any]:
    q = rng.normal(size=(n, 4))
    q *= np.sign(q[:, :1]) / np.linalg.norm(q, axis=1, keepdims=True)
    position = _walk(rng, n, 3, 1e-3) + np.array([0, 0, 0.5])
    intrinsics: dict[str, Any] = {"fx_px": 500.0, "fy_px": 500.0, "cx_px": 319.5, "cy_px": 239.5}
    intrinsics |= {"lens_model": "pinhole", "distortion": [], "intrinsics_source": "file"}
    intrinsics |= {"focal_error_share": 0.0, "depth_error_share": 0.1, "metric": True}
    return {f"q{a}": q[:, i] for i, a in enumerate("wxyz")} | {f"{a}_m": position[:, i] for i, a in enumerate("xyz")} | intrinsics


def _hand_pose(n: int, rng: np.random.Generator) -> dict[str, Any]:
    joints = {"joints_px": _walk(rng, n, 42, 0.5), "joints_m": _walk(rng, n, 63, 1e-3), "joints_wrist_m": _walk(rng, n, 63, 1e-3)}
    return _pose(n, rng) | joints | {"hand": np.tile(HANDS, n // 2), "reprojection_px": rng.random(n)}


def _fusion(n: int, rng: np.random.Generator) -> dict[str, Any]:
    joints = {"joints_m": _walk(rng, n, 63, 1e-3), "joints_wrist_m": _walk(rng, n, 63, 1e-3)}
    said = {"hand": np.tile(HANDS, n // 2), "track": 0, "size_source": "network"}
    return _pose(n, rng) | joints | said | {name: rng.random(n) for name in FUSED}


def _object_pose(n: int, rng: np.random.Generator) -> dict[str, Any]:
    said = {"scale_source": "hand", "method": "tracked", "inliers": rng.integers(8, 90, n), "converged": True, "track_id": 10}
    return _pose(n, rng) | said | {"reprojection_px": rng.random(n)}


def _movement(n: int, rng: np.random.Generator) -> dict[str, Any]:
    speeds = {name: rng.normal(size=n) for name in ("vx_m_s", "vy_m_s", "vz_m_s")}
    return speeds | {
        "track_id": 10,
        "speed_background_m_s": rng.random(n),
        "state": "moving",
        "held_by": "left",
        "hold_score": rng.random(n),
        "metric": True,
    }


def _mapping(n: int, rng: np.random.Generator) -> dict[str, Any]:
    lists = {"joint_names": [f"joint_{i}.0" for i in range(16)], "at_limit": [False] * 16}
    repeated = {k: pa.ListArray.from_arrays(np.arange(0, 16 * n + 1, 16, np.int32), pa.array(v * n)) for k, v in lists.items()}
    angles = pa.ListArray.from_arrays(np.arange(0, 16 * n + 1, 16, np.int32), pa.array(_walk(rng, n, 16, 1e-3).ravel()))
    return (
        _pose(n, rng)
        | repeated
        | {"qpos_rad": angles, "hand": np.tile(HANDS, n // 2), "robot": "allegro", "residual_m": rng.random(n), "converged": True}
    )


def _walk(rng: np.random.Generator, n: int, width: int, step: float) -> np.ndarray:
    """(n, width) float64: random walks, like measurements of moving things."""
    return np.cumsum(rng.normal(0, step, (n, width)), 0)


_COLUMNS: Mapping[str, Any] = {
    "detections": _detections,
    "masks": _masks,
    "hand_pose": _hand_pose,
    "fusion": _fusion,
    "object_pose": _object_pose,
    "movement": _movement,
    "mapping": _mapping,
}


def _array(values: Any, kind: pa.DataType, n: int) -> pa.Array:
    if values is None:
        return pa.nulls(n, kind)
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if not isinstance(values, np.ndarray):
        return pa.repeat(pa.scalar(values, kind), n)
    return (
        _nested(values.ravel(), kind)
        if pa.types.is_fixed_size_list(kind)
        else pa.array(values.tolist() if values.dtype.kind == "U" else values).cast(kind)
    )


def _nested(flat: np.ndarray, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(flat).cast(kind)
    return pa.FixedSizeListArray.from_arrays(_nested(flat, kind.value_type), kind.list_size)


def fail(run: Run, video_id: str, clip_id: str, stage: str) -> None:
    """Put a failure in the place of a result."""
    row = {"video_id": video_id, "clip_id": clip_id, "stage": stage, "backend": "test", "error_class": "CorruptVideo", "reason": "broken"}
    row |= {"culprit": "the clip", "cure": "mend it", "retryable": False, "attempts": 1, "dead_letter": True, "traceback": ""}
    stamp = make_provenance("f", {}, 1, 0, run.run_id)
    write_table(run.failure(stage, video_id, clip_id), "failures", schema.from_rows("failures", [row]), stamp)
    run.clip_table(stage, video_id, clip_id).unlink()
    counted.count(run, video_id, [clip_id])


def files_of_release(run: Run) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file of a release, by its place in it."""
    folder = place.folder(run)
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
