"""No hands, five, hands that cross, and one that leaves and returns: what the mesh networks and `rtmpose` make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.detections import rtmpose
from egoworld_ops.operators.hand_pose import hamer, hawor, wilor
from egoworld_ops.operators.hand_pose._mesh_backend import MeshBackend
from tests.egoworld_ops.operators.clips import pictures_input
from tests.egoworld_ops.operators.onnx_stand_ins import constant, simcc_of_colours
from tests.egoworld_ops.operators.test_detections_rtmpose import (
    COLOURS,
    DETECTOR,
    MEAN,
    STD,
    box_of,
    dets,
    hand_at,
    nearest_px,
    picture,
    stand_ins,
)
from tests.egoworld_ops.operators.test_hand_pose_meshes import hand_row, noise, some_points
from tests.egoworld_ops.operators.test_hand_pose_meshes import run as poses_of

__all__ = ["stand_ins"]

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 5
CROSSING, ALONE = 2, 3
"""The frame in which both hands fill the same box; the one in which the left hand is away."""


def scene() -> list[dict[str, Any]]:
    """Nothing at first; then the wearer's hands, which cross, and three hands of others; the left one leaves and returns."""
    rows = []
    for index in range(1, FRAMES):
        at = {"left": 200.0 + 60 * index, "right": 440.0 - 60 * index}
        rows += [hand_row(index, side, some_points(at[side], 200)) for side in ("left", "right") if (index, side) != (ALONE, "left")]
        others = [hand_row(index, "left", some_points(80 + 120 * i, 80)) for i in range(3)]
        rows += [row | {"role": "hand_other", "track_id": 3 + i, "owner": "other"} for i, row in enumerate(others)]
    return rows


@pytest.mark.parametrize("backend", [hamer.Backend, wilor.Backend, hawor.Backend])
def test_a_pose_is_that_of_the_hand_alone_whatever_is_beside_it(backend: type[MeshBackend]) -> None:
    operator = backend(backend.Settings(device="cpu", random_weights_seed=3, micro_batch=1), threads=1)
    pictures, rows = noise(1) * FRAMES, scene()
    every = poses_of(operator, rows, pictures=pictures).to_pylist()
    both = [(i, side) for i in range(1, FRAMES) for side in ("left", "right") if (i, side) != (ALONE, "left")]
    assert [(row["frame_index"], row["hand"]) for row in every] == both, "of five hands the wearer's two, and none where there is none"
    assert all(row["reason"] is None for row in every)
    crossed = {row["hand"]: np.array(row["joints_wrist_m"]) for row in every if row["frame_index"] == CROSSING}
    assert np.abs(crossed["left"] - crossed["right"]).max() > 1e-3, "the left one is seen in the mirror"
    for side in ("left", "right"):
        alone = poses_of(operator, [row for row in rows if row["role"] == f"hand_{side}"], pictures=pictures).to_pylist()
        assert alone == [row for row in every if row["hand"] == side]


def test_of_hands_that_cross_one_is_seen_while_they_lie_on_each_other(stand_ins: dict[str, Path]) -> None:
    """Where boxes overlap by more than half the surer one counts; then both are there again. In no frame are there two of one side."""
    hands = [[hand_at(100 + 60 * i, 150), hand_at(340 - 60 * i, 170)] for i in range(FRAMES)]
    answers = iter([dets([box_of(one, 0.9), box_of(other, 0.8)]) for one, other in hands] + [dets([])])
    constant(stand_ins["rtmdet_hand"], DETECTOR, dets([]))
    simcc_of_colours(stand_ins["rtmpose_hand"], (COLOURS - MEAN) / STD)
    backend = rtmpose.Backend(rtmpose.Settings(device="cpu", objects=False), 1)
    backend._detector = lambda **_: list(next(answers).values())  # type: ignore[assignment]
    pictures = [picture(pair[: 1 if i == CROSSING else 2]) for i, pair in enumerate(hands)]
    table = backend.run(pictures_input([*pictures, picture([])]))
    validation.validate("detections", table)
    rows = table.to_pylist()
    frames = [[row for row in rows if row["frame_index"] == i] for i in range(FRAMES + 1)]
    assert [len(frame) for frame in frames] == [2, 2, 1, 2, 2, 0]
    assert all(len({row["track_id"] for row in frame}) == len({row["role"] for row in frame}) == len(frame) for frame in frames)
    for i in (0, FRAMES - 1):  # between, the stand-in sees the other hand's dots in a crop
        assert nearest_px(schema.from_rows("detections", frames[i]), hands[i]) < 2.5
