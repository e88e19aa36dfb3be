"""The stage `manifest`: from a raw file to its rows of `videos` and `clips`. The file is decoded once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.errors import InputError, UnstableFile
from egoworld_ops.types import Clip, StatedLens
from egoworld_ops.video.containers import check_name, hash_file, open_regular, storable
from egoworld_ops.video.indexing import IndexMaker
from egoworld_ops.video.picture import layout_of
from egoworld_ops.video.probing import probe
from egoworld_ops.video.recordings import of_content
from egoworld_ops.video.scenes import Scene, SceneScores, find_scenes, frame_ends, windows
from egoworld_ops.video.settings import SceneSettings
from egoworld_ops.video.survey import VideoProbe

VERSION = "9"
"""Increased whenever the same file and settings give other tables. Part of the digest."""

_VAL_OF_100, _TEST_OF_100 = 10, 10
_OF_CONTENT = re.compile(r"[0-9a-f]{16}")


def make_manifest(
    path: str | Path,
    video_id: str,
    sha256: str,
    settings: SceneSettings,
    threads: int = 0,
    recording: str = "",
    as_pinhole: bool = False,
    index: IndexMaker | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Tables `videos` (one row) and `clips` of a raw file.

    A file whose content is no usable video gives a row with status `rejected`, its reason and cure, and no clips.

    Args:
        path: the file.
        video_id: its identifier.
        sha256: SHA-256 of its content at registration, hex.
        settings: detector and windows.
        threads: decoder threads; 0 means one per core.
        recording: the name that its parts and copies share; empty if it is a recording of its own.
        as_pinhole, index: as for `probe`.

    Raises:
        NotAVideo: the file is not there, may not be read, is not a regular file, or has a name that no table can hold.
        UnstableFile: it holds other content than when it was registered, or changed or went away meanwhile.
        TransientError: the disk did not answer, or memory ran out. Like the other errors, it says nothing about the registered content.
    """
    path = Path(path)
    check_name(path)
    scores = SceneScores(settings.detector, settings.dissolves)
    with open_regular(path):  # so that the bytes decoded are the bytes hashed
        found, size = hash_file(path)
        if found != sha256:
            raise UnstableFile(path, f"holds other content than when it was registered (SHA-256 {found[:12]})", "Register it again")
        seen = _probe_or_refusal(path, scores, threads, as_pinhole, index)
    identity = _identity(path, video_id, sha256, size, recording)
    if isinstance(seen, InputError):
        return schema.from_rows("videos", [identity | _rejection(seen)]), schema.empty("clips")
    scenes = find_scenes(scores, seen.timestamps_s, settings)
    clips = [row for scene in scenes for row in _clip_rows(video_id, scene, seen, settings)]
    return schema.from_rows("videos", [identity | _facts(seen)]), schema.from_rows("clips", clips)


def _probe_or_refusal(path: Path, scores: SceneScores, threads: int, as_pinhole: bool, index: IndexMaker | None) -> VideoProbe | InputError:
    """What the video is, or the error that makes its content unusable."""
    try:
        return probe(path, scores, threads, as_pinhole, index)
    except UnstableFile:
        raise
    except InputError as error:
        return error


def clips_from_tables(videos: pa.Table, clips: pa.Table, packet_index: Path | None = None) -> list[Clip]:
    """The clips of tables `videos` and `clips`, in the tables' order.

    Args:
        packet_index: path of the video's packet index, if it has one.
    """
    by_id = {row["video_id"]: row for row in videos.to_pylist()}
    return [_clip(by_id[row["video_id"]], row, packet_index) for row in clips.to_pylist()]


def split_of(digest: str) -> str:
    """`train`, `val` or `test` (80, 10, 10 of 100), by the first 16 hex digits of a SHA-256."""
    bucket = int(digest[:16], 16) % 100
    if bucket < _TEST_OF_100:
        return "test"
    return "val" if bucket < _TEST_OF_100 + _VAL_OF_100 else "train"


def _identity(path: Path, video_id: str, sha256: str, size: int, recording: str) -> dict[str, Any]:
    shared = recording or of_content(sha256)
    split = split_of(shared if _OF_CONTENT.fullmatch(shared) else hashlib.sha256(shared.encode()).hexdigest())
    return {"video_id": video_id, "path": storable(path), "sha256": sha256, "bytes": size, "recording": shared, "split": split}


def _rejection(error: InputError) -> dict[str, Any]:
    return {"status": "rejected", "error_class": type(error).__name__, "reason": error.reason, "cure": error.cure}


def _facts(seen: VideoProbe) -> dict[str, Any]:
    return {
        "status": "ok",
        "warning": seen.warning,
        "damaged": seen.damaged,
        "duration_s": seen.duration_s,
        "fps_num": seen.fps.numerator,
        "fps_den": seen.fps.denominator,
        "vfr": seen.vfr,
        "n_frames": seen.n_frames,
        "n_frames_expected": seen.n_frames_expected,
        "decoded_share": seen.decoded_share,
        "width": seen.width,
        "height": seen.height,
        "rotation_deg": seen.rotation_deg,
        "codec": seen.codec,
        "pix_fmt": seen.pix_fmt,
        "color_range": seen.color_range,
        "audio_streams": seen.audio_streams,
        "focal_35mm_mm": seen.focal_35mm_mm,
        **({f"lens_{name}": value for name, value in asdict(seen.lens).items()} if seen.lens else {}),
        **asdict(seen.picture),
    }


def _clip_rows(video_id: str, scene: Scene, seen: VideoProbe, settings: SceneSettings) -> list[dict[str, Any]]:
    starts_s = seen.timestamps_s
    ends_s = frame_ends(starts_s, seen.duration_s, settings.max_clip_s)
    return [
        {
            "video_id": video_id,
            "clip_id": window.clip_id,
            "frame_start": window.frame_start,
            "frame_end": window.frame_end,
            "own_start": window.own_start,
            "own_end": window.own_end,
            "start_s": window.start_s,
            "end_s": window.end_s,
            "overlap_s": window.overlap_s,
            "scene_index": scene.index,
            "cut_score": scene.cut_score,
            "method": scene.method,
            "fallback_reason": scene.fallback_reason,
        }
        for window in windows(scene, starts_s, ends_s, settings.max_clip_s, settings.overlap_s)
    ]


def _clip(video: dict[str, Any], row: dict[str, Any], packet_index: Path | None) -> Clip:
    return Clip(
        video_id=row["video_id"],
        clip_id=row["clip_id"],
        video_path=Path(video["path"]),
        video_sha256=video["sha256"],
        frame_start=row["frame_start"],
        frame_end=row["frame_end"],
        own_start=row["own_start"],
        own_end=row["own_end"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        fps=Fraction(video["fps_num"], video["fps_den"]),
        width=video["width"],
        height=video["height"],
        damaged=bool(video["damaged"]),
        raster=layout_of(video).raster() if video["stored_width"] else None,
        packet_index=packet_index,
        focal_35mm_mm=video["focal_35mm_mm"],
        lens=_stated_lens(video),
    )


def _stated_lens(video: dict[str, Any]) -> StatedLens | None:
    if video["lens_model"] is None:
        return None
    return StatedLens(video["lens_focal_per_diagonal"], video["lens_model"], tuple(video["lens_distortion"]), video["lens_error_share"])
