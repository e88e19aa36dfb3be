"""Stage `fusion`: error and jitter of hands before and after it, where the truth is known, and on real video.

    python -m benchmarks.bench_fusion [INPUT ...]

Inputs: `noisy` (true hands of synthetic scenes with noise, dropouts and outliers added), `kitchen` (the example scene through detections and
hand_pose; robot joints too), `rendered` (two other scenes likewise), `stereo` (two calibrated views of one hand; joints triangulated from
both are the truth, but for the board's unit, which is not known: it is fitted), `golden`, `blocks` (real videos without truth: jitter, and how far
joints move in the picture) and `objects` (object poses of the example scene, smoothed by the same means); all by default, those that need
`../shared/data` only where that is there.

Errors are means over frames and joints in mm: of the wrist; of the wrist after distances are multiplied by one factor for the whole hand, since no
single view tells the size; of joints about the wrist. Jitter is the 95th percentile of the wrist's acceleration. Exits with 1 where an error
with truth grows by more than a twentieth over an input, or jitter does not fall.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.bench_depth_error import shots
from benchmarks.bench_hands import Ours as HandsOfVideo
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.fusion import _hands, _smooth
from egoworld_ops.operators.fusion.smoothing import SmoothingSettings
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.operators.rows import camera_of, pose_columns, pose_of
from egoworld_ops.robots import ROBOTS
from egoworld_ops.score.hands import jitter_m_s2
from egoworld_ops.synthetic import SceneConfig, load_truth, render_scene
from egoworld_ops.synthetic.hand import skeleton
from egoworld_ops.synthetic.script import state_at
from egoworld_ops.types import HANDS, Camera, Clip, Frame, Hand
from egoworld_ops.video import decoding
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.geometry import invert, transform
from egoworld_ops.vision.hand_frame import in_wrist_frame, wrist_rotation
from egoworld_ops.vision.lenses import unproject

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
EXAMPLE = ROOT / "examples" / "synthetic" / "kitchen.mp4"
SEEDS = (31, 32, 33, 34)
RENDERED_SEEDS, RENDERED_FRAMES = (61, 62), 36
SIZE_NOISE, JOINT_NOISE_M, DROPPED, OUTLIERS, OUTLIER_M, LOST_FRAMES = 0.08, 0.004, 0.05, 0.03, 0.1, 5
MOST_GROWTH = 1.05
FARTHEST_RAYS = 1.0
"""Rays of the two views that pass each other farther apart, in units of the board, are of no joint."""
Key = tuple[int, str]
Truth = Mapping[Key, np.ndarray]


@dataclass(frozen=True)
class Input:
    """Rows of hand_pose of one clip, the true (21, 3) joints by frame and hand where they are known, and whether the truth's unit is known."""

    name: str
    poses: pa.Table
    truth: Truth
    fps: float
    to_scale: bool = True


def fused(found: Input) -> list[dict[str, Any]]:
    """The rows of the stage as shipped."""
    frames = found.poses["frame_index"].to_pylist()
    end = max(frames) + 1
    clip = Clip("bench", "c", Path("v"), "0" * 64, 0, end, 0, end, 0.0, end / found.fps, Fraction(30), 640, 480)
    blank = np.zeros((2, 2, 3), np.uint8)

    def pictures() -> Iterator[Frame]:
        return (Frame(i, i / found.fps, blank) for i in range(end))

    backend = operators.load("fusion", "smoothing")
    tables = {"hand_pose": found.poses, "depth": schema.empty("depth")}
    item = ClipInput(clip, tables, Sidecar(), Camera(500, 500, 319.5, 239.5, 640, 480, "file"), 1, pictures)
    return backend(SmoothingSettings(), 1).run(item).to_pylist()


def noisy() -> Iterator[Input]:
    """Of each scene one shot: frames whose hands are too large or small, joints off, frames lost alone and in a run, frames far off."""
    for seed in SEEDS:
        config = SceneConfig(seed=seed, frames_per_shot=90)
        rng = np.random.default_rng(seed)
        truth: dict[Key, np.ndarray] = {}
        rows = []
        for i in range(config.frames_per_shot):
            state = state_at(config, i)
            for pose in state.hands:
                truth[i, pose.hand] = transform(invert(state.T_world_camera), skeleton(pose).joints_m)
        for hand in HANDS:
            frames = [i for i, side in truth if side == hand]
            run = rng.integers(0, max(len(frames) - LOST_FRAMES, 1))
            slow = np.convolve(rng.normal(0, SIZE_NOISE, len(frames) + 9), np.ones(10) / 10**0.5, "valid")
            for n, i in enumerate(frames):
                joints_m = truth[i, hand] + rng.normal(0, JOINT_NOISE_M, (21, 3))
                joints_m *= np.exp(0.7 * slow[n] + 0.7 * rng.normal(0, SIZE_NOISE))
                if rng.random() < OUTLIERS:
                    joints_m += rng.normal(0, OUTLIER_M, 3)
                if rng.random() >= DROPPED and not run <= n < run + LOST_FRAMES:
                    rows.append(row_of_hand(i, i / config.fps, hand, joints_m))
        yield Input(f"noisy, seed {seed}", schema.from_rows("hand_pose", rows), truth, config.fps)


def rendered() -> Iterator[Input]:
    """Scenes that nothing was chosen on."""
    for seed in RENDERED_SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            config = SceneConfig(seed=seed, frames_per_shot=RENDERED_FRAMES)
            yield from of_scene(f"rendered, seed {seed}", render_scene(config, Path(folder), "scene"))


def of_scene(name: str, video: Path) -> Iterator[Input]:
    """The shots of a rendered scene."""
    truth = load_truth(video.with_suffix(".truth"))
    true = {(r["frame_index"], r["hand"]): np.array(r["joints_m"], np.float64) for r in truth.hands.to_pylist()}
    for n, item in enumerate(shots(video, truth)):
        yield Input(f"{name}, shot {n}", _through(item, "detections", "hand_pose")["hand_pose"], true, 30)


def stereo() -> Iterator[Input]:
    """Both views; the joints of the truth lie where the rays of the two views pass each other."""
    folder = DATA / "handpose3d_stereo"
    if not folder.exists():
        return
    tables, placed = [], []
    for n in (0, 1):
        said = [line.split() for line in (folder / f"c{n}.dat").read_text().splitlines()]
        (fx, _, cx), (_, fy, cy) = (map(float, row) for row in said[1:3])
        camera = Camera(fx, fy, cx, cy, 720, 720, "file", "plumb_bob", tuple(map(float, said[5])))
        path = folder / f"cam{n}_test.mp4"
        clip = Clip("bench", "c", path, "0" * 64, 0, 378, 0, 378, 0.0, 12.6, Fraction(30), 720, 720)
        item = ClipInput(clip, {}, Sidecar(), camera, 1, lambda path=path: decoding.decode(path, 0, 378, threads=1))
        tables.append(_through(item, "detections", "hand_pose")["hand_pose"])
        lines = [line.split() for line in (folder / f"rot_trans_c{n}.dat").read_text().splitlines() if line and line[0] != "#"]
        placed.append((np.array(lines[1:4], np.float64), np.array(lines[5:8], np.float64)[:, 0]))
    views = [{r["frame_index"]: r for r in table.to_pylist() if r["hand"] == "right" and r["joints_m"] is not None} for table in tables]
    world: dict[int, np.ndarray] = {}
    for i in sorted(views[0].keys() & views[1].keys()):
        joints, apart = _triangulated([view[i] for view in views], placed)
        if apart.max() < FARTHEST_RAYS:
            world[i] = joints
    unit_m = np.median([_size(views[1][i]["joints_m"]) / _size(joints) for i, joints in world.items()])
    for n, (table, (R, t)) in enumerate(zip(tables, placed, strict=True)):
        truth = {(i, "right"): (joints @ R.T + t) * unit_m for i, joints in world.items()}
        yield Input(f"stereo, view {n}", table.filter(pa.compute.equal(table["hand"], "right")), truth, 30, to_scale=False)


def of_video(name: str, file: str) -> Iterator[Input]:
    """A real video without truth."""
    if (DATA / file).exists():
        yield Input(name, HandsOfVideo(DATA / file, {})()["poses"], {}, 30)


INPUTS: dict[str, Callable[[], Iterator[Input]]] = {
    "noisy": noisy,
    "kitchen": lambda: of_scene("kitchen", EXAMPLE),
    "rendered": rendered,
    "stereo": stereo,
    "golden": lambda: of_video("golden", "dexretarget_human_hand_video.mp4"),
    "blocks": lambda: of_video("blocks", "sam2_03_blocks.mp4"),
}


def _through(item: ClipInput, *stages: str) -> dict[str, pa.Table]:
    """The tables of stages of the laptop's backends, one after the other."""
    tables: dict[str, pa.Table] = {"depth": schema.empty("depth")}
    for stage in stages:
        backend = operators.load(stage, operators.stages()[stage].default_backend)
        inputs = {name: tables[name] for name in operators.stages()[stage].inputs}
        tables[stage] = backend(backend.Settings(), 1).run(replace(item, tables=inputs))
    return tables


def row_of_hand(frame: int, time_s: float, hand: Hand, joints_m: np.ndarray) -> dict[str, Any]:
    """A row of hand_pose."""
    about = {"video_id": "bench", "clip_id": "c", "frame_index": frame, "timestamp_s": time_s, "sample_stride": 1, "backend": "bench"}
    return about | dict(operators.stages()["hand_pose"].sample[0]) | {"hand": hand, "joints_m": joints_m}


def _triangulated(rows: Sequence[Mapping[str, Any]], placed: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(21, 3) points nearest to the rays of two views, in the board's frame and unit, and (21,) their distances to both together."""
    across, offsets = [], []
    for row, (R, t) in zip(rows, placed, strict=True):
        ray = unproject(camera_of(row), np.array(row["joints_px"], np.float64)) @ R
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        across.append(np.eye(3) - ray[:, :, None] * ray[:, None, :])
        offsets.append(across[-1] @ (-R.T @ t))
    joints = np.linalg.solve(sum(across), sum(offsets)[..., None])[..., 0]  # type: ignore[arg-type,index]
    apart = sum(np.linalg.norm((P @ joints[..., None])[..., 0] - o, axis=1) for P, o in zip(across, offsets, strict=True))
    return joints, np.asarray(apart)


def _size(joints: Any) -> float:
    """Length of the palm."""
    points = np.asarray(joints, np.float64)
    return float(np.linalg.norm(points[[5, 9, 13, 17]] - points[0], axis=1).mean())


def jitter(times_s: np.ndarray, wrist_m: np.ndarray) -> float:
    """95th percentile of acceleration, m/s^2, where frames follow each other."""
    return float(np.percentile(jitter_m_s2(times_s, wrist_m), 95))


def errors(joints_m: np.ndarray, true_m: np.ndarray) -> np.ndarray:
    """Wrist, wrist after one factor, joints about the wrist: means over (T, 21, 3), mm."""
    factor = np.median(np.linalg.norm(true_m[:, 0], axis=1) / np.linalg.norm(joints_m[:, 0], axis=1))
    about = (joints_m - joints_m[:, :1]) - (true_m - true_m[:, :1])
    off = (joints_m[:, 0] - true_m[:, 0], factor * joints_m[:, 0] - true_m[:, 0], about)
    return np.array([1e3 * np.linalg.norm(o, axis=-1).mean() for o in off])


def compare(found: Input, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Print the figures of each hand; error means before and after, empty where there is no truth, followed by jitter."""
    before, after = [], []
    for hand in HANDS:
        measured = {r["frame_index"]: r for r in found.poses.to_pylist() if r["hand"] == hand and r["joints_m"] is not None}
        made = {r["frame_index"]: r for r in rows if r["hand"] == hand and r["joints_m"] is not None}
        both = sorted(measured.keys() & made.keys())
        if len(both) < 20:
            continue
        joints_m, smooth_m = (np.array([r[i]["joints_m"] for i in both], np.float64) for r in (measured, made))
        times_s = np.array([made[i]["timestamp_s"] for i in sorted(made)])
        shaken = jitter(np.array([measured[i]["timestamp_s"] for i in both]), joints_m[:, 0])
        calm = jitter(times_s, np.array([made[i]["joints_m"][0] for i in sorted(made)], np.float64))
        filled = [i for i in made if not made[i]["observed"]]
        known = [n for n, i in enumerate(both) if (i, hand) in found.truth]
        line = f"FIGURE fusion, {found.name}, {hand} ({len(both)} frames, {len(filled)} filled): "
        if known:
            true_m = np.array([found.truth[both[n], hand] for n in known])
            was, now = errors(joints_m[known], true_m), errors(smooth_m[known], true_m)
            if not found.to_scale:
                was[0] = now[0] = np.nan
            before.append([*was, shaken])
            after.append([*now, calm])
            line += f"wrist {was[0]:.1f} to {now[0]:.1f} mm, up to one factor {was[1]:.1f} to {now[1]:.1f}, "
            line += f"joints about it {was[2]:.1f} to {now[2]:.1f}, "
            if (told := [i for i in filled if (i, hand) in found.truth]) and found.to_scale:
                off = [np.linalg.norm(np.subtract(made[i]["joints_m"][0], found.truth[i, hand][0])) for i in told]
                line += f"filled frames {1e3 * np.mean(off):.1f}, "
        else:
            shown = [j[..., :2] / j[..., 2:] for j in (joints_m, smooth_m)]
            extent = (shown[0].max(1) - shown[0].min(1)).max(1)
            moved = np.linalg.norm(shown[1] - shown[0], axis=-1).mean(1) / extent
            before.append([shaken])
            after.append([calm])
            line += f"joints move by {np.median(moved):.1%} of the hand in the picture in the median, p95 {np.percentile(moved, 95):.1%}, "
        print(f"{line}acceleration p95 {shaken:.1f} to {calm:.1f} m/s^2", flush=True)
    return np.array(before), np.array(after)


def robots(found: Input, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print how far robot joints are from those of the true hand, from hand_pose and from fusion."""
    known = {(r["frame_index"], r["hand"]): r for r in rows if r["observed"] and (r["frame_index"], r["hand"]) in found.truth}
    measured = {(r["frame_index"], r["hand"]): r for r in found.poses.to_pylist() if r["joints_m"] is not None}
    keys = sorted(known.keys() & measured.keys())
    taken = ("joints_m", "joints_wrist_m", "qw", "qx", "qy", "qz", "x_m", "y_m", "z_m")
    kinds = {
        "truth": [{**known[k], **_posed(found.truth[k], k[1])} for k in keys],
        "hand_pose": [{**known[k], **{name: measured[k][name] for name in taken}} for k in keys],
        "fusion": [known[k] for k in keys],
    }
    dex = operators.load("mapping", "dex")
    clip = Clip("bench", "c", Path("v"), "0" * 64, 0, 1000, 0, 1000, 0.0, 33.3, Fraction(30), 640, 480)
    mapped = {}
    for kind, hands in kinds.items():
        table = {"fusion": schema.from_rows("fusion", hands)}
        item = ClipInput(clip, table, Sidecar(), Camera(500, 500, 319.5, 239.5, 640, 480, "file"), 1, lambda: iter(()))
        mapped[kind] = {(r["frame_index"], r["hand"]): r for r in dex(dex.Settings(), 1).run(item).to_pylist()}
    models = {hand: HandModel(getattr(ROBOTS["allegro"], hand)) for hand in HANDS}
    for kind in ("hand_pose", "fusion"):
        pairs = [(mapped[kind][k], mapped["truth"][k]) for k in keys]
        joints_rad = np.mean([np.abs(np.subtract(a["qpos_rad"], b["qpos_rad"])).mean() for a, b in pairs])
        tips = [models[a["hand"]].tips_m(np.array(r["qpos_rad"])) for a, b in pairs for r in (a, b)]
        tips_mm = 1e3 * np.mean([np.linalg.norm(a - b, axis=1).mean() for a, b in zip(tips[::2], tips[1::2], strict=True)])
        residual_mm = 1e3 * np.median([a["residual_m"] for a, _ in pairs])
        speed = np.percentile([a["joint_speed_rad_s"] for a, _ in pairs if a["joint_speed_rad_s"] is not None], 95)
        print(
            f"FIGURE fusion, {found.name}, robot joints from {kind} ({len(keys)} hands): {joints_rad:.3f} rad from those of the true hand, "
            f"fingertips {tips_mm:.1f} mm; from their own targets {residual_mm:.1f} mm; joint speed p95 {speed:.2f} rad/s",
            flush=True,
        )


def _posed(joints_m: np.ndarray, hand: str) -> dict[str, Any]:
    R = wrist_rotation(joints_m, "left" if hand == "left" else "right")
    assert R is not None
    return {"joints_m": joints_m, "joints_wrist_m": in_wrist_frame(joints_m, R), **pose_columns(R, joints_m[0])}


def objects() -> None:
    """Print what smoothing does to the positions of objects, which the stage leaves alone."""
    truth = load_truth(EXAMPLE.with_suffix(".truth"))
    true = {r["frame_index"]: np.array([r["x_m"], r["y_m"], r["z_m"]]) for r in truth.objects.to_pylist()}
    settings = SmoothingSettings()
    for n, item in enumerate(shots(EXAMPLE, truth)):
        table = _through(item, "detections", "hand_pose", "masks", "object_pose")["object_pose"]
        rows = [(r, T[:3, 3]) for r in table.to_pylist() if (T := pose_of(r)) is not None]
        times_s, position_m = np.array([r["timestamp_s"] for r, _ in rows]), np.array([p for _, p in rows])
        tracks, seen = Tracks.of(times_s, settings.gap_s), np.ones(len(rows), bool)
        distance_m = np.linalg.norm(position_m, axis=1, keepdims=True)
        shares = [_smooth.noise(tracks, position_m / distance_m, seen, _hands.DIRECTION)]
        shares.append(_smooth.noise(tracks, np.log(distance_m), seen, _hands.DEPTH))
        smooth_m, _ = _smooth.smooth_positions(
            tracks, position_m, seen, np.stack(shares, 1), settings.acceleration_m_s2, settings.outlier_errors
        )
        true_m = np.array([true[r["frame_index"]] for r, _ in rows])
        off = [1e3 * np.linalg.norm(p - true_m, axis=1).mean() for p in (position_m, smooth_m)]
        shaken = [jitter(times_s, p) for p in (position_m, smooth_m, true_m)]
        print(
            f"FIGURE fusion, objects, shot {n} ({len(rows)} frames): {off[0]:.2f} to {off[1]:.2f} mm, acceleration p95 {shaken[0]:.1f} to "
            f"{shaken[1]:.1f} m/s^2, in truth {shaken[2]:.1f}",
            flush=True,
        )


def main(names: Sequence[str]) -> int:
    missed = False
    for name in names or (*INPUTS, "objects"):
        if name == "objects":
            objects()
            continue
        before, after = [], []
        for found in INPUTS[name]():
            rows = fused(found)
            was, now = compare(found, rows)
            before += list(was)
            after += list(now)
            if name in ("kitchen", "rendered"):
                robots(found, rows)
        if before:
            was, now = np.mean(before, 0), np.mean(after, 0)
            missed |= bool((now[:-1] > MOST_GROWTH * was[:-1]).any() or now[-1] >= was[-1])
            what = ("wrist, mm", "wrist up to one factor, mm", "joints about it, mm")[: len(was) - 1]
            said = [f"{w} {a:.1f} to {b:.1f}" for w, a, b in zip((*what, "acceleration p95, m/s^2"), was, now, strict=True)]
            print(f"FIGURE fusion, {name}, mean of {len(before)} hands: {'; '.join(said)}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
