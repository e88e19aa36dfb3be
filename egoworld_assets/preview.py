"""The asset `preview`: one contact sheet a video, in the lake as preview.png and small in Dagster's metadata. Never fails a run."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from egoworld_assets.chain.clips import clips_of
from egoworld_assets.partitions import BACKFILL, GROUP, OWNERS, VIDEO_IDS
from egoworld_assets.resources import Egoworld
from egoworld_ops import operators
from egoworld_ops.errors import classify
from egoworld_ops.files.whole import write_bytes
from egoworld_ops.lake import states
from egoworld_ops.lake.lake import Run
from egoworld_ops.types import Clip

FILE_NAME = "preview.png"
MAX_CLIPS = 8
"""Maximum number of clips of a video that are compared; the one with most hands and objects is shown."""
MAX_FRAMES = 300
PICTURES = 8
TILE_PX = 300
MAX_METADATA_BYTES = 100_000
WEBP_QUALITIES = (60, 40, 20)
_INPUTS = {i for stage in operators.stages().values() for i in stage.inputs}
LEAVES = [name for name in operators.stages() if name not in _INPUTS]
"""The last stages of the chain: all others are upstream of them."""


@dg.asset(
    group_name=GROUP,
    deps=LEAVES,
    description="A contact sheet of each video: masks, hand joints, object poses and the robot hands. Open a materialization to see it.",
    partitions_def=VIDEO_IDS,
    backfill_policy=BACKFILL,
    kinds={"image"},
    owners=OWNERS,
)
def preview(context: dg.AssetExecutionContext, egoworld: Egoworld) -> None:
    """preview.png beside each video's tables."""
    run = egoworld.run()
    for video_id in context.partition_keys:
        try:
            metadata = _metadata(run, video_id, egoworld.settings.sample_stride, egoworld.settings.pool.threads)
        except Exception as error:  # noqa: BLE001 -- a picture is never worth a failed run; what went wrong is said in its place
            metadata = {"no preview": str(classify(error, f"preview of {video_id}"))}
            context.log.warning(metadata["no preview"])
        context.add_asset_metadata(metadata, partition_key=video_id)


def _metadata(run: Run, video_id: str, sample_stride: int, threads: int) -> dict[str, Any]:
    written = write_sheet(run, video_id, sample_stride, threads)
    if written is None:
        return {"no preview": "the video has no clips: see the check manifest_complete"}
    clip, png, path, without = written
    shown: dict[str, Any] = {
        "preview": dg.MetadataValue.md(_picture(png)),
        "clip": clip.clip_id,
        "file": dg.MetadataValue.path(str(path.absolute())),
    }
    shown["watch it"] = f"egoworld render {video_id} --run {run.run_id}"
    return shown | ({"nothing to draw": dict(without)} if without else {})


def write_sheet(run: Run, video_id: str, sample_stride: int, threads: int) -> tuple[Clip, bytes, Path, Mapping[str, str]] | None:
    """Write a video's contact sheet; returns the clip that it shows, the PNG, where it lies, and why layers of it are empty.

    None for a video without clips.
    """
    clip = _clip_to_show(run, video_id)
    if clip is None:
        return None
    png, without = _sheet(run, clip, sample_stride, threads)
    path = run.video_folder(video_id) / FILE_NAME
    write_bytes(path, png)
    return clip, png, path, without


def _clip_to_show(run: Run, video_id: str) -> Clip | None:
    return max(clips_of(run, video_id)[:MAX_CLIPS], key=lambda clip: _rows(run, clip), default=None)


def _rows(run: Run, clip: Clip) -> int:
    there = states.clip_states(run, clip.video_id, clip.clip_id)
    return sum(state.rows or 0 for state in there.values() if state.counts)


def _sheet(run: Run, clip: Clip, sample_stride: int, threads: int) -> tuple[bytes, Mapping[str, str]]:
    from egoworld_ops.report.contact_sheet import contact_sheet
    from egoworld_ops.report.layers import read_layers
    from egoworld_ops.video import decoding

    end = min(clip.frame_end, clip.frame_start + MAX_FRAMES)
    stride = sample_stride * max(1, (end - clip.frame_start) // (PICTURES * sample_stride))
    frames = decoding.decode_clip(clip, stride, threads, end)
    layers = read_layers(run, clip.video_id, clip.clip_id)
    return contact_sheet(frames, layers, n=PICTURES, tile_px=TILE_PX), layers.without


def _picture(png: bytes) -> str:
    """The sheet as Markdown with the picture in it, as WebP: every materialization keeps its metadata for ever."""
    import cv2
    import numpy as np

    picture = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
    for quality in WEBP_QUALITIES:
        _, encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if len(encoded) <= MAX_METADATA_BYTES:
            return f"![contact sheet](data:image/webp;base64,{base64.b64encode(encoded.tobytes()).decode()})"
    return f"The picture is too large to be shown here ({len(encoded) // 1000} kB): open the file"
