"""Rendered scenes with the truth of who holds the box: as input for `movement`, with true masks, and joints and poses as far off as asked for; and as
pictures in which hands, masks and joints are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.synthetic import FrameTruth, SceneConfig, render_frame
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.sidecar import Prompt, Sidecar, SidecarObject
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import quaternion_from_matrix
from tests.rows import PER_FRAME

STAGES = (
    ("detections", "mediapipe"),
    ("masks", "classical"),
    ("hand_pose", "mediapipe"),
    ("object_pose", "classical"),
    ("movement", "classical"),
    ("contacts", "classical"),
    ("events", "classical"),
)
"""And the backends that find all in a picture."""
TRACKS = {"hand_left": 1, "hand_right": 2, "hand_other": 3, "object": 10}


@dataclass(frozen=True, slots=True)
class Shot:
    """The frames (H, W, 3) uint8 of one shot and their truth."""

    config: SceneConfig
    pictures: Sequence[np.ndarray]
    truth: Sequence[FrameTruth]


@dataclass(frozen=True, slots=True)
class Errors:
    """Of what `movement` reads: standard deviations. `poses` says whether the object has poses at all, `joints` whether the hands have."""

    joints_share: float = 0.03
    """Of joints in the picture and in space, in shares of a hand's length; a third of it is the same in all frames."""
    hand_depth_share: float = 0.08
    """Of the hands' distance; the same in all frames."""
    pose_m: float = 0.002
    pose_deg: float = 1.0
    poses: bool = True
    joints: bool = True


def render_shot(config: SceneConfig, number: int) -> Shot:
    """Render one shot of a scene."""
    start = number * config.frames_per_shot
    rendered = [render_frame(config, i) for i in range(start, start + config.frames_per_shot)]
    return Shot(config, [rgb for rgb, _ in rendered], [truth for _, truth in rendered])


def scaled_shot(shot: Shot, height: int) -> tuple[Shot, Camera]:
    """The same shot at another height, and its camera; the truth's masks are scaled, its image points are not."""
    share = height / shot.config.height
    size = (round(shot.config.width * share), height)
    way = cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC
    c = shot.config.camera
    camera = Camera(c.fx_px * share, c.fy_px * share, (size[0] - 1) / 2, (size[1] - 1) / 2, *size, "file")
    return Shot(shot.config, [cv2.resize(p, size, interpolation=way) for p in shot.pictures], shot.truth), camera


def clip_input(shot: Shot, errors: Errors, seed: int, camera: Camera | None = None) -> ClipInput:
    """A shot as a clip with masks, hand poses and object poses."""
    rng, config = np.random.default_rng(seed), shot.config
    camera = camera or config.camera
    n, fps = len(shot.pictures), config.fps
    frames = [Frame(i, i / fps, rgb) for i, rgb in enumerate(shot.pictures)]
    masks = [
        _at(i, fps) | _mask_columns(role, cv2.resize(mask.astype(np.uint8), (camera.width, camera.height), interpolation=cv2.INTER_NEAREST))
        for i, t in enumerate(shot.truth)
        for role, mask in t.masks.items()
    ]
    hands = _hand_rows(shot, errors, rng, camera) if errors.joints else []
    poses = [_pose_row(i, t, fps, errors, config, rng) for i, t in enumerate(shot.truth) if "object" in t.masks]
    clip = Clip(
        PER_FRAME["video_id"], PER_FRAME["clip_id"], Path("scene.mp4"), "0" * 64, 0, n, 0, n, 0.0, n / fps, Fraction(fps), camera.width,
        camera.height,
    )  # fmt: skip
    tables = {"masks": _table("masks", masks), "hand_pose": _table("hand_pose", hands), "object_pose": _table("object_pose", poses)}
    tables["camera"] = schema.empty("camera")
    return ClipInput(clip, tables, Sidecar(), camera, 1, lambda: iter(frames))


def prompted_input(shot: Shot, height: int, posed: bool) -> ClipInput:
    """The shot at a height, with a box around what its first frame that shows the object shows of it; `posed`: with the object's lengths too."""
    pictures, camera = scaled_shot(shot, height)
    first = next(i for i, truth in enumerate(shot.truth) if "object" in truth.masks)
    x, y, w, h = (height / shot.config.height * float(v) for v in rle.mask_bbox(shot.truth[first].masks["object"]))
    prompt = Prompt(frame_index=first, box_px=(x, y, w, h))
    thing = SidecarObject(label="box", prompts=(prompt,), dimensions_m=shot.config.dimensions_m if posed else None)
    return replace(clip_input(pictures, Errors(), 0, camera), sidecar=Sidecar(objects=(thing,)))


def found_tables(item: ClipInput, posed: bool) -> dict[str, pa.Table]:
    """The tables of STAGES of a clip; no poses of objects unless `posed`."""
    tables: dict[str, pa.Table] = {"camera": schema.empty("camera"), "object_pose": schema.empty("object_pose")}
    for stage, name in STAGES:
        if stage != "object_pose" or posed:
            tables[stage] = run_stage(stage, replace(item, tables=tables), name)
    return tables


def run_stage(stage: str, item: ClipInput, name: str = "classical") -> pa.Table:
    """The table of a stage, by its backend of that name."""
    backend = operators.load(stage, name)
    return backend(backend.Settings(), 2).run(item)


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return schema.from_rows(name, rows) if rows else schema.empty(name)


def _at(index: int, fps: int) -> dict[str, Any]:
    return PER_FRAME | {"frame_index": index, "timestamp_s": index / fps}


def _mask_columns(role: str, mask: np.ndarray) -> dict[str, Any]:
    seen = mask.astype(bool)
    shape = {"rle": rle.encode(seen), "mask_scale": 1.0, "bbox_px": rle.mask_bbox(seen), "area_px": max(int(seen.sum()), 1)}
    return shape | {"track_id": TRACKS[role], "role": role, "score": 1.0, "observed": True}


def _hand_rows(shot: Shot, errors: Errors, rng: np.random.Generator, camera: Camera) -> list[dict[str, Any]]:
    share = camera.height / shot.config.height
    depth = {hand: 1 + rng.normal(0, errors.hand_depth_share) for hand in ("left", "right")}
    lasting = {hand: rng.normal(0, errors.joints_share / 3, (21, 3)) for hand in ("left", "right")}
    rows = []
    for i, truth in enumerate(shot.truth):
        for hand in truth.hands:
            if f"hand_{hand.hand}" not in truth.masks:
                continue
            off = lasting[hand.hand] + rng.normal(0, errors.joints_share, (21, 3))
            joints_m = np.asarray(hand.joints_m, float)
            length_m = np.linalg.norm(joints_m[9] - joints_m[0]) * 1.9
            px_per_m = camera.fx_px / joints_m[:, 2].mean()
            joints_px = (np.asarray(hand.joints_px, float) + 0.5) * share - 0.5 + off[:, :2] * length_m * px_per_m
            moved_m = (joints_m + off * length_m) * depth[hand.hand]
            row = _at(i, shot.config.fps) | {"hand": hand.hand, "score": 0.9, "joints_px": joints_px.tolist(), "joints_m": moved_m.tolist()}
            rows.append(row | _camera_columns(camera) | {"observed": True, "reprojection_px": 1.0})
    return rows


def _pose_row(index: int, truth: FrameTruth, fps: int, errors: Errors, config: SceneConfig, rng: np.random.Generator) -> dict[str, Any]:
    row = _at(index, fps) | {"track_id": TRACKS["object"], "label": "box", "scale_source": "dimensions", "observed": True}
    row |= {"dimensions_m": list(config.dimensions_m), "converged": errors.poses} | _camera_columns(config.camera)
    if not errors.poses:
        return row | {"reason": "lost on purpose", "reason_class": "no_fit"}
    T = truth.T_camera_object
    turn = cv2.Rodrigues(np.radians(errors.pose_deg) * rng.normal(0, 1, 3))[0]
    position = T[:3, 3] + rng.normal(0, errors.pose_m, 3)
    pose = (*quaternion_from_matrix(turn @ T[:3, :3]), *position)
    return row | dict(zip(("qw", "qx", "qy", "qz", "x_m", "y_m", "z_m"), map(float, pose), strict=True))


def _camera_columns(camera: Camera) -> dict[str, Any]:
    return {
        "fx_px": camera.fx_px,
        "fy_px": camera.fy_px,
        "cx_px": camera.cx_px,
        "cy_px": camera.cy_px,
        "intrinsics_source": camera.source,
        "metric": True,
    }
