"""Moving or still while the camera walks and turns: `movement` with the camera's poses and without.

    python -m benchmarks.bench_world [SEEDS] [--links]

Rooms of textured rectangles at 640x480, seeds 31, 32, ... (tests and thresholds were made with others). Two boxes on the table rest, and a third
slides, rests and slides again, while the camera walks half a metre, walks and turns away to the wall, or only turns. Their masks are true; their
poses are off by 2 mm and 1 degree in each frame, and by 4 % of their distance in all. `without`: table camera is empty, as where no trajectory is
known. `given`: the true path. `colmap`: the path of the backend of that name, with the metres of the boxes' sizes. `hands`: the true path, a sixth
too long and said to be off by a quarter, as where hands fix the scale.

With `--links`: each walk in two clips that share a third of their frames, each reconstructed by `colmap` alone, and joined by the view `clip_links`.
ATE of each clip and of both joined, after one alignment by a similarity (Umeyama), mm; and the link's residuals.

`rest`: share of the rows of boxes at rest that are still. `moving`: share of the rows of the sliding box that are moving. `by camera`: share of
rows for which the camera's poses were certain enough.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import duckdb
import numpy as np
import pyarrow as pa

from egoworld_ops.contract import links, schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.camera import colmap
from egoworld_ops.operators.movement import classical
from egoworld_ops.operators.rows import intrinsics, pose_columns
from egoworld_ops.synthetic.room import Patch, looking, render_room, room
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import align_similarity, invert, make_transform, matrix_from_quaternion, rotations

CAMERA = Camera(440.0, 440.0, 319.5, 239.5, 640, 480, "file")
FRAMES, FPS, FIRST_SEED, PATCHES_OF_ROOM, SLIDING = 60, 30, 31, 4, 1
DEPTH_SHARE, POSE_M, POSE_DEG = 0.04, 0.002, 1.0
WAYS = ("without", "given", "colmap", "hands")
SIZES_M: Sequence[tuple[float, float, float]] = ((0.16, 0.12, 0.10), (0.14, 0.16, 0.18), (0.10, 0.10, 0.06))
"""Of the boxes of `room()`."""


def walk(a: float) -> np.ndarray:
    return looking((-0.25 + 0.5 * a, -0.5 + 0.1 * np.sin(3 * a), 0.45 + 0.06 * np.sin(5 * a)), (0.1 * np.sin(2 * a), 0.15, 0.02))


def away(a: float) -> np.ndarray:
    return looking((-0.3 + 0.5 * a, -0.55, 0.4), (0.1 - 0.25 * a, 0.35 + 0.5 * a, 0.05 + 0.25 * a))


def turn(a: float) -> np.ndarray:
    return looking((0, -0.5, 0.45), (-0.2 + 0.4 * a, 0.15, 0.02 + 0.1 * np.sin(4 * a)))


PATHS: Mapping[str, Callable[[float], np.ndarray]] = {"walk": walk, "walk and turn away": away, "turn": turn}


@dataclass(frozen=True, slots=True)
class Filmed:
    """A rendered clip with its tables but for `camera`, the true path, and in which frames the sliding box moves."""

    item: ClipInput
    poses: Sequence[np.ndarray]
    slides: Sequence[bool]


def way_m(frame: int) -> float:
    """How far the sliding box has come: at 0.15 m/s in the first and the last third."""
    return 0.15 / FPS * (min(frame, FRAMES // 3) + max(frame - 2 * FRAMES // 3, 0))


def film(path: Callable[[float], np.ndarray], seed: int) -> Filmed:
    """Render a clip, and say masks and poses of its boxes."""
    rng = np.random.default_rng([seed, 77])
    poses = [path(i / (FRAMES - 1)) for i in range(FRAMES)]
    bias = 1 + rng.normal(0, DEPTH_SHARE, 3)
    frames, masks, objects = [], [], []
    for i, T in enumerate(poses):
        rgb, seen = render_room(CAMERA, T, _patches(i), seed, i)
        frames.append(Frame(i, i / FPS, rgb))
        for box in range(3):
            mask = (seen >= PATCHES_OF_ROOM + 5 * box) & (seen < PATCHES_OF_ROOM + 5 * box + 5)
            if mask.sum() >= 400:
                masks.append(_at(i, box) | _mask(mask))
                objects.append(_at(i, box) | _pose(invert(T) @ _place(box, i), box, float(bias[box]), rng))
    clip = Clip("v-0123456789ab", "c", Path("bench.mp4"), "0" * 64, 0, FRAMES, 0, FRAMES, 0.0, FRAMES / FPS, Fraction(FPS), 640, 480)
    tables = {"masks": masks, "hand_pose": [], "object_pose": objects}
    made = {name: schema.from_rows(name, rows) if rows else schema.empty(name) for name, rows in tables.items()}
    slides = [way_m(i + 1) > way_m(i) and way_m(i) > way_m(i - 1) for i in range(FRAMES)]
    return Filmed(ClipInput(clip, made, Sidecar(), CAMERA, 1, lambda: iter(frames)), poses, slides)


def _patches(frame: int) -> tuple[Patch, ...]:
    first = PATCHES_OF_ROOM + 5 * SLIDING
    moved = [replace(p, corner_m=(p.corner_m[0] - way_m(frame), *p.corner_m[1:])) for p in room()[first : first + 5]]
    return (*room()[:first], *moved, *room()[first + 5 :])


def _place(box: int, frame: int) -> np.ndarray:
    corner, (w, d, h) = np.array(_patches(frame)[PATCHES_OF_ROOM + 5 * box + 1].corner_m), SIZES_M[box]
    return make_transform(np.eye(3), corner + np.array([w, d, h]) / 2)


def _at(frame: int, box: int) -> dict[str, Any]:
    about = {"video_id": "v-0123456789ab", "clip_id": "c", "frame_index": frame, "timestamp_s": frame / FPS, "sample_stride": 1}
    return about | {"backend": "bench", "track_id": 10 + box, "label": f"box {box}", "observed": True}


def _mask(mask: np.ndarray) -> dict[str, Any]:
    return {"role": "object", "score": 1.0, "rle": rle.encode(mask), "mask_scale": 1.0, "bbox_px": rle.mask_bbox(mask)} | {
        "area_px": int(mask.sum())
    }


def _pose(T: np.ndarray, box: int, bias: float, rng: np.random.Generator) -> dict[str, Any]:
    R = rotations(np.radians(rng.normal(0, POSE_DEG / np.sqrt(3), (1, 3))))[0] @ T[:3, :3]
    said = {"dimensions_m": SIZES_M[box], "scale_source": "dimensions", "converged": True, "depth_error_share": DEPTH_SHARE}
    return pose_columns(R, T[:3, 3] * bias + rng.normal(0, POSE_M, 3)) | said | intrinsics(CAMERA)


def camera_table(filmed: Filmed, way: str) -> pa.Table:
    """Table `camera`, by one of WAYS."""
    if way == "without":
        return schema.empty("camera")
    if way == "colmap":
        return colmap.Backend(colmap.ColmapSettings(), 1).run(filmed.item)
    share, scale = (0.25, 1.17) if way == "hands" else (None, 1.0)
    rows = []
    for frame, T in zip(filmed.item.frames(), filmed.poses, strict=True):
        row = {k: v for k, v in _at(frame.index, 0).items() if k not in ("track_id", "label", "observed")}
        row |= pose_columns(T[:3, :3], T[:3, 3] * scale) | intrinsics(CAMERA) | {"scale_error_share": share}
        rows.append(row | {"scale_source": "hands" if share else "given", "position_units": T[:3, 3], "metres_per_unit": scale})
    return schema.from_rows("camera", rows)


def judged(filmed: Filmed, way: str) -> Iterator[tuple[bool, bool | None, bool]]:
    """Of each row of `movement`: whether it moves, whether it is said to, and whether the camera's poses say so."""
    item = replace(filmed.item, tables={**filmed.item.tables, "camera": camera_table(filmed, way)})
    for row in classical.Backend(classical.MovementSettings(), 1).run(item).to_pylist():
        sliding, frame = row["track_id"] == 10 + SLIDING, row["frame_index"]
        near = range(max(frame - 3, 0), min(frame + 4, FRAMES))
        if sliding and len({filmed.slides[f] for f in near}) > 1:
            continue  # it begins or ends to slide within the window over which speeds are taken
        yield sliding and filmed.slides[frame], row["state"] and row["state"] == "moving", row["background_source"] == "camera"


def shares(said: Sequence[bool | None], truth: bool) -> str:
    return f"{np.mean([s is truth for s in said]):.3f} (wrong {np.mean([s is (not truth) for s in said]):.3f}) of {len(said)}"


def joined(seed: int) -> str:
    """Reconstruct the two halves of a walk, link them, and compare with the truth."""
    filmed, tables, clips = film(walk, seed), [], []
    for name, (start, end) in {"a": (0, 36), "b": (24, FRAMES)}.items():
        frames = [frame for frame in filmed.item.frames() if start <= frame.index < end]
        tables.append(colmap.Backend(colmap.ColmapSettings(), 1).run(replace(filmed.item, open_frames=lambda frames=frames: iter(frames))))
        at = tables[-1].schema.get_field_index("clip_id")
        tables[-1] = tables[-1].set_column(at, tables[-1].schema.field(at), pa.array([name] * tables[-1].num_rows))
        clips.append(
            {"run_id": "r", "video_id": tables[-1]["video_id"][0].as_py(), "clip_id": name, "scene_index": 0}
            | {"frame_start": start, "frame_end": end}
        )
    rows = pa.concat_tables(tables)
    with duckdb.connect() as connection:
        connection.register("clips", pa.Table.from_pylist(clips))
        connection.register("camera", rows.append_column("run_id", pa.array(["r"] * rows.num_rows)))
        link = dict(zip(*_row(connection, links.clip_links("clips", "camera"), "b"), strict=True))
    if link["reason"]:
        return f"broken: {link['reason']}"
    R = matrix_from_quaternion(np.array([link[f"q{a}"] for a in "wxyz"]))
    ends = {"a": (1.0, np.eye(3), np.zeros(3)), "b": (link["scale"], R, np.array([link[f"{a}_units"] for a in "xyz"]))}
    posed = [row for row in rows.to_pylist() if row["qw"] is not None]
    units = {clip: np.array([row["position_units"] for row in posed if row["clip_id"] == clip]) for clip in ends}
    true = {clip: np.array([filmed.poses[row["frame_index"]][:3, 3] for row in posed if row["clip_id"] == clip]) for clip in ends}
    moved = np.concatenate([s * units[clip] @ turn.T + t for clip, (s, turn, t) in ends.items()])
    ate = [f"{clip} {_ate_mm(units[clip], true[clip]):.2f}" for clip in ends]
    both = _ate_mm(moved, np.concatenate(list(true.values())))
    return f"ATE {', '.join(ate)}, joined {both:.2f} mm; {link['shared_frames']} frames, residual {link['residual_deg']:.3f} deg"


def _row(connection: duckdb.DuckDBPyConnection, sql: str, clip_id: str) -> tuple[list[str], tuple[Any, ...]]:
    found = connection.execute(f"SELECT * FROM ({sql}) WHERE clip_id = '{clip_id}'")
    return [column[0] for column in found.description], found.fetchall()[0]


def _ate_mm(units: np.ndarray, true_m: np.ndarray) -> float:
    s, R, t = align_similarity(units, true_m)
    return float(1e3 * np.sqrt(((s * units @ R.T + t - true_m) ** 2).sum(1).mean()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="?", type=int, default=3)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--links", action="store_true")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    if asked.links:
        for seed in range(asked.first, asked.first + asked.seeds):
            print(f"FIGURE world, links, seed {seed}: {joined(seed)}", flush=True)
        return 0
    for name, path in PATHS.items():
        filmed = [film(path, seed) for seed in range(asked.first, asked.first + asked.seeds)]
        for way in asked.ways:
            rows = [row for each in filmed for row in judged(each, way)]
            rest, moving = [said for moves, said, _ in rows if not moves], [said for moves, said, _ in rows if moves]
            print(
                f"FIGURE world, {name}, {way}: rest still {shares(rest, False)}, moving {shares(moving, True)}, "
                f"by camera {np.mean([by for *_, by in rows]):.3f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
