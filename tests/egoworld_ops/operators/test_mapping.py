"""Mapping: known joint angles are recovered from their forward kinematics; hands that cannot be mapped are null with a reason."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import pinocchio as pin
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from dex_retargeting.optimizer import VectorOptimizer
from dex_retargeting.robot_wrapper import RobotWrapper

from egoworld_ops.contract import quality, schema, validation
from egoworld_ops.errors import BadSettings, UnknownRobot
from egoworld_ops.operators import load
from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.mapping._collisions import Collisions
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.operators.mapping._solver import REST_WEIGHT, HandSolver, Weights
from egoworld_ops.robots import FINGERS, ROBOTS, Finger, Robot, RobotHand, find_robot, with_urdfs
from egoworld_ops.types import HANDS, Camera, Clip, Hand
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, rotations, transform
from tests.rows import fusion_row

CAMERA = Camera(500, 500, 319.5, 239.5, 640, 480, "file")
ALONE = {"gap_s": 1e-6}
"""Settings that solve each frame on its own."""
NO_POSE: dict[str, Any] = dict.fromkeys(("joints_wrist_m", "joints_m", "qw", "qx", "qy", "qz", "x_m", "y_m", "z_m"))


def retarget(rows: Sequence[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    """The checked mapping table of a clip with these hand poses, as rows."""
    return run(built(json.dumps(settings, default=lambda model: model.model_dump(mode="json"))), rows).to_pylist()


@cache
def built(settings: str) -> Any:
    """The backend with these settings, as JSON."""
    backend = load("mapping", "dex")
    return backend(backend.Settings(**json.loads(settings)), threads=1)


def run(backend: Any, rows: Sequence[dict[str, Any]]) -> pa.Table:
    clip = Clip("kitchen-0123456789ab", "f0000000_0000010", Path("kitchen.mp4"), "0" * 64, 0, 10, 0, 10, 0.0, 1 / 3, Fraction(30), 640, 480)
    tables = {"fusion": schema.from_rows("fusion", rows)}
    mapped: pa.Table = backend.run(ClipInput(clip, tables, Sidecar(), CAMERA, 1, lambda: iter(())))
    validation.validate("mapping", mapped)
    return mapped


def human_like(model: HandModel, qpos_rad: np.ndarray, scaling: float) -> np.ndarray:
    """(21, 3) human joints in the wrist frame whose fingertips and middle joints are the robot's; the rest lies between them."""
    tips = transform(model.T_wrist_base, model.tips_m(qpos_rad))
    middles = transform(model.T_wrist_base, model.links_m([m for m in model.middle_links if m], qpos_rad))
    joints = np.zeros((21, 3))
    joints[17:] = np.linspace([0, -0.04, 0.08], [0, -0.05, 0.16], 4) * scaling
    for name, tip, middle in zip(model.fingers, tips, middles, strict=True):
        f = 4 * FINGERS.index(name)
        joints[[f + 1, f + 2, f + 3, f + 4]] = [middle / 2, middle, (middle + tip) / 2, tip]
    return joints / scaling


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> np.ndarray:
    """(621, 21, 3) joints of a real right hand in the wrist frame, metres."""
    return np.load(shared_data / "dexretarget_human_joint_right.npy")


@pytest.fixture(scope="module")
def a_hand() -> np.ndarray:
    """(21, 3) joints of a half-open hand that the robot can take."""
    model = HandModel(ROBOTS["allegro"].right)
    return human_like(model, model.limits.mean(1), 1.3)


def library_optimizer(model: HandModel) -> VectorOptimizer:
    """dex-retargeting's own optimiser for the links that ours uses."""
    links = [*model.tip_links, *(m for m in model.middle_links if m)]
    indices = np.zeros((2, len(links)), int)
    robot = RobotWrapper(str(model.path))
    return VectorOptimizer(robot, list(model.joint_names), ["palm_link"] * len(links), links, indices, norm_delta=0.0)


def library_seconds(model: HandModel, scaled_m: np.ndarray) -> float:
    """Time that the library's own loss and solver take for (n, 21, 3) joints, each from the frame before."""
    optimizer = library_optimizer(model)
    optimizer.set_joint_limit(model.limits)
    targets = transform(invert(model.T_wrist_base), scaled_m[:, [4, 8, 12, 16, 2, 6, 10, 14]]).astype(np.float32)

    def follow() -> None:
        qpos = model.limits.mean(1)
        for target in targets:
            qpos = np.clip(optimizer.retarget(target, np.array([]), qpos), *model.limits.T)

    return timed(follow)


def timed(work: Callable[[], object]) -> float:
    """Seconds that the call takes."""
    start_s = perf_counter()
    work()
    return perf_counter() - start_s


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_joints_of_a_hand_that_was_not_seen_say_so(a_hand: np.ndarray) -> None:
    rows = retarget([fusion_row(i, hand="right", joints_wrist_m=a_hand, observed=i != 1) for i in range(3)])
    assert [(r["observed"], r["converged"]) for r in rows] == [(True, True), (False, True), (True, True)]


@pytest.mark.parametrize("hand", HANDS)
def test_random_joint_values_come_back_at_the_tips(hand: str) -> None:
    model = HandModel(getattr(ROBOTS["allegro"], hand))
    rng = np.random.default_rng(7)
    scaling, n = 1.3, 100
    qpos = rng.uniform(*model.limits.T, (n, len(model.joint_names)))
    poses = [fusion_row(i, hand=hand, joints_wrist_m=human_like(model, q, scaling)) for i, q in enumerate(qpos)]
    rows = retarget(poses, scaling=scaling, **ALONE)
    assert all(r["converged"] for r in rows)
    got = np.array([r["qpos_rad"] for r in rows])
    assert (got >= model.limits[:, 0]).all()
    assert (got <= model.limits[:, 1]).all()
    error_mm = np.array([np.linalg.norm(model.tips_m(a) - model.tips_m(b), axis=1) for a, b in zip(got, qpos, strict=True)]) * 1e3
    assert [r["residual_m"] * 1e3 for r in rows] == pytest.approx(error_mm.mean(1), abs=1e-4)
    median, p95, worst = np.median(error_mm), np.percentile(error_mm, 95), error_mm.max()
    print(
        f"FIGURE retargeting {hand}: {n} random poses x {len(model.fingers)} tips come back within median {median:.3f}, p95 {p95:.3f}, "
        f"max {worst:.2f} mm (limit 10)"
    )
    assert worst <= 10


def test_joints_at_their_limits_are_named_and_no_others() -> None:
    model = HandModel(ROBOTS["allegro"].right)
    middle = model.limits.mean(1)
    bent = middle.copy()
    bent[0] = model.limits[0, 1]
    poses = [fusion_row(i, hand="right", joints_wrist_m=human_like(model, q, 1.3)) for i, q in enumerate((middle, bent))]
    at_middle, at_bent = retarget(poses, scaling=1.3, **ALONE)
    assert not any(at_middle["at_limit"])
    for row in (at_middle, at_bent):
        room_rad = np.abs(np.array(row["qpos_rad"])[:, None] - model.limits).min(1)
        assert row["at_limit"] == (room_rad <= 1e-3).tolist()


def test_a_larger_human_hand_is_scaled_down_and_moves_the_robot_alike(a_hand: np.ndarray) -> None:
    large, small = (retarget([fusion_row(0, hand="right", joints_wrist_m=size * a_hand)])[0] for size in (1.1, 0.9))
    assert small["scaling"] / large["scaling"] == pytest.approx(1.1 / 0.9)
    assert small["qpos_rad"] == pytest.approx(large["qpos_rad"], abs=0.01)
    robot_m = ROBOTS["allegro"].right.hand_length_m
    bones_m = np.linalg.norm(np.diff(np.concatenate([a_hand[:1], a_hand[9:13]]), axis=0), axis=1).sum()
    assert large["scaling"] == pytest.approx(robot_m / (1.1 * bones_m), rel=1e-3)


@pytest.mark.parametrize("scaling", [1.0, 1.6])
def test_the_residual_is_the_distance_to_the_human_fingertips_scaled(a_hand: np.ndarray, scaling: float) -> None:
    [row] = retarget([fusion_row(0, hand="right", joints_wrist_m=a_hand)], scaling=scaling)
    model = HandModel(ROBOTS["allegro"].right)
    tips_m = transform(model.T_wrist_base, model.tips_m(np.array(row["qpos_rad"])))
    wanted_m = scaling * (a_hand - a_hand[0])[[4 + 4 * FINGERS.index(name) for name in model.fingers]]
    assert row["residual_m"] == pytest.approx(np.linalg.norm(tips_m - wanted_m, axis=1).mean(), abs=1e-5)


def test_left_is_the_mirror_of_right(a_hand: np.ndarray) -> None:
    mirrored = a_hand * [1, -1, 1]
    right, left = retarget([fusion_row(0, hand="right", joints_wrist_m=a_hand)]), retarget([fusion_row(0, joints_wrist_m=mirrored)])
    tips = [HandModel(getattr(ROBOTS["allegro"], s)).tips_m(np.array(r[0]["qpos_rad"])) for s, r in (("right", right), ("left", left))]
    assert tips[0] * [1, -1, 1] == pytest.approx(tips[1], abs=1e-3)
    assert tips[0][1, 1] > tips[0][3, 1]  # the right hand's index is on the side of its thumb: +y


def test_a_real_hand(golden: np.ndarray) -> None:
    rows = [fusion_row(i, hand="right", joints_wrist_m=j) for i, j in enumerate(golden)]
    mapped = retarget(rows)
    model = HandModel(ROBOTS["allegro"].right)
    good = [r for r in mapped if r["converged"]]
    qpos = np.array([r["qpos_rad"] for r in good])
    residual_mm = np.array([r["residual_m"] for r in good]) * 1e3
    share = len(good) / len(golden)
    step_rad = np.abs(np.diff(qpos, axis=0))
    at_limit = np.mean([r["at_limit"] for r in good])
    speed_rad_s = np.array([r["joint_speed_rad_s"] for r in good[1:]])
    print(
        f"FIGURE retargeting real hand: {share:.1%} of {len(golden)} frames converged, residual median {np.median(residual_mm):.1f}, "
        f"p95 {np.percentile(residual_mm, 95):.1f} mm, scaling {good[0]['scaling']:.3f}, {at_limit:.0%} of joints at a limit"
    )
    print(
        f"FIGURE retargeting motion: joint speed p95 {np.percentile(step_rad, 95) * 30:.2f} rad/s, fastest {speed_rad_s.max():.2f} rad/s; "
        f"largest step {step_rad.max():.3f} rad"
    )
    own_s = min(timed(lambda: retarget(rows[:60])) for _ in range(2))
    library_s = library_seconds(model, golden[:60] * good[0]["scaling"])
    print(f"FIGURE retargeting speed: {60 / own_s:.0f} hands/s on one thread, {library_s / own_s:.1f} x the library's own loss and solver")
    assert share == 1
    assert np.median(residual_mm) <= 15
    assert step_rad.max() <= 0.25
    assert np.percentile(step_rad, 95) * 30 <= 4


def test_the_loss_is_the_library_s() -> None:
    model = HandModel(ROBOTS["allegro"].right)
    ours, theirs = HandSolver(model, Weights(1.0, 0.0, 0.0), max_iterations=100), library_optimizer(model)
    n_links = len(theirs.task_link_names)
    rng = np.random.default_rng(3)
    one = Tracks.of(np.zeros(1), 1.0)
    for _ in range(10):
        q, targets = rng.uniform(*model.limits.T), rng.uniform(-0.1, 0.2, (n_links, 3))
        found, gradient = ours._evaluate(q[None], targets[None], one), np.zeros(len(q))
        loss = theirs.get_objective_function(targets, np.array([]), q)(q, gradient)
        from_rest = q - model.limits.mean(1)
        # the library takes the mean over the vectors, we the sum
        assert found.loss[0] / one.share_s[0] == pytest.approx(loss * n_links + REST_WEIGHT / 2 * from_rest @ from_rest)
        assert found.gradient[0] / one.share_s[0] == pytest.approx(gradient * n_links + REST_WEIGHT * from_rest, abs=1e-9)


def test_a_track_depends_on_no_other(golden: np.ndarray) -> None:
    backend = load("mapping", "dex")
    built = backend(backend.Settings(scaling=1.3), threads=1)
    rows = [fusion_row(i, hand="right", joints_wrist_m=j, timestamp_s=i / 30 + 2 * (i // 4)) for i, j in enumerate(golden[::50])]
    whole = run(built, rows)
    assert whole.equals(run(built, rows))
    alone = [run(built, rows[i : i + 4]).to_pylist() for i in range(0, len(rows), 4)]
    assert_same_joints([row for track in alone for row in track], whole.to_pylist(), 1e-9)


def assert_same_joints(some: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], within_rad: float) -> None:
    assert [r["frame_index"] for r in some] == [r["frame_index"] for r in others]
    for one, other in zip(some, others, strict=True):
        assert one["qpos_rad"] == pytest.approx(other["qpos_rad"], abs=within_rad)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (NO_POSE | {"reason": "too few points"}, "no hand pose: too few points"),
        ({"joints_wrist_m": np.full((21, 3), np.nan)}, "hand pose is not finite"),
        ({"joints_wrist_m": np.zeros((21, 3))}, "no human hand: wrist to tip want 0.05 to 0.4 m, got thumb 0"),
        ({"joints_wrist_m": np.full((21, 3), 1e6)}, "no human hand"),
        ({"joints_wrist_m": np.arange(63.0).reshape(21, 3) * 1e6}, "no human hand"),
    ],
    ids=["null", "nan", "zero", "far", "huge"],
)
def test_what_cannot_be_mapped_is_null_and_leaves_its_neighbours_alone(a_hand: np.ndarray, change: dict[str, Any], reason: str) -> None:
    rows = [fusion_row(i, hand="right", joints_wrist_m=a_hand) for i in range(3)]
    good = retarget(rows)
    rows[1] |= change
    before, bad, after = retarget(rows)
    assert bad["reason"].startswith(reason)
    assert [bad[c] for c in ("qpos_rad", "residual_m", "at_limit", "qw", "x_m", "scaling")] == [None] * 6
    assert bad["converged"] is False
    assert len(bad["joint_names"]) == 16
    assert_same_joints([before, after], [good[0], good[2]], 1e-3)


def test_a_solver_that_does_not_converge_is_null(a_hand: np.ndarray) -> None:
    (row,) = retarget([fusion_row(0, joints_wrist_m=a_hand)], max_iterations=2)
    assert row["qpos_rad"] is None
    assert row["residual_m"] is None
    assert not row["converged"]
    assert (row["reason"], row["reason_class"]) == ("the solver did not converge within 2 iterations", "not_converged")


def test_the_hand_hangs_where_the_human_wrist_is(a_hand: np.ndarray) -> None:
    q = np.array([0.5, 0.5, -0.5, 0.5])
    pose = dict(zip(("qw", "qx", "qy", "qz"), q, strict=True)) | {"x_m": 0.1, "y_m": -0.2, "z_m": 0.6}
    (row,) = retarget([fusion_row(0, hand="right", joints_wrist_m=a_hand, **pose)])
    R_camera_base = matrix_from_quaternion(np.array([row[f"q{a}"] for a in "wxyz"]))
    T_camera_base = make_transform(R_camera_base, np.array([row[f"{a}_m"] for a in "xyz"]))
    T_camera_wrist = make_transform(matrix_from_quaternion(q), np.array([0.1, -0.2, 0.6]))
    model = HandModel(ROBOTS["allegro"].right)
    robot_tips = transform(T_camera_base, model.tips_m(np.array(row["qpos_rad"])))
    human_tips = transform(T_camera_wrist, row["scaling"] * a_hand[[4, 8, 12, 16]])
    assert np.linalg.norm(robot_tips - human_tips, axis=1).mean() == pytest.approx(row["residual_m"], abs=1e-6)
    assert transform(invert(T_camera_wrist), T_camera_base[:3, 3]) == pytest.approx([0, 0, 0.105])


def test_no_hands_give_an_empty_table() -> None:
    assert retarget([]) == []


def test_nothing_is_printed_and_no_folder_left(a_hand: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    before = set(Path(tempfile.gettempdir()).glob("dex_retargeting-*"))
    retarget([fusion_row(0, joints_wrist_m=a_hand), fusion_row(1, joints_wrist_m=a_hand * 1e6)])
    assert set(Path(tempfile.gettempdir()).glob("dex_retargeting-*")) <= before
    assert capfd.readouterr() == ("", "")


def test_an_unknown_robot_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownRobot, match=r"robot hnad: there is no such robot hand\. Name one of allegro"):
        retarget([], robot="hnad")


GRIPPER = """<robot name="gripper">
  <link name="world"/><link name="palm"/><link name="thumb_1"/><link name="thumb_tip"/>
  <link name="index_1"/><link name="index_2"/><link name="index_tip"/>
  <joint name="mount" type="fixed"><parent link="world"/><child link="palm"/><origin xyz="1 2 3" rpy="0.3 -0.4 1.2"/></joint>
  <joint name="thumb" type="revolute"><parent link="palm"/><child link="thumb_1"/><origin xyz="0 0.03 0"/><axis xyz="1 0 0"/>
    <limit lower="-1.5" upper="0.5" effort="1" velocity="1"/></joint>
  <joint name="thumb_end" type="fixed"><parent link="thumb_1"/><child link="thumb_tip"/><origin xyz="0 0 0.09"/></joint>
  <joint name="index" type="revolute"><parent link="palm"/><child link="index_1"/><origin xyz="0 0 0.05"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="1.4" effort="1" velocity="1"/></joint>
  <joint name="index_coupled" type="revolute"><parent link="index_1"/><child link="index_2"/><origin xyz="0 0 0.06"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="2" effort="1" velocity="1"/><mimic joint="index" multiplier="0.8" offset="0.1"/></joint>
  <joint name="index_end" type="fixed"><parent link="index_2"/><child link="index_tip"/><origin xyz="0 0 0.04"/></joint>
</robot>"""


@pytest.fixture
def gripper(tmp_path: Path) -> RobotHand:
    """Two fingers on a turned mount; the index's second joint is coupled to its first."""
    path = tmp_path / "gripper.urdf"
    path.write_text(GRIPPER)
    return RobotHand(
        urdf=str(path),
        urdf_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        base_link="palm",
        base_position_m=(0.01, 0.0, 0.03),
        base_quaternion_wxyz=(0.8, 0.0, 0.6, 0.0),
        hand_length_m=0.18,
        fingers={"thumb": Finger(tip="thumb_tip"), "index": Finger(tip="index_tip", middle="index_2")},
    )


def test_another_robot_by_setting(gripper: RobotHand) -> None:
    model = HandModel(gripper)
    q = np.array([0.7, 0.7 * 0.8 + 0.1, -0.6])
    assert model.joint_names == ("index", "index_coupled", "thumb")
    joints = np.zeros((21, 3))
    for f in range(5):
        joints[1 + 4 * f : 5 + 4 * f] = np.linspace([0, 0, 0.08], [0, 0.02 * f, 0.18], 4)
    thumb, index = transform(model.T_wrist_base, model.tips_m(q))
    middle = transform(model.T_wrist_base, model.links_m(["index_2"], q))[0]
    joints[1:5] = np.outer([0.25, 0.5, 0.75, 1.0], thumb)
    joints[5:9] = [middle / 2, middle, (middle + index) / 2, index]
    rows = [fusion_row(0, hand=h, joints_wrist_m=joints) for h in HANDS]
    left, right = retarget(rows, robot="gripper", robots={"gripper": Robot(right=gripper)}, scaling=1.0)
    assert right["reason"] is None
    assert right["joint_names"] == ["index", "index_coupled", "thumb"]
    assert right["qpos_rad"] == pytest.approx(q, abs=2e-3)
    assert right["residual_m"] < 1e-3
    assert left["qpos_rad"] is None
    assert (left["reason"], left["reason_class"]) == ("robot gripper has no left hand", "no_such_hand")


def test_a_robot_that_does_not_fit_its_description_is_refused(gripper: RobotHand) -> None:
    with pytest.raises(BadSettings, match=r"SHA-256 is [0-9a-f]{64}, want 0{64}"):
        HandModel(gripper.model_copy(update={"urdf_sha256": "0" * 64}))
    with pytest.raises(BadSettings, match="there is no link or joint plam"):
        HandModel(gripper.model_copy(update={"base_link": "plam"}))
    with pytest.raises(BadSettings, match="the URDF cannot be read"):
        HandModel(gripper.model_copy(update={"urdf": "/nowhere/gripper.urdf"}))
    Path(gripper.urdf).write_text("<robot")
    broken = hashlib.sha256(b"<robot").hexdigest()
    with pytest.raises(BadSettings, match="the URDF cannot be used"):
        HandModel(gripper.model_copy(update={"urdf_sha256": broken}))


# What the truth of a motion is: planted inputs.


def moving_hand(times_s: np.ndarray, hand: Hand = "right") -> np.ndarray:
    """(T, 21, 3) joints of a hand that the Allegro hand can take exactly, opening and closing smoothly at up to 1.5 Hz."""
    model = HandModel(getattr(ROBOTS["allegro"], hand))
    return np.array([human_like(model, q, 1.3) for q in moving_joints(model, times_s)])


def moving_joints(model: HandModel, times_s: np.ndarray) -> np.ndarray:
    """(T, n) joint values that move smoothly about the middle of their limits, each at its own pace."""
    rng = np.random.default_rng(5)
    pace_hz, phase = rng.uniform(0.3, 1.5, len(model.limits)), rng.uniform(0, 2 * np.pi, len(model.limits))
    span = model.limits[:, 1] - model.limits[:, 0]
    return model.limits.mean(1) + 0.2 * span * np.sin(2 * np.pi * pace_hz * times_s[:, None] + phase)


def follow(joints_m: np.ndarray, times_s: np.ndarray, hand: Hand = "right", **settings: Any) -> list[dict[str, Any]]:
    """The mapping of a hand over time."""
    rows = [
        fusion_row(i, hand=hand, joints_wrist_m=j, timestamp_s=float(t)) for i, (j, t) in enumerate(zip(joints_m, times_s, strict=True))
    ]
    return retarget(rows, **({"scaling": 1.3} | settings))


def qpos_of(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([r["qpos_rad"] for r in rows])


def test_kinematics_are_pinocchio_s(gripper: RobotHand) -> None:
    rng = np.random.default_rng(2)
    for hand in (ROBOTS["allegro"].left, ROBOTS["panda"].right, gripper):
        model = HandModel(hand)
        driven = rng.uniform(*model.driven_limits.T, (5, len(model.driven)))
        points, step = model.solved_points(driven), 1e-6
        frames, offsets_m = model.points()
        base = model.pin_model.getFrameId(hand.base_link, pin.FrameType.BODY)
        for t, qpos in enumerate(model.qpos_of(driven)):
            full, data = np.zeros(model.pin_model.nq), model.pin_model.createData()
            full[model.joint_indices] = qpos
            pin.framesForwardKinematics(model.pin_model, data, full)
            want_m = [data.oMf[base].actInv(data.oMf[f].act(offset_m)) for f, offset_m in zip(frames, offsets_m, strict=True)]
            assert points.positions_m[t] == pytest.approx(np.array(want_m), abs=1e-12)
        pull = rng.normal(size=points.positions_m.shape)
        for k in range(driven.shape[1]):
            moved = model.solved_points(driven + step * np.eye(driven.shape[1])[k])
            assert points.jacobian[..., k] == pytest.approx((moved.positions_m - points.positions_m) / step, abs=1e-6)
            bent = (np.einsum("tpc,tpcn->tn", pull, moved.jacobian) - np.einsum("tpc,tpcn->tn", pull, points.jacobian)) / step
            assert points.curvature(pull)[:, :, k] == pytest.approx(bent, abs=1e-5)


def test_a_hand_at_rest_gives_joints_at_rest(a_hand: np.ndarray) -> None:
    rows = follow(np.repeat(a_hand[None], 45, axis=0), np.arange(45) / 30)
    assert np.ptp(qpos_of(rows), axis=0).max() < 1e-3
    assert max(r["joint_speed_rad_s"] for r in rows[1:]) < 0.02
    assert rows[0]["joint_speed_rad_s"] is None
    assert max(r["target_speed_m_s"] for r in rows[1:]) == pytest.approx(0, abs=1e-9)


def test_a_noisy_hand_moves_the_robot_smoothly_and_nearly_right() -> None:
    times_s, rng = np.arange(60) / 30, np.random.default_rng(1)
    true_m = moving_hand(times_s)
    model = HandModel(ROBOTS["allegro"].right)
    noisy_m = true_m + rng.normal(0, 0.004, true_m.shape)
    found = {"clean": follow(true_m, times_s), "noisy": follow(noisy_m, times_s), "alone": follow(noisy_m, times_s, **ALONE)}
    tips_m = model.tips_m(moving_joints(model, times_s))
    error_mm = {k: np.linalg.norm(model.tips_m(qpos_of(rows)) - tips_m, axis=-1).mean() * 1e3 for k, rows in found.items()}
    acceleration = {k: np.abs(np.diff(qpos_of(rows), 2, axis=0)).mean() * 900 for k, rows in found.items()}
    for k in found:
        print(
            f"FIGURE retargeting a moving hand, {k}: fingertips {error_mm[k]:.1f} mm off, joint acceleration {acceleration[k]:.1f} rad/s^2"
        )
    assert error_mm["noisy"] < error_mm["alone"]
    assert error_mm["clean"] < 8
    assert acceleration["noisy"] < 0.1 * acceleration["alone"]


def test_one_frame_that_is_far_off_moves_the_robot_little() -> None:
    times_s = np.arange(60) / 30
    joints_m = moving_hand(times_s)
    clean = follow(joints_m, times_s)
    joints_m[30] = joints_m[30] @ rotations(np.array([[0.0, 0.5, 0.3]]))[0].T
    rows = follow(joints_m, times_s)
    model = HandModel(ROBOTS["allegro"].right)
    off_mm = np.linalg.norm(model.tips_m(qpos_of(rows)) - model.tips_m(qpos_of(clean)), axis=-1).max(1) * 1e3
    wrong_mm, away_mm = rows[30]["target_speed_m_s"] / 30 * 1e3, max(off_mm[:16].max(), off_mm[45:].max())
    print(
        f"FIGURE retargeting, a frame that is {wrong_mm:.0f} mm off: fingertips move {off_mm[30]:.1f} mm in it, {away_mm:.2f} mm 0.5 s away"
    )
    assert off_mm[30] < 0.35 * wrong_mm
    assert away_mm < 1
    assert rows[30]["residual_m"] > 0.02


def test_a_gap_begins_a_new_track() -> None:
    times_s = np.r_[np.arange(20) / 30, 3 + np.arange(20) / 30]
    joints_m = moving_hand(times_s)
    rows = follow(joints_m, times_s)
    halves = [follow(joints_m[half], times_s[half]) for half in (slice(20), slice(20, 40))]
    assert qpos_of(rows) == pytest.approx(np.concatenate([qpos_of(h) for h in halves]), abs=1e-9)
    assert [i for i, r in enumerate(rows) if r["joint_speed_rad_s"] is None] == [0, 20]
    bridged = follow(joints_m[[*range(10), *range(13, 20)]], times_s[[*range(10), *range(13, 20)]])
    assert [i for i, r in enumerate(bridged) if r["joint_speed_rad_s"] is None] == [0]
    assert np.abs(qpos_of(bridged) - qpos_of(rows)[[*range(10), *range(13, 20)]]).max() < 0.05


def test_the_frame_rate_decides_nothing() -> None:
    times_s = np.arange(81) / 60
    joints_m = moving_hand(times_s)
    fast, slow = qpos_of(follow(joints_m, times_s))[::4], qpos_of(follow(joints_m[::4], times_s[::4]))
    uneven = np.sort(np.random.default_rng(4).choice(81, 40, replace=False))
    some = qpos_of(follow(joints_m[uneven], times_s[uneven]))
    both = np.isin(uneven, np.arange(0, 81, 4))
    apart_rad, uneven_rad = np.abs(fast - slow), np.abs(some[both] - fast[uneven[both] // 4])
    print(f"FIGURE retargeting, 15 over 60 frames/s: joints differ by median {np.median(apart_rad):.4f}, at most {apart_rad.max():.3f} rad")
    assert apart_rad.max() < 0.08
    assert np.median(apart_rad) < 0.01
    assert np.median(uneven_rad) < 0.02


def test_a_frame_is_nearly_the_same_in_two_clips_that_overlap(golden: np.ndarray) -> None:
    times_s, model = np.arange(150) / 30, HandModel(ROBOTS["allegro"].right)
    first, second = qpos_of(follow(golden[:90], times_s[:90]))[60:], qpos_of(follow(golden[60:150], times_s[60:]))[:30]
    apart_rad = np.abs(first - second)[12:18]
    apart_mm = np.linalg.norm(model.tips_m(first) - model.tips_m(second), axis=-1)[12:18] * 1e3
    print(
        f"FIGURE retargeting, in the middle of 1 s that two clips share: fingertips differ by at most {apart_mm.max():.2f} mm, "
        f"joints by median {np.median(apart_rad):.4f}, at most {apart_rad.max():.3f} rad"
    )
    assert apart_mm.max() < 1
    assert np.median(apart_rad) < 0.01
    assert apart_rad.max() < 0.15


def test_speed_limits_hold_exactly() -> None:
    rng = np.random.default_rng(6)
    times_s = np.cumsum(rng.uniform(0.01, 0.1, 50))
    times_s[25:] += 2
    tracks, fastest = Tracks.of(times_s, 0.5), np.array([0.5, 2.0, np.inf])
    x = np.cumsum(rng.normal(0, 0.2, (50, 3)), axis=0)
    kept = tracks.limit_speed(x, fastest)
    speed = np.abs(np.diff(kept, axis=0)) / tracks.step_s[:, None]
    assert (speed[tracks.joined] <= fastest + 1e-9).all()
    assert (kept.min(0) >= x.min(0)).all()
    assert (kept.max(0) <= x.max(0)).all()
    assert kept[:, 2] == pytest.approx(x[:, 2])
    assert tracks.limit_speed(kept, fastest) == pytest.approx(kept)


def test_no_joint_is_faster_than_the_robot_can(a_hand: np.ndarray) -> None:
    model = HandModel(ROBOTS["allegro"].right)
    closed = human_like(model, model.limits[:, 1] - 0.05, 1.3)
    rows = follow(np.array([a_hand, closed] * 15), np.arange(30) / 30)
    shares = np.array([r["joint_speed_share"] for r in rows[1:]])
    assert shares.max() <= 1 + 1e-9
    speed = np.abs(np.diff(qpos_of(rows), axis=0)) * 30
    assert shares == pytest.approx((speed / model.speed_limits).max(1))


def test_links_that_run_into_each_other_are_seen() -> None:
    for side in HANDS:
        model = HandModel(getattr(ROBOTS["allegro"], side))
        collisions = Collisions(model)
        rest = model.limits.mean(1)
        assert collisions.at(rest) is False
        crossed = dict(zip(model.joint_names, rest, strict=True))
        yaw = {"index": "joint_0.0", "middle": "joint_4.0"} if side == "right" else {"index": "joint_8.0", "middle": "joint_4.0"}
        toward = -1 if side == "right" else 1
        crossed |= {yaw["index"]: toward * 0.47, yaw["middle"]: -toward * 0.47}
        assert collisions.at(np.array([crossed[n] for n in model.joint_names])) is True


@pytest.mark.parametrize("hand", HANDS)
def test_a_gripper_opens_as_wide_as_thumb_and_index_and_holds_what_they_hold(a_hand: np.ndarray, hand: Hand) -> None:
    widths_m, times_s = np.array([0.02, 0.05, 0.07, 0.12]), np.arange(4) * 2.0
    joints_m = np.repeat(a_hand[None] * ([1, 1, 1] if hand == "right" else [1, -1, 1]), 4, axis=0)
    middle, across = joints_m[:, [4, 8]].mean(1), joints_m[:, 4] - joints_m[:, 8]
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    joints_m[:, 4], joints_m[:, 8] = middle + across * widths_m[:, None] / 2, middle - across * widths_m[:, None] / 2
    rows = follow(joints_m, times_s, hand, robot="panda", scaling=None)
    assert [r["aperture_m"] for r in rows] == pytest.approx([0.02, 0.05, 0.07, 0.08], abs=2e-4)
    assert [r["residual_m"] for r in rows] == pytest.approx([0, 0, 0, 0.02], abs=2e-4)
    assert [r["joint_names"] for r in rows] == [["panda_finger_joint1", "panda_finger_joint2"]] * 4
    assert [r["qpos_rad"] for r in rows] == pytest.approx(np.repeat([[0.01], [0.025], [0.035], [0.04]], 2, axis=1), abs=2e-4)
    model = HandModel(getattr(ROBOTS["panda"], hand))
    row = rows[1]
    T_camera_base = make_transform(
        matrix_from_quaternion(np.array([row[f"q{a}"] for a in "wxyz"])), np.array([row[f"{a}_m"] for a in "xyz"])
    )
    pads_m = transform(T_camera_base, model.tips_m(np.array(row["qpos_rad"])))
    assert pads_m == pytest.approx(joints_m[1, [4, 8]] + np.array([0, 0, 0.5]), abs=3e-4)  # the sample's wrist is 0.5 m before the camera
    knuckles_m = joints_m[1, [2, 5]].mean(0) + np.array([0, 0, 0.5])
    assert (pads_m.mean(0) - knuckles_m) @ T_camera_base[:3, 2] > 0.02, "it reaches from the knuckles to the tips"


def test_a_gripper_keeps_its_direction_when_the_tips_touch(a_hand: np.ndarray) -> None:
    joints_m = np.repeat(a_hand[None], 20, axis=0)
    joints_m[:, 8] = joints_m[:, 4] + np.random.default_rng(0).normal(0, 1e-4, (20, 3))
    rows = follow(joints_m, np.arange(20) / 30, robot="panda", scaling=None)
    q = np.array([[r[f"q{a}"] for a in "wxyz"] for r in rows])
    assert np.abs(q @ q.T).min() > np.cos(np.radians(2) / 2)


def test_a_urdf_comes_from_the_settings(tmp_path: Path, a_hand: np.ndarray) -> None:
    backend = load("mapping", "dex")
    with pytest.raises(BadSettings, match=r"robot leap: its URDF comes with no package .*\. Set stages\.mapping\.dex\.urdf\.right"):
        retarget([], robot="leap")
    for name in ("leap", "shadow"):
        path = tmp_path / f"{name}.urdf"
        path.write_text(fingers_urdf(find_robot(name, {}).right))
        settings = {"robot": name, "urdf": {"right": str(path)}}
        rows = retarget([fusion_row(0, hand=h, joints_wrist_m=a_hand) for h in HANDS], **settings)
        assert [r["reason"] for r in rows] == [f"robot {name} has no left hand", None]
        assert rows[1]["converged"]
        assert rows[1]["self_collision"] is None
        before = backend.brought(backend.Settings(**settings))
        path.write_text(path.read_text().replace("0.04", "0.05"))
        after = backend.brought(backend.Settings(**settings))
        assert before["robot"]["right"]["urdf_sha256"] != after["robot"]["right"]["urdf_sha256"]
        assert "urdf" not in after["robot"]["right"], "where it lies decides nothing"
    with pytest.raises(BadSettings, match="the URDF cannot be read"):
        with_urdfs("leap", find_robot("leap", {}), {"right": str(tmp_path / "none.urdf")})
    with pytest.raises(BadSettings, match="is not a whole path"):
        with_urdfs("leap", find_robot("leap", {}), {"right": "leap.urdf"})


def fingers_urdf(hand: RobotHand) -> str:
    """A URDF with the links and joints that a description names: straight fingers side by side."""
    names, made = iter(hand.joint_names), []
    links = {hand.base_link}
    for i, finger in enumerate(hand.fingers.values()):
        parent = hand.base_link
        joints = [next(names, "") or f"{finger.tip}_{k}" for k in range(5 if hand.joint_names and i in (0, 4) else 4)]
        for k, joint in enumerate(joints):
            child = finger.middle if k == len(joints) - 2 else f"{finger.tip}_link_{k}"
            at = f"0 {0.05 - 0.025 * i} 0.08" if k == 0 else "0 0 0.04"
            axis = "1 0 0" if k == 0 else "0 1 0"
            made.append(
                f'<joint name="{joint}" type="revolute"><parent link="{parent}"/><child link="{child}"/><origin xyz="{at}"/><axis xyz="{axis}"/>'
                '<limit lower="-0.4" upper="1.6" effort="1" velocity="4"/></joint>'
            )
            links.add(str(child))
            parent = str(child)
        ends = f'<parent link="{parent}"/><child link="{finger.tip}"/><origin xyz="0 0 0.03"/>'
        made.append(f'<joint name="{finger.tip}_end" type="fixed">{ends}</joint>')
        links.add(finger.tip)
    return f'<robot name="fingers">{"".join(f"<link name={name!r}/>" for name in sorted(links))}{"".join(made)}</robot>'.replace("'", '"')


def test_metrics_tell_a_motion_that_jumps_from_one_that_does_not(tmp_path: Path) -> None:
    times_s = np.arange(40) / 30
    rows = [row | {"self_collision": False} for row in follow(moving_hand(times_s), times_s)]
    good = schema.from_rows("mapping", rows)
    for row in rows[10:35]:
        row |= {"joint_speed_rad_s": 20.0, "joint_speed_share": 1.0, "target_speed_m_s": 0.01, "self_collision": True}
    bad = schema.from_rows("mapping", rows)
    said = {}
    for name, table in (("good", good), ("bad", bad)):
        path = tmp_path / f"{name}.parquet"
        pa.parquet.write_table(table, path)
        with duckdb.connect() as connection:
            said[name] = quality.verdicts("mapping", quality.measure(connection, "mapping", [path]), {})
    assert said["good"] == []
    assert [line.split(" is ")[0] for line in said["bad"]] == [
        "joint_speed_rad_s_p95",
        "speed_limited_share",
        "joint_jump_share",
        "self_collision_share",
    ]
