"""The truth card says what is true: rows that are the truth score perfectly, and known errors give known figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.contract import schema
from egoworld_ops.operators.rows import pose_columns
from egoworld_ops.report import ground_truth
from egoworld_ops.score import camera, readers
from egoworld_ops.score.card import BINS, Card, Measured, calibrations
from egoworld_ops.score.measuring import make_card
from egoworld_ops.score.truth import Truth
from egoworld_ops.synthetic import load_truth
from egoworld_ops.vision import geometry, rle
from tests.conftest import ROOT
from tests.rows import PER_FRAME, sample_row

KITCHEN = ROOT / "examples" / "synthetic" / "kitchen.truth"
TRACK = {"hand_left": 1, "hand_right": 2, "object": 10}
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def truth() -> Truth:
    """Of every twelfth frame and the third after it, and of the camera's path in all frames."""
    whole = readers.read(KITCHEN)
    frames = frozenset(range(0, 168, 12)) | frozenset(range(3, 168, 12))
    hands, objects, masks = (
        tuple(row for row in rows or () if row.frame_index in frames) for rows in (whole.hands, whole.objects, whole.masks)
    )
    return replace(whole, frames=frames, hands=hands, objects=objects, masks=masks)


def perfect(truth: Truth) -> Rows:
    """Rows that say what is true, each with confidence 1."""
    assert truth.hands is not None
    assert truth.masks is not None
    assert truth.objects is not None
    hands = [
        sample_row("hand_pose", h.frame_index, hand=h.hand, joints_px=h.joints_px, joints_m=h.joints_m, score=1.0) for h in truth.hands
    ]
    masks = [
        sample_row("masks", m.frame_index, role=m.role, track_id=TRACK[m.role], rle=m.rle, area_px=max(rle.area(m.rle), 1), score=1.0)
        for m in truth.masks
    ]
    poses = [sample_row("object_pose", o.frame_index, score=1.0, **_pose(o.T_camera_object)) for o in truth.objects]
    moves = [
        sample_row(
            "movement",
            o.frame_index,
            state="moving" if o.moving else "still",
            held_by=_held(o.held_by),
            hold_score=1.0,
        )
        for o in truth.objects
    ]
    return {"hand_pose": hands, "masks": masks, "object_pose": poses, "movement": moves}


def _held(hands: frozenset[Any] | None) -> str:
    return next(iter(hands)) if hands else "none"


def _pose(T: np.ndarray) -> dict[str, float]:
    return pose_columns(T[:3, :3], T[:3, 3])


def changed(rows: Rows, table: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Rows:
    """The rows with those of one table changed; None leaves a row out."""
    return rows | {table: [new for row in rows[table] if (new := change(row)) is not None]}


def scored(rows: Rows, truth: Truth) -> Card:
    tables: dict[str, pa.Table] = {name: schema.from_rows(name, listed) for name, listed in rows.items()}
    return make_card(tables, truth)


def values(card: Card) -> dict[str, float | None]:
    return {score.name: score.value for measured in card.stages.values() for score in measured.scores}


def errors(card: Card) -> dict[str, float]:
    return {c.name: c.error for measured in card.stages.values() for c in measured.calibrations}


def test_the_truth_itself_scores_perfectly(truth: Truth) -> None:
    card = scored(perfect(truth), truth)
    found = values(card)
    for name, value in found.items():
        if "jitter" in name:
            continue  # of frames that follow each other
        wanted = 1.0 if any(word in name for word in ("found", "J (", "F (", "J&F", "F1", "precision", "recall", "converged")) else 0.0
        assert value == pytest.approx(wanted, abs=1e-4), name
    assert set(card.stages) == {"masks", "hand_pose", "object_pose", "movement"}
    assert max(errors(card).values()) < 1e-6
    assert len(found) > 35


def test_a_shift_of_ten_millimetres_is_ten_millimetres_and_none_about_the_wrist(truth: Truth) -> None:
    moved = changed(perfect(truth), "hand_pose", lambda row: row | {"joints_m": row["joints_m"] + np.array([0.006, 0.0, 0.008])})
    found = values(scored(moved, truth))
    assert found["hands: MPJPE in the camera frame"] == pytest.approx(10, abs=1e-3)
    assert found["hands: MPJPE relative to the wrist"] == pytest.approx(0, abs=1e-3)
    assert found["hands: MPJPE similarity-aligned"] == pytest.approx(0, abs=1e-3)


def test_fused_hands_are_scored_beside_those_of_single_frames(truth: Truth) -> None:
    """Found hands that shake by 10 mm along the line of sight, fused ones that do not; every fourth of these is filled in."""
    whole = readers.read(KITCHEN)
    assert whole.hands is not None
    found, fused = [], []
    for hand in whole.hands:
        shake = np.array([0.0, 0.0, 0.01 if hand.frame_index % 2 else -0.01])
        named = {"hand": hand.hand, "timestamp_s": hand.frame_index / 30}
        found.append(sample_row("hand_pose", hand.frame_index, joints_px=hand.joints_px, joints_m=hand.joints_m + shake, **named))
        fused.append(sample_row("fusion", hand.frame_index, joints_m=hand.joints_m, observed=hand.frame_index % 4 > 0, **named))
    card = scored({"hand_pose": found, "fusion": fused}, whole)
    said = values(card)
    assert {"hand_pose", "fusion"} <= set(card.stages)
    assert said["hands: MPJPE in the camera frame"] == pytest.approx(10, abs=1e-3)
    assert said["fused hands: MPJPE in the camera frame"] == pytest.approx(0, abs=1e-3)
    assert said["fused hands: of these, filled in"] == pytest.approx(0.25)
    shaken, calm, true = (said[f"{kind}: jitter, acceleration of the wrist, p95"] or 0 for kind in ("hands", "fused hands", "true hands"))
    assert shaken == pytest.approx(4 * 0.01 * 30**2, rel=0.2), "from one side to the other in each frame"
    assert calm == pytest.approx(true, rel=1e-4)
    assert true < 10
    half = values(scored({"fusion": [row for row in fused if row["frame_index"] % 2]}, whole))
    assert half["fused hands: found with a 3D pose"] == pytest.approx(0.5)
    assert half["fused hands: MPJPE in the camera frame, missed as 100 mm"] == pytest.approx(50, abs=1e-2)


def test_leaving_hands_out_does_not_pay(truth: Truth) -> None:
    half = changed(perfect(truth), "hand_pose", lambda row: row if row["frame_index"] % 2 else None)
    found = values(scored(half, truth))
    assert found["hands: found, on the right side"] == pytest.approx(0.5)
    assert found["hands: MPJPE in the camera frame"] == pytest.approx(0, abs=1e-3)
    assert found["hands: MPJPE in the camera frame, missed as 100 mm"] == pytest.approx(50, abs=1e-3)


def test_swapped_hands_are_on_the_wrong_side_and_a_high_score_on_them_is_wrong(truth: Truth) -> None:
    other = {"left": "right", "right": "left"}
    card = scored(changed(perfect(truth), "hand_pose", lambda row: row | {"hand": other[row["hand"]], "score": 0.9}), truth)
    assert values(card)["hands: on the wrong side"] == 1.0
    assert errors(card)["hand_pose.score: joints within 10% of the hand"] == pytest.approx(0.9, abs=1e-6)


def test_a_hand_that_is_not_there_is_counted(truth: Truth) -> None:
    assert truth.hands is not None
    less = Truth("one hand", truth.frames, tuple(h for h in truth.hands if h.hand == "left"))
    assert values(scored({"hand_pose": perfect(truth)["hand_pose"]}, less))["hands: rows where no such hand is"] == pytest.approx(0.5)


@pytest.mark.parametrize(("degrees", "wanted", "right"), [(180, 0, 1.0), (30, 30, 0.0), (8, 8, 1.0)])
def test_a_turned_object_is_off_by_its_turn_unless_that_is_a_symmetry(truth: Truth, degrees: float, wanted: float, right: float) -> None:
    turn = geometry.rotations(np.radians([[0.0, 0.0, degrees]]))[0]

    def turned(row: dict[str, Any]) -> dict[str, Any]:
        R = geometry.matrix_from_quaternion(np.array([row["qw"], row["qx"], row["qy"], row["qz"]])) @ turn
        return row | pose_columns(R, np.array([row["x_m"], row["y_m"], row["z_m"]]))

    found = values(scored(changed(perfect(truth), "object_pose", turned), truth))
    assert found["objects: rotation off, symmetry counted, median"] == pytest.approx(wanted, abs=1e-3)
    assert found["objects: of the converged, right"] == right
    assert found["objects: ADD-S recall within 10% of the diameter"] == 1.0
    assert found["objects: ADD recall within 2% of the diameter"] == 0.0


def test_an_object_a_fifth_too_far_is_wrong_whatever_its_score(truth: Truth) -> None:
    far = changed(perfect(truth), "object_pose", lambda row: row | {a: 1.2 * row[a] for a in ("x_m", "y_m", "z_m")})
    card = scored(far, truth)
    found = values(card)
    assert found["objects: found with a pose"] == 1.0
    assert found["objects: of the converged, right"] == 0.0
    assert 20 <= (found["objects: translation off, median"] or 0) < 25  # of the depth, along the ray
    assert errors(card)["object_pose.score: within 10 deg and 10% of depth"] == pytest.approx(1.0)


def test_missing_masks_count_as_nothing_and_masks_of_nothing_as_wrong(truth: Truth) -> None:
    rows = perfect(truth)
    half = changed(rows, "masks", lambda row: None if row["role"] == "object" and row["frame_index"] % 2 else row)
    assert values(scored(half, truth))["object masks: J (IoU), mean"] == pytest.approx(0.5, abs=0.01)
    corner = np.zeros((480, 640), bool)
    corner[:40, :40] = True
    extra = [row | {"track_id": 11, "rle": rle.encode(corner), "area_px": 1600} for row in rows["masks"] if row["role"] == "object"]
    card = scored(rows | {"masks": [*rows["masks"], *extra]}, truth)
    assert values(card)["object masks: rows on something else"] == pytest.approx(0.5, abs=0.01)
    assert values(card)["object masks: J (IoU), mean"] == pytest.approx(1.0)
    assert errors(card)["masks.score of objects: IoU of 0.5"] == pytest.approx(0.5, abs=0.01)


def test_frames_that_a_stride_passes_over_are_not_missed(truth: Truth) -> None:
    every_other = {
        name: [row | {"sample_stride": 2} for row in listed if row["frame_index"] % 2 == 0] for name, listed in perfect(truth).items()
    }
    card = scored(every_other, truth)
    found = values(card)
    assert card.frames == len(truth.frames) // 2
    assert found["hands: found, on the right side"] == 1.0
    assert found["object masks: J (IoU), mean"] == 1.0
    assert found["holds: recall"] == 1.0
    failed = every_other | {"hand_pose": [row for row in every_other["hand_pose"] if row["frame_index"] % 8 == 0]}
    assert (values(scored(failed, truth))["hands: found, on the right side"] or 0) < 1.0


def test_the_demos_figures_are_of_processed_frames_too() -> None:
    every_fourth = {
        name: schema.from_rows(name, [row | {"sample_stride": 4} for row in listed if row["frame_index"] % 4 == 0])
        for name, listed in perfect(readers.read(KITCHEN)).items()
    }
    figures = ground_truth.compare(every_fourth, load_truth(KITCHEN))
    assert len(figures) == 9
    assert all(figure.ok and figure.found == 1.0 for figure in figures), figures


def test_shifted_frames_show(truth: Truth) -> None:
    late = {name: [row | {"frame_index": row["frame_index"] + 3} for row in listed] for name, listed in perfect(truth).items()}
    found = values(scored(late, truth))
    assert (found["hands: joint error in the image, median"] or 0) > 3
    assert (found["object masks: J (IoU), mean"] or 1) < 0.95


def test_holds_of_the_other_hand_and_of_nobody(truth: Truth) -> None:
    other = {"left": "right", "right": "left", "none": "none"}
    found = values(scored(changed(perfect(truth), "movement", lambda row: row | {"held_by": other[row["held_by"]]}), truth))
    assert found["holds: F1"] == 0.0
    assert found["moves: F1"] == 1.0
    nobody = values(scored(changed(perfect(truth), "movement", lambda row: row | {"held_by": "none", "hold_score": None}), truth))
    assert nobody["holds: recall"] == 0.0
    assert nobody["holds: precision"] is None


def test_bins_and_the_error_of_a_confidence() -> None:
    [found] = calibrations("made up", [(0.9, True)] * 3 + [(0.9, False)] + [(0.55, False)] * 4 + [(None, True), (1.0, True)])
    assert [(b.low, b.n, b.right) for b in found.bins] == [(0.5, 4, 0.0), (0.9, 5, 0.8)]
    assert found.error == pytest.approx((4 * 0.55 + 5 * abs(0.92 - 0.8)) / 9)
    assert calibrations("nothing", [(None, True)]) == ()
    assert (BINS[0], BINS[-1]) == (0, 1)


def _path(truth: Truth, moved: np.ndarray, scale: float) -> list[Mapping[str, Any]]:
    assert truth.camera is not None
    rows = []
    for frame, T in truth.camera.items():
        there = moved @ T
        there[:3, 3] *= scale
        at = {"frame_index": frame, "timestamp_s": frame / 30, "position_units": there[:3, 3].tolist()}
        rows.append(PER_FRAME | at | _pose(there))
    return rows


def _ate(measured: Measured | None) -> dict[str, float | None]:
    assert measured is not None
    return {score.name: score.value for score in measured.scores}


def test_a_path_in_another_world_or_of_another_size(truth: Truth) -> None:
    assert truth.camera is not None
    moved = geometry.make_transform(geometry.rotations(np.array([[0.3, -1.0, 0.5]]))[0], np.array([4.0, -2.0, 1.0]))
    same = _ate(camera.measure({"camera": _path(truth, moved, 1.0)}, truth))
    assert max(value or 0 for name, value in same.items() if "E" in name) < 1e-4
    twice = _ate(camera.measure({"camera": _path(truth, moved, 2.0)}, truth))
    assert twice["camera: ATE aligned by a similarity, RMSE"] == pytest.approx(0, abs=1e-6)
    positions = np.array([T[:3, 3] for T in truth.camera.values()])
    spread_m = float(np.sqrt(((positions - positions.mean(0)) ** 2).sum(1).mean()))
    assert twice["camera: ATE aligned by a rigid motion, RMSE"] == pytest.approx(spread_m, rel=1e-6)
    nowhere = [{**row, "x_m": None, "y_m": None, "z_m": None} for row in _path(truth, moved, 2.0)]
    without_metres = _ate(camera.measure({"camera": nowhere}, truth))
    assert without_metres["camera: ATE aligned by a similarity, RMSE"] == pytest.approx(0, abs=1e-6)
    assert without_metres["camera: frames with a pose"] == 1
    assert [value for name, value in without_metres.items() if "rigid" in name or "RPE" in name] == [None] * 3
    half = [row for row in _path(truth, moved, 1.0) if row["frame_index"] % 2]
    assert _ate(camera.measure({"camera": half}, truth))["camera: frames with a pose"] == pytest.approx(0.5)


def test_a_card_reads_as_lines_and_as_json(truth: Truth) -> None:
    card = scored(perfect(truth), truth)
    assert any(line.startswith("hands: MPJPE in the camera frame ") and " mm " in line for line in card.lines())
    assert card.to_json()["stages"]["hand_pose"]["scores"][0]["value"] == 1.0
    assert Path(card.source) == KITCHEN
