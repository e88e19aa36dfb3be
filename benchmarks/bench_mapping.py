"""Stages `fusion` and `mapping` beside dex-retargeting's own sequential retargeting (its Allegro settings, with its low-pass filter).

    python -m benchmarks.bench_mapping [INPUT ...]

Inputs: `golden` (joints of a real right hand at 30 Hz), `glove` (a data glove, as sampled and at 30 Hz), `synthetic` (the rendered scene's true
hands with noise and outliers added), and `video`, `blocks` (real videos through detections and hand_pose as shipped); all by default, those
that need `../shared/data` only where that is there. Ours gets them through `fusion`, as `mapping` does, at half a metre from the camera where
they come without a place; the library gets them as `hand_pose` has them: in the wrist frame of their own joints, noise and all.

`library` is dex-retargeting's vector retargeting with the settings it ships (scale 1.6, wrist 0.095 m behind the palm, filter 0.2), judged by
its own targets; `library, our targets` is the same, and `library, positions` its position retargeting, with the targets, links and scale of
ours; `without fusion` is ours of the hands as they are; `each frame alone` is that with all gaps; `true hand` is ours of the true hand. Errors are of
the fingertips, from the targets of the hands that each one gets, and from those of the true hand where it is known. A jump is a step of a joint by
more than 0.5 rad while no target moved by 5 mm. Exits with 1 where ours is not as near as the library as shipped, is faster at p95, jumps, or
is farther from the true hand with `fusion` than without.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dex_retargeting.optimizer import Optimizer, PositionOptimizer, VectorOptimizer
from dex_retargeting.optimizer_utils import LPFilter
from dex_retargeting.robot_wrapper import RobotWrapper
from dex_retargeting.seq_retarget import SeqRetargeting

from benchmarks import bench_fusion
from benchmarks.bench_hands import Ours as HandsOfVideo
from egoworld_ops.contract import schema
from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.mapping import _targets
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.operators.mapping._solver import HandSolver, Weights
from egoworld_ops.operators.mapping.dex import DexSettings, finger_lengths
from egoworld_ops.robots import FINGERS, ROBOTS
from egoworld_ops.synthetic.config import SceneConfig
from egoworld_ops.synthetic.hand import skeleton
from egoworld_ops.synthetic.script import state_at
from egoworld_ops.types import HANDS, Hand
from egoworld_ops.vision.hand_frame import wrist_rotations

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
STEP_RAD, TARGET_STEP_M = 0.5, 0.005
AWAY_M = np.array([0.0, 0.0, 0.5])
LIBRARY_SCALE, LIBRARY_WRIST_M, LIBRARY_ALPHA = 1.6, 0.095, 0.2
GLOVE_JOINTS = [0, *range(1, 5), *range(6, 10), *range(11, 15), *range(16, 20), *range(21, 25)]
"""The contract's 21 joints among the glove's 25: without the four fingers' carpometacarpal joints."""
NOISE_M, OUTLIER_M, OUTLIER_SHARE = 0.003, 0.05, 0.02


@dataclass(frozen=True)
class Hands:
    """One hand over time: (T, 21, 3) joints in the camera frame, (T,) seconds, and the true joints where they are known.

    Those that come without a place are in a frame that does not move, at `AWAY_M`.
    """

    name: str
    side: Hand
    joints_m: np.ndarray
    times_s: np.ndarray
    true_m: np.ndarray | None = None

    @property
    def alone(self) -> np.ndarray:
        """(T, 21, 3) joints of each frame in its own wrist frame."""
        return self._in_wrist_frame(self.joints_m)

    @property
    def true(self) -> np.ndarray | None:
        """The true joints in the true wrist frame."""
        return None if self.true_m is None else self._in_wrist_frame(self.true_m)

    @property
    def fused(self) -> np.ndarray:
        """As `alone`, after `fusion`."""
        rows = [bench_fusion.row_of_hand(i, t, self.side, j) for i, (t, j) in enumerate(zip(self.times_s, self.joints_m, strict=True))]
        fps = 1 / float(np.median(np.diff(self.times_s)))
        made = bench_fusion.fused(bench_fusion.Input(self.name, schema.from_rows("hand_pose", rows), {}, fps))
        known = {row["frame_index"]: row["joints_wrist_m"] for row in made if row["joints_wrist_m"] is not None}
        return _nearest({frame: np.array(joints_m) for frame, joints_m in known.items()}, len(rows))

    def _in_wrist_frame(self, joints_m: np.ndarray) -> np.ndarray:
        R = wrist_rotations(joints_m, np.full(len(joints_m), self.side == "right"))
        turned_m = (joints_m - joints_m[:, :1]) @ R
        return _nearest({int(i): turned_m[i] for i in np.flatnonzero(np.isfinite(R).all((1, 2)))}, len(joints_m))


def _nearest(known: Mapping[int, np.ndarray], n_frames: int) -> np.ndarray:
    """(n_frames, 21, 3): those of each frame, or of the nearest one of which they are known."""
    return np.array([known[min(known, key=lambda frame: abs(frame - i))] for i in range(n_frames)])


@dataclass(frozen=True)
class Result:
    """Joint values (T, n), fingertips, their targets and those of the true hand (T, n_fingers, 3), all targets (T, n, 3), and seconds for all."""

    qpos: np.ndarray
    tips_m: np.ndarray
    targets_m: np.ndarray
    true_m: np.ndarray | None
    all_targets_m: np.ndarray
    seconds: float

    def figures(self, tracks: Tracks) -> dict[str, float]:
        """The figures that are compared."""
        steps_rad = np.abs(np.diff(self.qpos, axis=0))[tracks.joined]
        moved_m = np.linalg.norm(np.diff(self.all_targets_m, axis=0), axis=-1).max(1)[tracks.joined]
        error_mm = np.linalg.norm(self.tips_m - self.targets_m, axis=-1) * 1e3
        large = steps_rad.max(1) > STEP_RAD
        return {
            "steps": float(large.mean()),
            "p95_rad_s": float(np.percentile(steps_rad / tracks.step_s[tracks.joined, None], 95)),
            "median_mm": float(np.median(error_mm)),
            "p95_mm": float(np.percentile(error_mm, 95)),
            "true_mm": np.nan if self.true_m is None else float(np.median(np.linalg.norm(self.tips_m - self.true_m, axis=-1)) * 1e3),
            "jumps": float((large & (moved_m < TARGET_STEP_M)).sum()),
            "ms": self.seconds / len(self.qpos) * 1e3,
        }


def ours(hands: Hands, joints_m: np.ndarray, gap_s: float) -> Result:
    """The stage's own of (T, 21, 3) joints in the wrist frame, as shipped but for the gap."""
    settings = DexSettings()
    hand = getattr(ROBOTS["allegro"], hands.side)
    model = HandModel(hand)
    weights = Weights(settings.middle_weight, settings.speed_weight, settings.acceleration_weight)
    solver = HandSolver(model, weights, settings.max_iterations)
    started = time.perf_counter()
    targets = our_targets(model, joints_m)
    qpos, _ = solver.solve(targets.tips_m, targets.middles_m, Tracks.of(hands.times_s, gap_s))
    seconds = time.perf_counter() - started
    every_m = np.concatenate([targets.tips_m, targets.middles_m], 1)
    return Result(qpos, model.tips_m(qpos), targets.tips_m, true_tips(model, hands), every_m, seconds)


def true_tips(model: HandModel, hands: Hands) -> np.ndarray | None:
    """The targets of the fingertips of the true hand, where it is known."""
    return None if hands.true is None else our_targets(model, hands.true).tips_m


def our_targets(model: HandModel, joints_m: np.ndarray) -> _targets.Targets:
    """The targets as the stage makes them."""
    middle = FINGERS.index("middle")
    scaling = model.hand.hand_length_m / float(np.median([finger_lengths(j)[middle] for j in joints_m]))
    return _targets.of(model, joints_m, scaling)


def library(hands: Hands, kind: str) -> Result:
    """dex-retargeting's own."""
    model = HandModel(getattr(ROBOTS["allegro"], hands.side))
    robot = RobotWrapper(str(model.path))
    joints_m = hands.alone
    targets = our_targets(model, joints_m)
    tips_m, links = targets.tips_m, list(model.tip_links)
    optimizer: Optimizer
    if kind == "positions":
        wanted_m = np.concatenate([tips_m, targets.middles_m], 1)
        links += [m for m in model.middle_links if m]
        optimizer = PositionOptimizer(robot, robot.dof_joint_names, links, np.zeros(len(links), int))
    else:
        if kind == "own":
            fingers = [FINGERS.index(f) for f in model.fingers]
            tips_m = LIBRARY_SCALE * joints_m[:, [4 + 4 * f for f in fingers]] - [0, 0, LIBRARY_WRIST_M]
        wanted_m = tips_m
        optimizer = VectorOptimizer(
            robot, robot.dof_joint_names, [model.hand.base_link] * len(links), links, np.zeros((2, len(links)), int)
        )
    retargeting = SeqRetargeting(optimizer, has_joint_limits=True, lp_filter=LPFilter(LIBRARY_ALPHA))
    started = time.perf_counter()
    solved = np.array([retargeting.retarget(w) for w in wanted_m])
    seconds = time.perf_counter() - started
    qpos = solved[:, model.joint_indices]
    true_m = None if kind == "own" else true_tips(model, hands)
    return Result(qpos, model.tips_m(qpos), tips_m, true_m, wanted_m, seconds)


def golden() -> Iterator[Hands]:
    """The joints that dex-retargeting brings for its own example."""
    path = DATA / "dexretarget_human_joint_right.npy"
    if path.exists():
        joints_m = np.load(path)
        yield Hands("golden", "right", joints_m + AWAY_M, np.arange(len(joints_m)) / 30)


def glove() -> Iterator[Hands]:
    """A data glove, as sampled (118 Hz) and at about 30 Hz."""
    path = DATA / "manus_glove" / "manus_right_subject-000.npz"
    if not path.exists():
        return
    found = np.load(path)
    joints_m = np.asarray(found["data"][:, GLOVE_JOINTS, :3], np.float64)
    joints_m += AWAY_M - joints_m[:, :1]
    yield Hands("glove, 118 Hz", "right", joints_m[:2000], found["timestamps"][:2000])
    yield Hands("glove, 30 Hz", "right", joints_m[::4], found["timestamps"][::4])


def synthetic() -> Iterator[Hands]:
    """The true hands of two rendered scenes with noise on every joint and some frames far off."""
    for seed in (3, 11):
        config = SceneConfig(seed=seed, frames_per_shot=100)
        states = [state_at(config, i) for i in range(100)]
        for side in HANDS:
            rng = np.random.default_rng(seed)
            poses = [pose for state in states for pose in state.hands if pose.hand == side]
            joints_m = np.array([skeleton(pose).joints_m for pose in poses])
            if len(joints_m) < len(states):
                continue
            joints_m += AWAY_M - joints_m[:, :1]
            noisy_m = joints_m + rng.normal(0, NOISE_M, joints_m.shape)
            noisy_m[rng.random(len(joints_m)) < OUTLIER_SHARE] += rng.normal(0, OUTLIER_M, (21, 3))
            yield Hands(f"synthetic {seed} {side}", side, noisy_m, np.arange(len(joints_m)) / config.fps, joints_m)


def of_video(name: str, file: str) -> Iterator[Hands]:
    """Both hands of a video, as detections and hand_pose find them."""
    path = DATA / file
    if not path.exists():
        return
    rows = HandsOfVideo(path, {})()["poses"].to_pylist()
    for side in HANDS:
        found = [r for r in rows if r["hand"] == side and r["joints_wrist_m"] is not None]
        if len(found) > 1:
            yield Hands(f"{name} {side}", side, np.array([r["joints_m"] for r in found]), np.array([r["timestamp_s"] for r in found]))


INPUTS: dict[str, Callable[[], Iterator[Hands]]] = {
    "golden": golden,
    "glove": glove,
    "synthetic": synthetic,
    "video": lambda: of_video("video", "dexretarget_human_hand_video.mp4"),
    "blocks": lambda: of_video("blocks", "sam2_03_blocks.mp4"),
}


def compare(hands: Hands) -> bool:
    """Print the figures of one hand; True where ours keeps to all that is asked of it."""
    gap_s = DexSettings().gap_s
    tracks = Tracks.of(hands.times_s, gap_s)
    results = {
        "ours": ours(hands, hands.fused, gap_s),
        "without fusion": ours(hands, hands.alone, gap_s),
        "each frame alone": ours(hands, hands.alone, 1e-9),
        "library": library(hands, "own"),
        "library, our targets": library(hands, "vectors"),
        "library, positions": library(hands, "positions"),
    }
    if hands.true is not None:
        results["true hand"] = ours(hands, hands.true, gap_s)
    figures = {name: result.figures(tracks) for name, result in results.items()}
    for name, f in figures.items():
        print(
            f"FIGURE mapping, {hands.name} ({len(hands.joints_m)} frames), {name}: {f['steps']:.1%} of steps > {STEP_RAD} rad, "
            f"joint speed p95 {f['p95_rad_s']:.2f} rad/s, fingertip error median {f['median_mm']:.1f}, p95 {f['p95_mm']:.1f} mm, "
            f"from the true hand's targets {f['true_mm']:.1f} mm, "
            f"{f['jumps']:.0f} jumps without a target's, {f['ms']:.2f} ms a frame",
            flush=True,
        )
    own = figures["ours"]
    for name in ("library", "library, our targets", "library, positions"):
        nearer, speed = figures[name]["median_mm"] / own["median_mm"], own["p95_rad_s"] / figures[name]["p95_rad_s"]
        print(f"FIGURE mapping, {hands.name}, against {name}: {nearer:.2f} x as near, {speed:.2f} x its joint speed p95", flush=True)
    shipped, alone = figures["library"], figures["without fusion"]
    worse = own["median_mm"] > shipped["median_mm"] or own["p95_rad_s"] > shipped["p95_rad_s"] or own["true_mm"] > alone["true_mm"]
    return not worse and not own["jumps"]


def main(names: Sequence[str]) -> int:
    torch.set_num_threads(1)
    kept = [compare(hands) for name in names or INPUTS for hands in INPUTS[name]()]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
