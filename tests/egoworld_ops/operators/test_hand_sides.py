"""Whose hand is which: labels over a clip from hands that are drawn, on what the network would say of them, and on real hands of two people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks._hand_clips import known_clips
from benchmarks.bench_hand_sides import Tally, clip_input, detector
from egoworld_ops import operators
from egoworld_ops.contract import quality, schema
from egoworld_ops.operators.detections._arms import EDGE_PRIORS, HandEvidence, arm, evidence
from egoworld_ops.operators.detections._hand_rows import jumped, track_ids
from egoworld_ops.operators.detections._sides import Seen, Verdict, assign
from egoworld_ops.operators.masks._sam2_prompts import prompts_by_frame
from tests.egoworld_ops.operators.clips import pictures_input
from tests.rows import detection_row, hand_pose_row

DOWN, UP, LEFT = 0.0, np.pi, -np.pi / 2
OPEN_HAND = np.array([[0, 0], *([x, -45 - 12 * j] for x in (-30, -18, -6, 6, 18) for j in range(4))], float)


def hand(x: float, y: float, right: float, forearm_rad: float = DOWN, scale: float = 1.0) -> HandEvidence:
    """An open hand whose wrist is at (x, y) px; its forearm points down, or so far turned towards the picture's right."""
    c, s = np.cos(forearm_rad), np.sin(forearm_rad)
    return evidence(OPEN_HAND @ np.array([[c, -s], [s, c]]) * scale + (x, y), right)


def labels(frames: Sequence[dict[int, HandEvidence]], fps: float = 30) -> list[dict[int, Verdict]]:
    return assign([Seen(i / fps, hands) for i, hands in enumerate(frames)])


def said(frames: Sequence[dict[int, HandEvidence]], track: int) -> list[str]:
    return [f[track].label for f in labels(frames) if track in f]


def test_forearm_is_on_the_wrists_side_of_the_knuckles() -> None:
    for turn_rad in (0.0, 1.0, 2.5, -2.0):
        found = hand(300, 300, 0.5, turn_rad).forearm
        assert found / np.linalg.norm(found) == pytest.approx([np.sin(turn_rad), np.cos(turn_rad)], abs=1e-6)


def test_an_arm_that_comes_from_the_persons_edge_is_the_persons_whichever_edge_that_is() -> None:
    turns = {"bottom": 0.0, "right": np.pi / 2, "top": np.pi, "left": -np.pi / 2}
    for edge in EDGE_PRIORS:
        left, right, other = arm(hand(0, 0, 0.5, turns[edge]), edge)
        assert left == pytest.approx(right)
        assert left > other + 1
        left, right, other = arm(hand(0, 0, 0.5, turns[edge] + np.pi), edge)
        assert other > max(left, right) + 1
        left, right, _ = arm(hand(0, 0, 0.5, turns[edge] + 0.5), edge)
        assert right > left, "elbows are further out than hands"


def test_a_side_is_not_given_up_for_a_few_frames_of_doubt() -> None:
    assert set(said([{0: hand(300, 300, 0.95)}] * 20 + [{0: hand(300, 300, 0.1)}] * 3 + [{0: hand(300, 300, 0.95)}] * 20, 0)) == {"right"}


def test_a_track_that_jumped_to_the_other_hand_changes_sides_there() -> None:
    frames = [{0: hand(800, 500, 0.97)}] * 30 + [{0: hand(500, 500, 0.03)}] * 30
    assert said(frames, 0) == ["right"] * 30 + ["left"] * 30


def test_the_first_frames_of_a_hand_that_is_lost_and_found_have_its_side() -> None:
    """25 frames after a cut in which the network is wrong, then a new track of the same hand, on which it is right."""
    frames = [{0: hand(700, 500, 0.25)}] * 25 + [{}] * 3 + [{1: hand(710, 505, 0.97)}] * 60
    found = labels(frames)
    assert {f[t].label for f in found for t in f} == {"right"}
    assert found[0][0].chain == found[-1][1].chain


def test_the_last_frames_of_a_clip_have_the_side_of_those_before() -> None:
    frames = [{0: hand(700, 500, 0.9)}] * 60 + [{0: hand(700, 500, 0.2)}] * 6
    assert set(said(frames, 0)) == {"right"}


def test_a_hand_of_somebody_opposite_is_not_the_wearers_missing_hand() -> None:
    frames = [{0: hand(500, 550, 0.05), 1: hand(800, 150, 0.97, UP, 0.7)} for _ in range(40)]
    found = labels(frames)
    assert {(f[0].label, f[0].owner) for f in found} == {("left", "wearer")}
    assert {(f[1].label, f[1].owner) for f in found} == {("other", "other")}


def test_three_hands_are_the_wearers_two_and_another() -> None:
    frames = [{0: hand(600, 120, 0.9, UP, 0.6), 1: hand(400, 550, 0.1), 2: hand(800, 550, 0.9)} for _ in range(40)]
    assert [{t: v.label for t, v in f.items()} for f in labels(frames)] == [{0: "other", 1: "left", 2: "right"}] * 40


def test_of_two_right_hands_one_is_said_to_be_too_many() -> None:
    frames = [{0: hand(800, 550, 0.97), 1: hand(450, 520, 0.99, 0.3, 0.7)} for _ in range(40)]
    found = labels(frames)
    assert {f[0].label for f in found} == {"right"}
    assert {(f[1].label, f[1].owner) for f in found} == {("other", "unknown")}


def test_two_hands_of_which_the_network_doubts_one_are_left_and_right() -> None:
    frames = [{0: hand(450, 550, 0.65), 1: hand(800, 550, 0.97)} for _ in range(40)]
    assert [{t: v.label for t, v in f.items()} for f in labels(frames)] == [{0: "left", 1: "right"}] * 40


def test_hands_that_cross_keep_their_sides() -> None:
    """The hands pass each other; the elbows do not. While they cross the network sees little."""
    frames = []
    for i in range(60):
        x = 300 - 10 * i
        doubt = 0.45 * np.exp(-(((i - 30) / 5) ** 2))
        frames.append({0: hand(640 - x, 500, 0.05 + doubt, -0.5), 1: hand(640 + x, 520, 0.95 - doubt, 0.5)})
    assert set(said(frames, 0)) == {"left"}
    assert set(said(frames, 1)) == {"right"}


@pytest.mark.parametrize("turn_rad", [UP, LEFT], ids=["from the top", "from the left"])
def test_a_person_seen_by_a_camera_that_is_not_worn_keeps_sides_of_unknown_owner(turn_rad: float) -> None:
    """A person seen from the front has the right hand on the left of the picture; one who sits at its left has it at the bottom."""
    at = ((450, 300), (750, 300)) if turn_rad == UP else ((600, 450), (600, 150))
    found = labels([{0: hand(*at[0], 0.9, turn_rad), 1: hand(*at[1], 0.1, turn_rad)} for _ in range(30)])
    assert {(f[0].label, f[0].owner) for f in found} == {("right", "unknown")}
    assert {(f[1].label, f[1].owner) for f in found} == {("left", "unknown")}
    assert {v.why for f in found for v in f.values()} == {"arms_from_top" if turn_rad == UP else "arms_from_left"}


@pytest.mark.parametrize(("turn_rad", "why"), [(DOWN, None), (UP, "one_arm_from_top"), (LEFT, "one_arm_from_left")])
def test_a_lone_hand_says_where_its_arm_comes_from(turn_rad: float, why: str | None) -> None:
    """The side of a lone hand from elsewhere than the bottom is that of whoever it belongs to."""
    found = labels([{0: hand(600, 300, 0.9, turn_rad)} for _ in range(30)])
    assert {(f[0].label, f[0].owner, f[0].why) for f in found} == {("right", "unknown" if why else "wearer", why)}


def test_no_side_is_given_twice_in_a_frame_whatever_the_network_says() -> None:
    rng = np.random.default_rng(5)
    frames = [{t: hand(*rng.uniform(100, 700, 2), rng.uniform(), rng.uniform(-4, 4)) for t in range(rng.integers(0, 5))} for _ in range(60)]
    for found in labels(frames):
        sides = [v.label for v in found.values() if v.label != "other"]
        assert len(sides) == len(set(sides))
    assert assign([]) == []
    assert labels([{}, {}]) == [{}, {}]


def test_hands_of_others_have_track_ids_of_their_own_and_reuse_them_once_free() -> None:
    other = {c: Verdict("other", "other", c) for c in range(20)}
    frames = [{0: other[0], 1: other[1], 2: Verdict("left", "wearer", 2)}] * 2 + [{n: other[n]} for n in range(3, 20)]
    found = track_ids(frames)
    assert found[0] == {0: 3, 1: 4, 2: 1}
    assert all(set(ids.values()) <= set(range(1, 10)) and len(set(ids.values())) == len(ids) for ids in found)


def test_a_jump_is_further_than_a_hand_moves_in_the_time() -> None:
    def jumps(step_px: float, dt_s: float) -> bool | None:
        frames = [Seen(i * dt_s, {0: hand(300 + step_px * i, 300, 0.9)}) for i in range(2)]
        first, second = jumped(frames, [{0: 2}, {0: 2}])
        assert first == {0: None}
        return second[0]

    assert jumps(100, 1 / 30) is False
    assert jumps(300, 1 / 30) is True
    assert jumps(300, 1 / 5) is False


def test_another_persons_hand_gets_no_pose_and_no_prompt() -> None:
    other = detection_row(0, role="hand_other", track_id=3, owner="other")
    table = schema.from_rows("detections", [other, detection_row(0)])
    item = replace(pictures_input([np.zeros((60, 80, 3), np.uint8)]), tables={"detections": table})
    backend = operators.load("hand_pose", "mediapipe")
    assert backend(backend.Settings(), 1).run(item)["hand"].to_pylist() == ["left"]
    assert list(prompts_by_frame(table, (0,), 80, 60)[0]) == [1]


def measured(rows: list[dict[str, Any]], folder: Path) -> list[str]:
    """What the metrics of the stage warn of."""
    pq.write_table(schema.from_rows("detections", rows), folder / "rows.parquet")
    values = quality.measure(duckdb.connect(), "detections", [folder / "rows.parquet"])
    return [said.split(" ")[0] for said in quality.verdicts("detections", values, {})]


def test_metrics_name_each_fault_and_nothing_else(tmp_path: Path) -> None:
    clean = [detection_row(i, source="tracked", jumped=False) for i in range(20)]
    other = {"role": "hand_other", "track_id": 3, "source": "tracked"}
    assert measured(clean, tmp_path) == []
    assert measured([*clean, *(detection_row(i, **other, owner="other") for i in range(9))], tmp_path) == ["hand_other_share"]
    assert measured([*clean, *(detection_row(i, **other, owner="unknown") for i in range(9))], tmp_path) == ["hand_second_share"]
    assert measured([row | {"owner": "unknown"} for row in clean], tmp_path) == ["hand_owner_unknown_share"]
    assert measured([*clean[:-1], clean[-1] | {"jumped": True}], tmp_path) == ["hand_jumps"]


def test_a_pose_is_off_by_shares_of_the_palm_whatever_the_resolution(tmp_path: Path) -> None:
    points = np.stack([np.linspace(0, 40, 21), np.linspace(0, 90, 21)], 1)
    found = []
    for share in (1.0, 1 / 3):
        rows = [hand_pose_row(i, joints_px=(share * points).tolist(), reprojection_px=9.0 * share) for i in range(3)]
        pq.write_table(schema.from_rows("hand_pose", rows), tmp_path / "rows.parquet")
        found.append(quality.measure(duckdb.connect(), "hand_pose", [tmp_path / "rows.parquet"])["reprojection_share_median"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0] == pytest.approx(9 / (np.hypot(40, 90) * 12 / 20), rel=1e-4)


@pytest.fixture(scope="module")
def known(shared_data: Path) -> Callable[[str], tuple[Tally, pa.Table]]:
    clips = {clip.name: clip for clip in known_clips(shared_data)}
    backend = detector()

    def detect(name: str) -> tuple[Tally, pa.Table]:
        table = backend.run(clip_input(clips[name], 40))
        return Tally().add(clips[name], table), table

    return detect


def test_a_real_hand_opposite_is_not_the_wearers(known: Callable[[str], tuple[Tally, pa.Table]]) -> None:
    tally, _ = known("left hand, a right hand opposite")
    print(f"FIGURE a hand opposite, 40 frames: {tally}")
    assert tally.counts["others"] == tally.counts["swapped"] == tally.counts["given away"] == 0
    assert tally.coverage == 1
    assert tally.counts["told apart"] > 5
