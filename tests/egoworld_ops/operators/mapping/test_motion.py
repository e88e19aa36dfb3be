"""Mapping along time: smooth, within the robot's speed, the same at any frame rate; what jumps is warned of."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from egoworld_ops.contract import quality, schema
from egoworld_ops.operators import load
from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.robots import ROBOTS
from egoworld_ops.vision.geometry import rotations
from tests.egoworld_ops.operators.mapping.follow import (
    ALONE,
    assert_same_joints,
    follow,
    human_like,
    moving_hand,
    moving_joints,
    qpos_of,
    run,
)
from tests.rows import fusion_row


def test_a_track_depends_on_no_other(golden: np.ndarray) -> None:
    backend = load("mapping", "dex")
    built = backend(backend.Settings(scaling=1.3), threads=1)
    rows = [fusion_row(i, hand="right", joints_wrist_m=j, timestamp_s=i / 30 + 2 * (i // 4)) for i, j in enumerate(golden[::50])]
    whole = run(built, rows)
    assert whole.equals(run(built, rows))
    alone = [run(built, rows[i : i + 4]).to_pylist() for i in range(0, len(rows), 4)]
    assert_same_joints([row for track in alone for row in track], whole.to_pylist(), 1e-9)


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
