"""Results of the whole chain on scenes seen through a pinhole and through a wide lens, with the lens known and with the default assumption.

    python benchmarks/bench_lenses.py [--seeds 3 4] [--frames-per-shot 16] [--save FOLDER]

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
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.report import ground_truth
from egoworld_ops.synthetic import SceneConfig, SceneTruth, load_truth, render_scene
from egoworld_ops.synthetic.config import WIDE
from egoworld_ops.types import Clip
from egoworld_ops.video import decoding, intrinsics
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar, read_sidecar

CHAIN = (
    *(
        ("detections", "mediapipe"),
        ("masks", "classical"),
        ("hand_pose", "mediapipe"),
        ("object_pose", "classical"),
        ("movement", "classical"),
    ),
)
SCENES: Mapping[str, Mapping[str, Any]] = {"pinhole": {"width": 480, "height": 360}, "wide": {"width": 960, "height": 720, **WIDE}}
WORSE = 1.6
"""The wide lens's hands and objects may be at most this much farther from the truth than the pinhole's; of depth, 0.1 from 1 is the limit."""


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


def depths(tables: Mapping[str, pa.Table], truth: SceneTruth) -> np.ndarray:
    """Distance of each hand over the true one."""
    true = {(r["frame_index"], r["hand"]): np.linalg.norm(np.mean(r["joints_m"], axis=0)) for r in truth.hands.to_pylist()}
    rows = [r for r in tables["hand_pose"].to_pylist() if r["joints_m"] is not None and (r["frame_index"], r["hand"]) in true]
    return np.array([np.linalg.norm(np.mean(r["joints_m"], axis=0)) / true[r["frame_index"], r["hand"]] for r in rows])


def figures(name: str, video: Path, sidecar: Sidecar) -> dict[str, float]:
    """Print what the chain makes of a scene; medians by name."""
    truth = load_truth(video.with_suffix(".truth"))
    tables = chain(clips(video, truth, sidecar))
    made = {figure.name: figure for figure in ground_truth.compare({k: v for k, v in tables.items() if k != "detections"}, truth)}
    for figure in made.values():
        print(f"FIGURE {name}: {figure.name} {figure.median:.3f} {figure.unit}, tail {figure.tail:.3f}, found {figure.found:.1%}")
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
        if name == "wide":
            found["assumed"] = figures(f"seed {seed}, wide, lens assumed", video, sidecar.model_copy(update={"camera": None}))
    hands, turned, moved = "hand joints, unaligned (camera frame)", "object rotation, up to the box's symmetry", "object translation"
    ok = abs(found["wide"]["depth"] - 1) <= max(WORSE * abs(found["pinhole"]["depth"] - 1), 0.1)
    return ok and all(found["wide"][key] <= max(WORSE * found["pinhole"][key], 2.0) for key in (hands, turned, moved))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--frames-per-shot", type=int, default=16)
    parser.add_argument("--save", type=Path, help="keep the scenes here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        kept = [measure(seed, options.frames_per_shot, options.save or Path(temporary)) for seed in options.seeds]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
