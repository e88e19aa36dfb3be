"""The path of the camera against the true one: ATE, RPE, stated errors, metres, reasons, time a frame.

    python -m benchmarks.bench_camera [SEEDS] [--kitchen FRAMES]

Rooms of textured rectangles at 640x480, seeds 11, 12, ... (tests and thresholds were made with others): a walk of half a metre, a head that sways
by 2 cm, and cameras at rest, turning, and before plain walls, which must have no pose. With `--kitchen`, so many frames of the rendered scene with
hands and a box (2 s a frame to render), through the stages of profile `laptop`: metres from the box of known size, and from the hands alone.

ATE: root mean square distance after alignment by a similarity (Umeyama). RPE: median distance between the true and the found motion over 10 frames,
after the same scale. `covered`: share of frames whose true error is within twice the stated one. A kitchen's scale is compared with that of the
alignment.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.execution.identity import operator_of
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.camera.colmap import Backend, ColmapSettings
from egoworld_ops.settings import load_settings
from egoworld_ops.synthetic import SceneConfig, render_frame
from egoworld_ops.synthetic.room import Patch, looking, render_room, room
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from egoworld_ops.vision.geometry import align_similarity, invert, matrix_from_quaternion

CAMERA = Camera(440.0, 440.0, 319.5, 239.5, 640, 480, "file")
FRAMES, STEP, FIRST_SEED = 60, 10, 11
PLAIN = tuple(replace(patch, texture=None) for patch in room()[:4])


def walk(a: float) -> np.ndarray:
    return looking((-0.25 + 0.5 * a, -0.5 + 0.1 * np.sin(3 * a), 0.45 + 0.06 * np.sin(5 * a)), (0.1 * np.sin(2 * a), 0.15, 0.02))


def sway(a: float) -> np.ndarray:
    eye = (0.011 * np.sin(6 * a), -0.5 + 0.008 * np.sin(5 * a + 1), 0.45 + 0.007 * np.sin(7 * a))
    return looking(eye, (0.012 * np.sin(5 * a + 2), 0.15 + 0.012 * np.sin(4 * a), 0.02))


def turn(a: float) -> np.ndarray:
    return looking((0, -0.5, 0.45), (-0.2 + 0.4 * a, 0.15, 0.02 + 0.1 * np.sin(4 * a)))


def still(a: float) -> np.ndarray:
    return looking((0, -0.5, 0.45), (0, 0.15, 0.02))


PATHS: Mapping[str, tuple[Callable[[float], np.ndarray], Sequence[Patch]]] = {
    "walk": (walk, room()), "sway": (sway, room()), "half plain": (walk, room(plain_walls=True)), "turn": (turn, room()),
    "still": (still, room()), "plain": (walk, PLAIN),
}  # fmt: skip


def taken(camera: Camera, frames: Sequence[Frame], sidecar: Sidecar) -> ClipInput:
    """A clip of these frames, without tables."""
    n, size = len(frames), (camera.width, camera.height)
    clip = Clip("v-0123456789ab", "c", Path("bench.mp4"), "0" * 64, 0, n, 0, n, 0.0, n / 30, Fraction(30), *size)
    tables = {name: schema.empty(name) for name in operators.stages()}
    return ClipInput(clip, tables, sidecar, camera, 1, lambda: iter(frames))


def measured(item: ClipInput, poses: Sequence[np.ndarray], name: str) -> pa.Table:
    """Solve a clip and print its figures."""
    began = time.process_time()
    rows = Backend(ColmapSettings(), 1).run(item)
    spent = (time.process_time() - began) / len(poses)
    posed = [row for row in rows.to_pylist() if row["qw"] is not None]
    said = f"posed {len(posed)}/{rows.num_rows}; {spent:.3f} s of CPU a frame"
    if len(posed) >= 3:
        said += "; " + ", ".join(figures(posed, poses))
    reasons = Counter(row["reason_class"] for row in rows.to_pylist() if row["qw"] is None)
    print(f"FIGURE camera, {name}: {said}" + (f"; null: {dict(reasons)}" if reasons else ""), flush=True)
    return rows


def figures(posed: Sequence[Mapping[str, object]], poses: Sequence[np.ndarray]) -> Iterator[str]:
    """ATE, RPE and how far the stated errors hold."""
    units = np.array([row["position_units"] for row in posed])
    R_found = matrix_from_quaternion(np.array([[row[f"q{a}"] for a in "wxyz"] for row in posed]))
    true = np.array([poses[row["frame_index"]] for row in posed])  # type: ignore[call-overload]
    scale, R, t = align_similarity(units, true[:, :3, 3])
    error = np.linalg.norm(scale * units @ R.T + t - true[:, :3, 3], axis=1)
    yield f"ATE {1e3 * np.sqrt((error**2).mean()):.2f} mm of {1e3 * np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum():.0f}"
    found = np.tile(np.eye(4), (len(posed), 1, 1))
    found[:, :3, :3], found[:, :3, 3] = R_found, scale * units
    moves = [invert(invert(true[i]) @ true[i + STEP]) @ invert(found[i]) @ found[i + STEP] for i in range(len(posed) - STEP)]
    if moves:
        turned = [np.degrees(np.arccos(np.clip((np.trace(move[:3, :3]) - 1) / 2, -1, 1))) for move in moves]
        yield f"RPE {1e3 * np.median([np.linalg.norm(move[:3, 3]) for move in moves]):.2f} mm {np.median(turned):.3f} deg"
    relative, wanted = R_found[0].T @ R_found, true[0, :3, :3].T @ true[:, :3, :3]
    off = np.degrees(np.arccos(np.clip((np.trace(np.swapaxes(relative, 1, 2) @ wanted, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    stated = np.array([row["position_error_units"] or np.nan for row in posed], float)[1:] * scale
    told = np.array([row["rotation_error_deg"] or np.nan for row in posed], float)[1:]
    yield f"covered: position {(error[1:] < 2 * stated).mean():.0%}, rotation {(off[1:] < 2 * told).mean():.0%} (worst {off.max():.2f} deg)"
    if posed[0]["metres_per_unit"]:
        ratio = float(posed[0]["metres_per_unit"]) / scale  # type: ignore[arg-type]
        yield f"metres by {posed[0]['scale_source']}: {ratio - 1:+.0%}, stated +-{posed[0]['scale_error_share']:.0%}"


def kitchen(count: int) -> None:
    """The rendered scene with hands and a box, through the stages of profile `laptop`."""
    settings = load_settings("laptop")
    for path in ("walk", "sway"):
        config = SceneConfig(seed=FIRST_SEED, frames_per_shot=count, camera_path=path)
        made = [render_frame(config, index) for index in range(count)]
        frames, poses = [Frame(i, i / 30, rgb) for i, (rgb, _) in enumerate(made)], [truth.T_world_camera for _, truth in made]
        sidecar = Sidecar(objects=(SidecarObject(label="box", dimensions_m=config.dimensions_m),))
        for name, known in (("dimensions", sidecar), ("hands", Sidecar())):
            item = taken(config.camera, frames, known)
            for stage in ("detections", "masks", "hand_pose", "object_pose"):
                kind, options = operator_of(stage, settings)
                tables = {s: item.tables[s] for s in operators.stages()[stage].inputs}
                item = replace(item, tables={**item.tables, stage: kind(options, 1).run(replace(item, tables=tables))})
            measured(item, poses, f"kitchen, {path}, sizes known: {name == 'dimensions'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="?", type=int, default=3)
    parser.add_argument("--kitchen", type=int, default=0, metavar="FRAMES")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    for name, (path, patches) in PATHS.items():
        for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
            poses = [path(i / (FRAMES - 1)) for i in range(FRAMES)]
            frames = [Frame(i, i / 30, render_room(CAMERA, T, patches, seed, i)[0]) for i, T in enumerate(poses)]
            measured(taken(CAMERA, frames, Sidecar()), poses, f"{name}, seed {seed}")
    if asked.kitchen:
        kitchen(asked.kitchen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
