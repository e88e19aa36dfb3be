"""Each fault planted in finished tables raises the warning meant for it and no other; the tables as they are raise none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from egoworld_ops.contract import references, schema, validation
from egoworld_ops.operators.rows import pose_columns
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import rotations, towards
from tests.planted import FAULTS, UNTOLD, Fault, Known, agreement, warned, with_fault
from tests.real_chain import Kitchen
from tests.rows import sample_row

ABOUT_ROBOTS = "mapping.self_collision_share"
"""The robot hand of this scene does run into itself."""


@pytest.fixture(scope="module")
def clip(kitchen_chain: Kitchen) -> Known:
    """The first shot, as the chain made it."""
    return Known({stage: table for stage, table in kitchen_chain.shots[0].items() if stage != "agreement"}, 0, 56)


@pytest.fixture(scope="module")
def clean(clip: Known, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What is warned of where nothing is planted."""
    return warned([clip], tmp_path_factory.mktemp("clean"))


def test_a_clean_clip_agrees_with_itself(clip: Known, clean: set[str], kitchen_chain: Kitchen) -> None:
    assert clean <= {ABOUT_ROBOTS}
    rows = agreement(clip.tables)
    assert rows.equals(kitchen_chain.shots[0]["agreement"].select(rows.schema.names)), "as the chain has it"
    validation.validate("agreement", rows)
    assert list(references.dangling({**clip.tables, "agreement": rows})) == []
    assert rows.num_rows == 3 * 56
    assert rows["disagreement"].null_count == rows.num_rows
    assert rows["matched_track_id"].to_pylist() == rows["track_id"].to_pylist()
    assert set(rows["lag_frames"].to_pylist()) == {0}


@pytest.mark.parametrize("fault", [*FAULTS, *UNTOLD], ids=lambda fault: fault.name)
def test_a_planted_fault_raises_the_warning_meant_for_it_and_no_other(clip: Known, clean: set[str], fault: Fault, tmp_path: Path) -> None:
    found = warned([with_fault(clip, fault)], tmp_path) - clean
    assert fault.warns <= found <= fault.warns | fault.may


@pytest.mark.parametrize("n_frames", [1, 2, 4, 5, 6, 20])
def test_a_clip_of_few_frames_tells_no_lag(clip: Known, n_frames: int) -> None:
    few = {name: table.filter(pc.less(table["frame_index"], n_frames)) for name, table in clip.tables.items()}
    rows = agreement(few)
    assert rows.num_rows
    assert rows["lag_frames"].null_count == rows.num_rows


def test_a_row_says_what_is_wrong_in_the_frames_where_it_is(clip: Known) -> None:
    """A third of a second of hand poses with the sides exchanged, and one mask of another place."""
    hands = clip.tables["hand_pose"].to_pylist()
    for row in hands:
        if 10 <= row["frame_index"] < 20:
            row["hand"] = {"left": "right", "right": "left"}[row["hand"]]
    masks = clip.tables["masks"].to_pylist()
    away = np.zeros(masks[0]["rle"]["size"], bool)
    away[-9:, -9:] = True
    for row in masks:
        if row["frame_index"] == 40 and row["role"] == "hand_left":
            row |= {"rle": rle.encode(away), "bbox_px": rle.mask_bbox(away).tolist(), "area_px": int(away.sum())}
    changed = {"hand_pose": schema.from_rows("hand_pose", hands), "masks": schema.from_rows("masks", masks)}
    rows = agreement({**clip.tables, **changed})
    wrong = rows.filter(pc.is_valid(rows["disagreement"])).select(["frame_index", "role", "disagreement", "matched_track_id"]).to_pylist()
    swapped = [r for r in wrong if r["disagreement"] == "other_thing"]
    assert {r["frame_index"] for r in swapped} == set(range(10, 20))
    assert {(r["role"], r["matched_track_id"]) for r in swapped} == {("hand_left", 2), ("hand_right", 1)}
    assert {r["frame_index"] for r in wrong if r["disagreement"] == "jumping"} <= {9, 20}, (
        "beside frames with another hand in the same track"
    )
    [off] = [r for r in wrong if r["disagreement"] not in ("other_thing", "jumping")]
    assert (off["frame_index"], off["role"], off["disagreement"]) == (40, "hand_left", "empty_mask")


def test_a_ball_in_its_cube_is_no_fault_and_a_rod_across_its_mask_is() -> None:
    """Seen along the diagonal, a ball fills less than half of the outline of its cube."""
    y, x = np.mgrid[:200, :200] - 99.5
    ball, rod = np.hypot(x, y) <= 50, (abs(x) <= 75) & (abs(y) <= 15)
    diagonal = towards(np.ones((1, 3)))[0].T
    upright = rotations(np.array([[0.0, 0.0, np.pi / 2]]))[0]
    for seen, size_m, R, disagreement in (
        (ball, (0.2, 0.2, 0.2), diagonal, None),
        (rod, (0.3, 0.06, 0.06), np.eye(3), None),
        (rod, (0.3, 0.06, 0.06), upright, "outline_off_mask"),
    ):
        mask = {"rle": rle.encode(seen), "bbox_px": rle.mask_bbox(seen).tolist(), "area_px": int(seen.sum())}
        pose = pose_columns(R, np.array([0.0, 0.0, 1.0])) | {"dimensions_m": size_m, "scale_source": "mesh", "cx_px": 99.5, "cy_px": 99.5}
        tables = {stage: schema.empty(stage) for stage in ("detections", "hand_pose", "fusion")}
        tables["masks"] = schema.from_rows("masks", [sample_row("masks", 0, track_id=10, role="object", **mask)])
        tables["object_pose"] = schema.from_rows("object_pose", [sample_row("object_pose", 0, **pose)])
        [row] = agreement(tables).to_pylist()
        assert row["disagreement"] == disagreement, row
        assert (row["outline_iou"] < 0.6) == (seen is ball or disagreement is not None)


def test_points_in_a_mask_are_found_without_decoding_it() -> None:
    rng = np.random.default_rng(5)
    mask = rng.random((13, 29)) < 0.4
    points = rng.uniform(-3, 32, (500, 2))
    x, y = np.rint(points).astype(int).T
    within = (x >= 0) & (x < 29) & (y >= 0) & (y < 13)
    assert rle.at(rle.encode(mask), points).tolist() == [bool(w and mask[b, a]) for w, a, b in zip(within, x, y, strict=True)]
    assert not rle.at(rle.encode(mask), np.array([np.nan, 1.0]))
