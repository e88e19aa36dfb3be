"""Mapping: known joint angles are recovered from their forward kinematics; hands that cannot be mapped are null with a reason."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from dex_retargeting.optimizer import VectorOptimizer
from dex_retargeting.robot_wrapper import RobotWrapper

from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.operators.mapping._solver import REST_WEIGHT, HandSolver, Weights
from egoworld_ops.robots import FINGERS, ROBOTS
from egoworld_ops.types import HANDS
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, transform
from tests.egoworld_ops.operators.mapping.follow import ALONE, assert_same_joints, human_like, retarget
from tests.rows import fusion_row

NO_POSE: dict[str, Any] = dict.fromkeys(("joints_wrist_m", "joints_m", "qw", "qx", "qy", "qz", "x_m", "y_m", "z_m"))


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
