"""A scene on disk: the video, the sidecar beside it, and the folder of truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.synthetic.config import GENERATOR_VERSION, MOVING_RATE_RAD_S, MOVING_SPEED_M_S, OBJECT_LABEL, SceneConfig
from egoworld_ops.synthetic.truth import SCHEMAS, FrameTruth, render_frame
from egoworld_ops.types import Camera, check_id
from egoworld_ops.vision.geometry import quaternion_from_matrix
from egoworld_ops.vision.rle import encode, mask_bbox

_CRF = "19"

Progress = Callable[[int, int], None]


def render_scene(config: SceneConfig, out_dir: Path, name: str, progress: Progress | None = None) -> Path:
    """Render a scene to `out_dir`: `<name>.mp4`, `<name>.egoworld.json`, `<name>.truth/`; returns the video's path.

    `progress` is called with frames done and frames in all. The video gets its name last, so that its sidecar and truth exist
    when it appears. Raises ValueError for a name that is no safe identifier.
    """
    check_id("name", name)
    out_dir.mkdir(parents=True, exist_ok=True)
    partial = out_dir / f".{name}.mp4.part"
    truths: list[FrameTruth] = []
    try:
        _encode(config, partial, truths, progress)
        _write_truth(config, truths, out_dir / f"{name}.truth")
        _write_json(out_dir / f"{name}.egoworld.json", _sidecar(config, truths))
        return partial.replace(out_dir / f"{name}.mp4")
    finally:
        partial.unlink(missing_ok=True)


def _encode(config: SceneConfig, path: Path, truths: list[FrameTruth], progress: Progress | None) -> None:
    """Render and encode frame by frame; one thread, so that equal frames give equal bytes."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        options = {"crf": _CRF, "preset": "slow", "threads": "1", "x264-params": "asm=avx2"}  # x264's AVX-512 code varies from run to run
        stream = container.add_stream("libx264", rate=config.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = config.width, config.height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, config.fps)
        for frame_index in range(config.n_frames):
            rgb, truth = render_frame(config, frame_index)
            truths.append(truth)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = frame_index, Fraction(1, config.fps)
            container.mux(stream.encode(frame))
            if progress is not None:
                progress(frame_index + 1, config.n_frames)
        container.mux(stream.encode())


def _write_truth(config: SceneConfig, truths: list[FrameTruth], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rows = {"hands": _hand_rows, "objects": _object_rows, "masks": _mask_rows, "camera": _camera_rows}
    for name, make in rows.items():
        table = pa.Table.from_pylist([row for truth in truths for row in make(truth)], schema=SCHEMAS[name])
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    scene = {
        "generator_version": GENERATOR_VERSION,
        "seed": config.seed,
        "width": config.width,
        "height": config.height,
        "fps": config.fps,
        "n_frames": config.n_frames,
        "cuts": list(config.cuts),
        "label": OBJECT_LABEL,
        "dimensions_m": list(config.dimensions_m),
        "moving_speed_m_s": MOVING_SPEED_M_S,
        "moving_rate_rad_s": MOVING_RATE_RAD_S,
    }
    _write_json(folder / "scene.json", scene | _lens(config.camera))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def _time(truth: FrameTruth) -> dict[str, Any]:
    return {"frame_index": truth.frame_index, "timestamp_s": truth.timestamp_s}


def _hand_rows(truth: FrameTruth) -> list[dict[str, Any]]:
    return [
        {
            **_time(truth),
            "hand": hand.hand,
            "joints_px": hand.joints_px.tolist(),
            "joints_m": hand.joints_m.tolist(),
            "visible": hand.visible.tolist(),
        }
        for hand in truth.hands
    ]


def _object_rows(truth: FrameTruth) -> list[dict[str, Any]]:
    pose = (*quaternion_from_matrix(truth.T_camera_object[:3, :3]), *truth.T_camera_object[:3, 3])
    return [
        {
            **_time(truth),
            "label": OBJECT_LABEL,
            **dict(zip(("qw", "qx", "qy", "qz", "x_m", "y_m", "z_m"), map(float, pose), strict=True)),
            "held_by": truth.held_by,
            "moving": truth.moving,
            "speed_m_s": truth.speed_m_s,
        }
    ]


def _mask_rows(truth: FrameTruth) -> list[dict[str, Any]]:
    return [
        {
            **_time(truth),
            "role": role,
            "rle_counts": encode(mask)["counts"],
            "height": mask.shape[0],
            "width": mask.shape[1],
            "area_px": int(mask.sum()),
        }
        for role, mask in truth.masks.items()
    ]


def _camera_rows(truth: FrameTruth) -> list[dict[str, Any]]:
    camera = truth.camera
    lens = {"fx": camera.fx_px, "fy": camera.fy_px, "cx": camera.cx_px, "cy": camera.cy_px}
    return [{**_time(truth), **lens, "T_world_camera": truth.T_world_camera.ravel().tolist()}]


def _lens(camera: Camera) -> dict[str, Any]:
    """The lens as sidecars have it; a pinhole goes without saying."""
    return {} if camera.is_pinhole else {"model": camera.model, "distortion": list(camera.distortion)}


def _sidecar(config: SceneConfig, truths: list[FrameTruth]) -> dict[str, Any]:
    """What a person would write: the camera, the object's size, and one box at its first frame in each shot."""
    camera = config.camera
    prompts = []
    for start in (0, *config.cuts):
        seen = next((t for t in truths[start : start + config.frames_per_shot] if "object" in t.masks), None)
        if seen is not None:
            prompts.append({"frame_index": seen.frame_index, "box_px": [int(px) for px in mask_bbox(seen.masks["object"])]})
    return {
        "camera": {
            "fx": camera.fx_px,
            "fy": camera.fy_px,
            "cx": camera.cx_px,
            "cy": camera.cy_px,
            "width": camera.width,
            "height": camera.height,
            "focal_error_share": 0.0,
            **_lens(camera),
        },
        "objects": [{"label": OBJECT_LABEL, "dimensions_m": list(config.dimensions_m), "prompts": prompts}],
    }
