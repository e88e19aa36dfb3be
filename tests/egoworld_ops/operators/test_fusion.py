"""Fusion: noisy hands come nearer to a known motion, and nothing that is real is lost: quick reaches, gaps, sides, times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators import load
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.fusion._hands import bones
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.geometry import rotations
from egoworld_ops.vision.hand_frame import wrist_rotations
from tests.egoworld_ops.operators.test_hand_pose import hand_of
from tests.rows import hand_pose_row

CAMERA = Camera(500, 500, 319.5, 239.5, 640, 480, "file")
Path3 = Callable[[np.ndarray], np.ndarray]
LENGTHS_M = bones(hand_of("left")[None])[1][0]


def reach(start_s: float, lasts_s: float, by_m: Sequence[float]) -> Path3:
    """A wrist that rests, reaches once with the least jerk (Flash and Hogan, 1985), and rests."""

    def at(times_s: np.ndarray) -> np.ndarray:
        u = np.clip((times_s - start_s) / lasts_s, 0, 1)[:, None]
        return np.array([0.05, 0.02, 0.5]) + (10 * u**3 - 15 * u**4 + 6 * u**5) * np.asarray(by_m)

    return at


def wander(times_s: np.ndarray) -> np.ndarray:
    """A wrist that goes about its work: up to 0.4 m/s, 2 m/s^2."""
    phases = np.stack([4.5 * times_s, 3.5 * times_s + 1, 3 * times_s + 2], 1)
    return np.array([0.0, 0.05, 0.5]) + np.array([0.08, 0.05, 0.08]) * np.sin(phases)


def hands(times_s: np.ndarray, path: Path3, side: str = "left") -> np.ndarray:
    """(T, 21, 3) true joints of a hand that turns about the line of sight and back while its wrist goes this way."""
    turn = rotations(np.stack([0 * times_s, 0.3 * np.sin(2 * times_s), 0.5 * np.sin(3 * times_s)], 1))
    about_m = hand_of("left" if side == "left" else "right")
    joints_m: np.ndarray = (about_m - about_m[0]) @ turn.transpose(0, 2, 1) + path(times_s)[:, None]
    return joints_m


def measured(joints_m: np.ndarray, seed: int, size: float = 0.08, jitter_m: float = 0.003) -> np.ndarray:
    """As a network sees them: each frame's hand too large or small, and as much too far or near; and joints off by a few millimetres."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(0, size, (len(joints_m), 1, 1)))
    return (joints_m + rng.normal(0, jitter_m, joints_m.shape)) * sizes


def rows_of(times_s: np.ndarray, joints_m: np.ndarray, hand: str = "left", frames: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Rows of hand_pose; frames are counted, where they are not given."""
    numbers = range(len(times_s)) if frames is None else frames
    return [hand_pose_row(n, timestamp_s=float(t), hand=hand, joints_m=j) for n, t, j in zip(numbers, times_s, joints_m, strict=True)]


def fused(rows: Sequence[dict[str, Any]], times_s: np.ndarray | None = None, **settings: Any) -> list[dict[str, Any]]:
    """The checked table, as rows. `times_s` are those of all frames of the video, where they must be read from it."""

    def frames() -> Iterator[Frame]:
        assert times_s is not None, "frames are decoded"
        return (Frame(i, float(t), np.zeros((2, 2, 3), np.uint8)) for i, t in enumerate(times_s))

    clip = Clip(
        "kitchen-0123456789ab", "f0000000_0000010", Path("kitchen.mp4"), "0" * 64, 0, 1000, 0, 1000, 0.0, 33.3, Fraction(30), 640, 480
    )
    backend = load("fusion", "smoothing")
    tables = {"hand_pose": schema.from_rows("hand_pose", rows), "depth": schema.empty("depth")}
    item = ClipInput(clip, tables, Sidecar(), CAMERA, 1, frames)
    table = backend(backend.Settings(**settings), 1).run(item)
    validation.validate("fusion", table)
    return table.to_pylist()


def joints_of(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([r["joints_m"] for r in rows], np.float64)


def off_mm(joints_m: np.ndarray, true_m: np.ndarray) -> tuple[float, float]:
    """Mean errors of the wrist, and of joints about it."""
    about = (joints_m - joints_m[:, :1]) - (true_m - true_m[:, :1])
    return tuple(float(1e3 * np.linalg.norm(e, axis=-1).mean()) for e in (joints_m[:, 0] - true_m[:, 0], about))  # type: ignore[return-value]


def turned_off_rad(joints_m: np.ndarray, true_m: np.ndarray) -> np.ndarray:
    """(T,) angles between the wrist frames of left hands and the true ones."""
    found, true = (wrist_rotations(j, np.zeros(len(j), bool)) for j in (joints_m, true_m))
    angles: np.ndarray = np.arccos(np.clip((np.einsum("tij,tij->t", found, true) - 1) / 2, -1, 1))
    return angles


def jerky_m_s2(joints_m: np.ndarray, times_s: np.ndarray) -> float:
    """95th percentile of the wrist's acceleration."""
    velocity = np.diff(joints_m[:, 0], axis=0) / np.diff(times_s)[:, None]
    acceleration = np.diff(velocity, axis=0) / ((times_s[2:] - times_s[:-2]) / 2)[:, None]
    return float(np.percentile(np.linalg.norm(acceleration, axis=1), 95))


@pytest.mark.parametrize("seed", [101, 102, 103])
def test_noisy_hands_come_nearer_to_their_motion(seed: int) -> None:
    times_s = np.arange(90) / 30
    true_m = hands(times_s, wander)
    seen_m = measured(true_m, seed)
    rows = fused(rows_of(times_s, seen_m))
    (wrist, about), (wrist_was, about_was) = off_mm(joints_of(rows), true_m), off_mm(seen_m, true_m)
    print(
        f"FIGURE fusion, seed {seed}: wrist {wrist_was:.1f} to {wrist:.1f} mm, joints about it {about_was:.1f} to {about:.1f} mm", end=", "
    )
    print(f"acceleration p95 {jerky_m_s2(seen_m, times_s):.0f} to {jerky_m_s2(joints_of(rows), times_s):.1f} m/s^2")
    assert wrist < 0.5 * wrist_was
    assert about < 0.8 * about_was
    assert jerky_m_s2(joints_of(rows), times_s) < 0.1 * jerky_m_s2(seen_m, times_s)
    assert all(r["observed"] for r in rows)


@pytest.mark.parametrize("seed", [104, 105, 106])
def test_noise_of_single_knuckles_does_not_turn_the_wrist_frame(seed: int) -> None:
    """What a robot gets are the fingertips in that frame: its errors are theirs, times the length of the hand."""
    times_s = np.arange(90) / 30
    true_m = hands(times_s, wander)
    seen_m = true_m + np.random.default_rng(seed).normal(0, 0.003, true_m.shape)
    rows = fused(rows_of(times_s, seen_m))
    was, now = (np.sqrt((turned_off_rad(j, true_m) ** 2).mean()) for j in (seen_m, joints_of(rows)))
    R = wrist_rotations(true_m, np.zeros(90, bool))
    tips_m = ((true_m - true_m[:, :1]) @ R)[:, 4::4]
    off_m = np.linalg.norm(np.array([r["joints_wrist_m"] for r in rows])[:, 4::4] - tips_m, axis=-1)
    print(f"FIGURE fusion, 3 mm of noise on each joint, seed {seed}: wrist frame {was:.3f} to {now:.3f} rad off, tips in it", end=" ")
    print(f"{1e3 * np.median(off_m):.1f} mm off")
    assert now < 0.5 * was
    assert np.median(off_m) < 0.005


def test_a_quick_turn_of_the_palm_keeps_its_speed() -> None:
    """1.5 rad about the middle finger in 0.4 s: 7 rad/s, 54 rad/s^2."""
    times_s = np.arange(60) / 30
    about_m = hand_of("left") - hand_of("left")[0]
    turn = rotations(np.stack([0 * times_s, reach(0.8, 0.4, (0, 1.5, 0))(times_s)[:, 1], 0 * times_s], 1))
    true_m = about_m @ turn.transpose(0, 2, 1) + wander(times_s)[:, None]
    rows = fused(rows_of(times_s, true_m + np.random.default_rng(107).normal(0, 0.001, true_m.shape)))
    off_rad = turned_off_rad(joints_of(rows), true_m)
    print(f"FIGURE fusion, the palm turns by 1.5 rad in 0.4 s: {off_rad.max():.3f} rad off at most")
    assert off_rad.max() < 0.1
    assert all(r["observed"] for r in rows)


def test_a_palm_that_hollows_does_so_after_fusion() -> None:
    """Knuckles of ring and little finger go 0.2 rad to and fro in a second and a half."""
    times_s = np.arange(90) / 30
    true_m = hands(times_s, wander)
    bent_rad = 0.1 * np.sin(2 * np.pi * times_s / 1.5)
    bend = rotations(np.stack([bent_rad, 0 * bent_rad, 0 * bent_rad], 1)).transpose(0, 2, 1)
    true_m[:, 13:] = (true_m[:, 13:] - true_m[:, :1]) @ bend + true_m[:, :1]
    made_m = joints_of(fused(rows_of(times_s, true_m)))
    moved_m, true_moved_m = (np.ptp((j - j[:, :1])[:, 17] - (j - j[:, :1])[:, 9], axis=0).max() for j in (made_m, true_m))
    assert moved_m == pytest.approx(true_moved_m, rel=0.1)
    assert off_mm(made_m, true_m)[1] < 1


def test_bones_keep_one_length_for_both_hands() -> None:
    times_s = np.arange(40) / 30
    left = rows_of(times_s, measured(hands(times_s, wander), 1, 0.02, 0.001))
    right = rows_of(times_s, measured(hands(times_s, wander, "right"), 2, 0.02, 0.001) * 1.1, "right")
    lengths_m = bones(joints_of(fused([*left, *right])))[1]
    assert np.ptp(lengths_m, axis=0).max() < 1e-6
    assert lengths_m[0] == pytest.approx(LENGTHS_M * 1.05, rel=0.03), "between the sizes of the two"


def test_a_hand_keeps_its_place_in_the_picture() -> None:
    """It is scaled about the camera: only its size and distance change."""
    times_s = np.arange(60) / 30
    seen_m = measured(hands(times_s, wander), 3, size=0.15, jitter_m=0)
    joints_m = joints_of(fused(rows_of(times_s, seen_m)))
    shown, was = (500 * j[..., :2] / j[..., 2:] for j in (joints_m, seen_m))
    assert np.abs(shown - was).max() < 1.5
    assert np.linalg.norm(joints_m[:, 0], axis=1) == pytest.approx(np.linalg.norm(wander(times_s), axis=1), rel=0.04)


@pytest.mark.parametrize("by_m", [(0, 0, 0.15), (0.05, 0.05, -0.1)])
def test_one_frame_far_off_does_not_bend_its_neighbours(by_m: tuple[float, float, float]) -> None:
    times_s = np.arange(60) / 30
    seen_m = measured(hands(times_s, wander), 4, size=0.01, jitter_m=0.001)
    good = fused(rows_of(times_s, seen_m))
    seen_m[30] += by_m
    bad = fused(rows_of(times_s, seen_m))
    assert [(r["frame_index"], r["filled"]) for r in bad if not r["observed"]] == [(30, "outlier")]
    moved_mm = 1e3 * np.linalg.norm(joints_of(bad)[:, 0] - joints_of(good)[:, 0], axis=1)
    assert moved_mm[30] < 10
    assert np.delete(moved_mm, 30).max() < 2


def test_a_frame_with_the_hand_turned_round_is_left_out() -> None:
    times_s = np.arange(60) / 30
    seen_m = measured(hands(times_s, wander), 5, size=0.01, jitter_m=0.001)
    true_m = seen_m[20].copy()
    seen_m[20, 1:] = 2 * seen_m[20, :1] - seen_m[20, 1:]
    rows = fused(rows_of(times_s, seen_m))
    assert [r["frame_index"] for r in rows if r["filled"] == "outlier"] == [20]
    assert np.abs(joints_of(rows)[20] - true_m).max() < 0.02


@pytest.mark.parametrize("by_m", [(0.4, 0, 0), (0.1, 0, 0.35)])
@pytest.mark.parametrize("fps", [30, 60])
def test_a_quick_reach_keeps_its_speed(by_m: tuple[float, float, float], fps: int) -> None:
    """0.4 m in 0.35 s: 2 m/s, 19 m/s^2. Distances are less sure than directions, so a reach along the line of sight is smoothed more."""
    times_s = np.arange(2 * fps) / fps
    true_m = hands(times_s, reach(0.8, 0.35, by_m))
    rows = fused(rows_of(times_s, measured(true_m, 6, size=0.005, jitter_m=0.001)))
    fastest, true = (np.linalg.norm(np.diff(j[:, 0], axis=0), axis=1).max() * fps for j in (joints_of(rows), true_m))
    print(f"FIGURE fusion, a reach by {by_m} m in 0.35 s at {fps} frames/s: {fastest / true:.1%} of its peak speed of {true:.2f} m/s")
    assert fastest == pytest.approx(true, rel=0.05 if by_m[2] == 0 else 0.1)
    assert all(r["observed"] for r in rows)


def test_a_short_gap_is_filled_and_said_and_a_long_one_is_not() -> None:
    times_s = np.arange(90) / 30
    true_m = hands(times_s, wander)
    seen_m = measured(true_m, 7, size=0.01, jitter_m=0.001)
    lost = {*range(20, 25), *range(50, 65)}
    kept = [i for i in range(90) if i not in lost]
    rows = fused(rows_of(times_s[kept], seen_m[kept], frames=kept), times_s)
    by_frame = {r["frame_index"]: r for r in rows}
    assert [i for i, r in by_frame.items() if r["filled"] == "gap" and not r["observed"]] == list(range(20, 25))
    assert not by_frame.keys() & set(range(50, 65))
    assert {r["track"] for r in rows[:50]} == {0}
    assert {r["track"] for r in rows[-25:]} == {1}
    filled_m = np.array([by_frame[i]["joints_m"] for i in range(20, 25)])
    assert off_mm(filled_m, true_m[20:25])[0] < 15
    assert [by_frame[i]["timestamp_s"] for i in range(20, 25)] == pytest.approx(times_s[20:25])
    assert all(by_frame[i]["score"] is None and by_frame[i]["shift_m"] is None for i in range(20, 25))


def test_a_row_without_a_pose_is_filled_in_a_short_gap_and_else_says_why_it_is_null() -> None:
    times_s = np.arange(60) / 30
    rows = rows_of(times_s, hands(times_s, wander))
    for i in (10, *range(30, 45)):
        rows[i] |= {"joints_m": None, "reason": "too few", "reason_class": "no_fit"}
    made = fused(rows)
    assert len(made) == 60
    assert (made[10]["observed"], made[10]["filled"]) == (False, "gap")
    assert made[10]["joints_m"] is not None
    assert {(r["reason_class"], r["observed"]) for r in made[30:45]} == {("no_upstream", False)}
    assert "too few" in made[30]["reason"]


def test_wrong_poses_are_filled_between_right_ones_and_null_where_a_track_begins_or_ends() -> None:
    times_s = np.arange(90) / 30
    true_m = hands(times_s, wander)
    seen_m = measured(true_m, 8, size=0.01, jitter_m=0.001)
    wrong = [*range(40, 44), 88, 89]
    seen_m[wrong, :, 2] += np.array([0.3, 0.5, 0.2, 0.4, 0.3, 0.5])[:, None]
    rows = fused(rows_of(times_s, seen_m))
    assert [r["frame_index"] for r in rows if r["filled"] == "outlier"] == wrong
    assert off_mm(joints_of(rows[:88]), true_m[:88])[0] < 4
    assert off_mm(joints_of(rows[40:44]), true_m[40:44])[0] < 15
    assert {(r["joints_m"], r["reason_class"]) for r in rows[88:]} == {(None, "outlier")}


def test_the_two_hands_do_not_touch_each_other() -> None:
    times_s = np.arange(60) / 30
    left = rows_of(times_s, measured(hands(times_s, wander), 9))
    right = rows_of(times_s, measured(hands(times_s, reach(0.5, 0.6, (0.2, 0, 0)), "right"), 10), "right")
    both = fused([*right, *left])
    assert [r["hand"] for r in both[:4]] == ["left", "right", "left", "right"]
    flung = [r | {"joints_m": np.add(r["joints_m"], [0, 0, 0.3])} if r["frame_index"] == 30 else r for r in right]
    again = fused([*left, *flung])
    lefts, lefts_again = (joints_of([r for r in rows if r["hand"] == "left"]) for rows in (both, again))
    assert np.abs(lefts - lefts_again).max() < 0.001, "only through the lengths of the bones"


def test_times_that_are_not_even_are_obeyed() -> None:
    """Frames at 5 to 80 ms from each other: by the mean rate, the path would bend."""
    steps_s = np.tile([0.005, 0.08, 0.02, 0.05], 20)
    times_s = np.cumsum(steps_s)
    true_m = hands(times_s, wander)
    rows = fused(rows_of(times_s, measured(true_m, 11, size=0.02, jitter_m=0.001)))
    assert off_mm(joints_of(rows), true_m)[0] < 8
    assert max(r["speed_m_s"] for r in rows if r["speed_m_s"] is not None) < 1.2


def test_the_frame_rate_does_not_change_the_motion() -> None:
    """The same disturbances, each longer than a frame, at 15, 30 and 60 frames a second."""

    def disturbed(times_s: np.ndarray) -> np.ndarray:
        wobble = 0.01 * np.sin(2 * np.pi * 3 * times_s)[:, None]
        return np.asarray(reach(0.8, 0.6, (0.3, 0, 0.1))(times_s) + wobble * [0, 0, 1])

    wrists = {}
    for fps in (15, 30, 60):
        times_s = np.arange(2 * fps) / fps
        wrists[fps] = joints_of(fused(rows_of(times_s, hands(times_s, disturbed))))[:: fps // 15, 0]
    apart_mm = {fps: 1e3 * np.linalg.norm(wrists[fps] - wrists[60], axis=1)[2:-2].max() for fps in (15, 30)}
    print(f"FIGURE fusion, at 15 and 30 over 60 frames/s: at most {apart_mm[15]:.1f} and {apart_mm[30]:.1f} mm apart")
    assert max(apart_mm.values()) < 4


def test_clean_hands_stay_as_they_are() -> None:
    times_s = np.arange(60) / 30
    true_m = hands(times_s, wander)
    rows = fused(rows_of(times_s, true_m))
    assert max(off_mm(joints_of(rows), true_m)) < 1
    assert [r["scaling"] for r in rows] == pytest.approx([1] * 60, abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_frames_are_enough(n: int) -> None:
    times_s = np.arange(n) / 30
    true_m = hands(times_s, wander)
    rows = fused(rows_of(times_s, true_m))
    assert off_mm(joints_of(rows), true_m)[0] < 2
    assert rows[0]["speed_m_s"] is None


def test_joints_that_coincide_give_no_wrist_frame() -> None:
    rows = fused([hand_pose_row(i) for i in range(8)])
    assert {r["reason_class"] for r in rows} == {"degenerate"}


def test_the_middle_of_what_two_clips_share_is_the_same_in_both() -> None:
    """But for the size of the hand, which each clip measures by its own frames."""
    times_s = np.arange(120) / 30
    rows = rows_of(times_s, measured(hands(times_s, wander), 12, size=0.03))
    first, second = ({r["frame_index"]: r for r in fused(part)} for part in (rows[:75], rows[45:]))
    one_m, other_m = (joints_of([clip[60]])[0] for clip in (first, second))
    size = np.linalg.norm(other_m[0]) / np.linalg.norm(one_m[0])
    print(f"FIGURE fusion, a frame in the middle of a second that two clips share: sizes {size:.4f}, wrists", end=" ")
    print(f"{1e3 * np.linalg.norm(one_m[0] - other_m[0]):.2f} mm apart")
    assert size == pytest.approx(1, abs=0.01)
    assert np.abs(size * one_m - other_m).max() < 2e-3
