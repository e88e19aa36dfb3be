"""Results of the whole chain on scenes seen through a pinhole and through a wide lens, with the lens known and with the default assumption.

    python benchmarks/bench_lenses.py [--seeds 3 4] [--frames-per-shot 16] [--points-only] [--save FOLDER]

The wide scenes are 150 degrees from left to right, the pinhole ones 60; both show things at a similar size. Exits with 1 where a
figure is beyond its limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.object_pose._shapes import cuboid
from egoworld_ops.operators.rows import pose_of, standing_pose_of
from egoworld_ops.report import ground_truth
from egoworld_ops.synthetic import SceneConfig, SceneTruth, load_truth, render_scene
from egoworld_ops.synthetic.config import WIDE
from egoworld_ops.synthetic.hand import skeleton
from egoworld_ops.synthetic.script import state_at
from egoworld_ops.types import Clip
from egoworld_ops.video import decoding, intrinsics
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar, read_sidecar
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import invert, project, towards, transform

CHAIN = (
    *(
        ("detections", "mediapipe"),
        ("masks", "classical"),
        ("hand_pose", "mediapipe"),
        ("object_pose", "classical"),
        ("camera", "given"),
        ("movement", "classical"),
    ),
)
SCENES: Mapping[str, Mapping[str, Any]] = {"pinhole": {"width": 480, "height": 360}, "wide": {"width": 960, "height": 720, **WIDE}}
WORSE = 1.6
"""The wide lens's hands, and its objects where their masks are true, may be at most this much farther from the truth than the pinhole's, or 2.5 mm,
degrees, per cent; depths, or within a tenth. Poses from the classical masks have no limit: with either lens some are
wrong by 90 degrees."""


def clips(video: Path, truth: SceneTruth, sidecar: Sidecar) -> Iterator[ClipInput]:
    """Each shot of a scene."""
    scene = truth.scene
    for start, end in pairwise([0, *truth.cuts, scene["n_frames"]]):
        seconds, size = (start / scene["fps"], end / scene["fps"]), (scene["width"], scene["height"])
        clip = Clip("v-0123456789ab", f"c{start}", video, "0" * 64, start, end, start, end, *seconds, Fraction(scene["fps"]), *size)
        camera = intrinsics.resolve(*size, sidecar, CameraSettings(), video)
        yield ClipInput(clip, {}, sidecar, camera, 1, partial(decoding.decode, video, start, end))


def chain(items: Iterator[ClipInput]) -> dict[str, pa.Table]:
    """The tables of all clips, one after the other."""
    found: dict[str, list[pa.Table]] = {}
    for item in items:
        tables: dict[str, pa.Table] = {}
        for stage, backend in CHAIN:
            operator = operators.load(stage, backend)
            inputs = {name: tables[name] for name in operators.stages()[stage].inputs}
            tables[stage] = operator(operator.Settings(), 2).run(replace(item, tables=inputs))
            found.setdefault(stage, []).append(tables[stage])
    return {stage: pa.concat_tables(parts) for stage, parts in found.items()}


def objects_of_true_masks(items: Iterator[ClipInput], truth: SceneTruth) -> pa.Table:
    """`object_pose` by itself: its table where every mask is the true one."""
    solve, tracks, tables = operators.load("object_pose", "classical"), {"hand_left": 1, "hand_right": 2, "object": 10}, []
    for item in items:
        rows = []
        for true in truth.masks.to_pylist():
            if item.clip.frame_start <= true["frame_index"] < item.clip.frame_end:
                counts = {"size": [true["height"], true["width"]], "counts": true["rle_counts"]}
                row = {"video_id": item.clip.video_id, "clip_id": item.clip.clip_id, "sample_stride": 1, "backend": "truth", "score": 1.0}
                row |= {name: true[name] for name in ("frame_index", "timestamp_s", "role", "area_px")} | {"rle": counts, "mask_scale": 1.0}
                label = truth.scene["label"] if true["role"] == "object" else None
                box = rle.mask_bbox(rle.decode(counts))
                rows.append(row | {"track_id": tracks[true["role"]], "label": label, "bbox_px": box, "observed": True})
        tables = [*tables, solve(solve.Settings(), 2).run(replace(item, tables=_inputs(rows)))]
    return pa.concat_tables(tables)


def _inputs(masks: list[dict[str, Any]]) -> dict[str, pa.Table]:
    return {"masks": schema.from_rows("masks", masks), "hand_pose": schema.empty("hand_pose")}


def depths(tables: Mapping[str, pa.Table], truth: SceneTruth) -> np.ndarray:
    """Distance of each hand over the true one."""
    true = {(r["frame_index"], r["hand"]): np.linalg.norm(np.mean(r["joints_m"], axis=0)) for r in truth.hands.to_pylist()}
    rows = [r for r in tables["hand_pose"].to_pylist() if r["joints_m"] is not None and (r["frame_index"], r["hand"]) in true]
    return np.array([np.linalg.norm(np.mean(r["joints_m"], axis=0)) / true[r["frame_index"], r["hand"]] for r in rows])


def verified(name: str, poses: pa.Table, truth: SceneTruth) -> None:
    """Print how many rows of `object_pose` are called converged, and how many of these are right: within 10 degrees and 10 % of the distance."""
    symmetry = cuboid(tuple(truth.scene["dimensions_m"])).symmetry
    true = {row["frame_index"]: T for row in truth.objects.to_pylist() if (T := pose_of(row)) is not None}
    pairs = [(T, true[row["frame_index"]]) for row in poses.to_pylist() if (T := standing_pose_of(row)) is not None]
    turned = np.array([symmetry.angle_deg(T[:3, :3], T_true[:3, :3]) for T, T_true in pairs])
    far = np.array([np.linalg.norm(T[:3, 3]) / np.linalg.norm(T_true[:3, 3]) - 1 for T, T_true in pairs])
    right = int(((turned <= 10) & (np.abs(far) <= 0.1)).sum())
    print(f"FIGURE {name}: object poses called converged {len(pairs)} of {poses.num_rows}, of these right {right}", flush=True)


def figures(name: str, video: Path, sidecar: Sidecar) -> dict[str, float]:
    """Print what the chain makes of a scene; medians by name."""
    truth = load_truth(video.with_suffix(".truth"))
    tables = chain(clips(video, truth, sidecar))
    made = {figure.name: figure for figure in ground_truth.compare({k: v for k, v in tables.items() if k != "detections"}, truth)}
    for figure in made.values():
        print(f"FIGURE {name}: {figure.name} {figure.median:.3f} {figure.unit}, tail {figure.tail:.3f}, found {figure.found:.1%}")
    verified(name, tables["object_pose"], truth)
    ratio = depths(tables, truth)
    pixels = np.array([r["reprojection_px"] for r in tables["hand_pose"].to_pylist() if r["reprojection_px"] is not None])
    print(f"FIGURE {name}: distance of hands over the truth {np.median(ratio):.3f}, reprojection {np.median(pixels):.2f} px", flush=True)
    return {key: figure.median for key, figure in made.items()} | {"depth": float(np.median(ratio))}


def measure(seed: int, frames_per_shot: int, folder: Path) -> bool:
    """Whether the limits are kept for a seed."""
    found = {}
    for name, options in SCENES.items():
        video = render_scene(SceneConfig(seed=seed, frames_per_shot=frames_per_shot, **options), folder, f"{name}-{seed}")
        sidecar = read_sidecar(video)
        found[name] = figures(f"seed {seed}, {name}", video, sidecar)
        truth = load_truth(video.with_suffix(".truth"))
        alone = objects_of_true_masks(clips(video, truth, sidecar), truth)
        for figure in ground_truth.compare({"object_pose": alone}, truth):
            print(
                f"FIGURE seed {seed}, {name}, true masks: {figure.name} {figure.median:.3f} {figure.unit}, tail {figure.tail:.3f}",
                flush=True,
            )
            found[name] |= {f"{figure.name} of true masks": figure.median}
        verified(f"seed {seed}, {name}, true masks", alone, truth)
        if name == "wide":
            found["assumed"] = figures(f"seed {seed}, wide, lens assumed", video, sidecar.model_copy(update={"camera": None}))
    hands, turned, moved = "hand joints, unaligned (camera frame)", "object rotation, up to the box's symmetry", "object translation"
    ok = abs(found["wide"]["depth"] - 1) <= max(WORSE * abs(found["pinhole"]["depth"] - 1), 0.1)
    kept = (hands, f"{turned} of true masks", f"{moved} of true masks")
    return ok and all(found["wide"][key] <= max(WORSE * found["pinhole"][key], 2.5) for key in kept)


def _with_true_points(config: SceneConfig) -> tuple[pa.Table, dict[tuple[int, str], np.ndarray]]:
    """Detections of the hands that are wholly in the picture: true shapes, image points off by one pixel; and the true joints."""
    rng, rows, truth = np.random.default_rng(config.seed), [], {}
    about = {
        "video_id": "v-0123456789ab",
        "clip_id": "c0",
        "sample_stride": 1,
        "backend": "truth",
        **operators.stages()["detections"].sample[0],
    }
    for index in range(0, config.n_frames, 4):
        state = state_at(config, index)
        for pose in state.hands:
            joints_m = transform(invert(state.T_world_camera), skeleton(pose).joints_m)
            points_px = project(config.camera, joints_m)
            if not ((points_px >= 0) & (points_px < (config.width, config.height))).all():
                continue
            middle_m = joints_m.mean(0)
            hand = {"frame_index": index, "timestamp_s": index / config.fps, "role": f"hand_{pose.hand}"}
            hand |= {"track_id": 1 if pose.hand == "left" else 2, "landmarks_m": (joints_m - middle_m) @ towards(middle_m[None])[0]}
            rows.append(about | hand | {"points_px": points_px + rng.normal(0, 1, points_px.shape)})
            truth[index, pose.hand] = joints_m
    return schema.from_rows("detections", rows), truth


def hands_of_true_points(seed: int) -> None:
    """Print how exact `hand_pose` is by itself, without the networks' errors."""
    solve = operators.load("hand_pose", "mediapipe")
    for name, options in SCENES.items():
        config = SceneConfig(seed=seed, **options)
        detections, truth = _with_true_points(config)
        size = (config.width, config.height)
        clip = Clip(
            "v-0123456789ab", "c0", Path("v.mp4"), "0" * 64, 0, config.n_frames, 0, config.n_frames, 0.0, 1.0, Fraction(config.fps), *size
        )
        assumed = intrinsics.resolve(*size, Sidecar(), CameraSettings(), name)
        for known, camera in (("", config.camera), (", lens assumed", assumed)):
            item = ClipInput(clip, {"detections": detections}, Sidecar(), camera, 1, lambda: iter(()))
            rows = [row for row in solve(solve.Settings(), 1).run(item).to_pylist() if row["joints_m"] is not None]
            pairs = [(np.array(row["joints_m"]), truth[row["frame_index"], row["hand"]]) for row in rows]
            ratio = np.median([np.linalg.norm(found.mean(0)) / np.linalg.norm(true.mean(0)) for found, true in pairs])
            off_mm = 1000 * np.median([np.linalg.norm(found - true, axis=1).mean() for found, true in pairs])
            pixels = np.median([row["reprojection_px"] for row in rows])
            said = f"distance over the truth {ratio:.3f}, joints off by {off_mm:.1f} mm, reprojection {pixels:.2f} px"
            print(f"FIGURE seed {seed}, {name}{known}, true image points: {len(rows)} of {len(truth)} hands, {said}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--frames-per-shot", type=int, default=16)
    parser.add_argument("--points-only", action="store_true", help="hands of true image points alone; renders nothing")
    parser.add_argument("--save", type=Path, help="keep the scenes here")
    options = parser.parse_args(arguments)
    for seed in options.seeds:
        hands_of_true_points(seed)
    if options.points_only:
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        kept = [measure(seed, options.frames_per_shot, options.save or Path(temporary)) for seed in options.seeds]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
