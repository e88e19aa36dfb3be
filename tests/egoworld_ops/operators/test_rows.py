"""Columns that stages share."""

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.operators.rows import by_frame, pose_columns, pose_of
from egoworld_ops.vision.geometry import rotations


def test_a_pose_comes_back_from_its_columns() -> None:
    R = rotations(np.array([[0.3, -1.2, 0.7]]))[0]
    T = pose_of(pose_columns(R, np.array([0.1, -0.2, 0.6])))
    assert T is not None
    assert np.allclose(T[:3, :3], R, atol=1e-12)
    assert T[:3, 3].tolist() == [0.1, -0.2, 0.6]


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_a_pose_of_which_a_number_is_missing_is_none(bad: float | None) -> None:
    assert pose_of(pose_columns(np.eye(3), np.zeros(3)) | {"z_m": bad}) is None


def test_rows_are_grouped_by_their_frame_in_order() -> None:
    table = pa.table({"frame_index": [3, 5, 3], "track_id": [1, 1, 2], "label": ["a", "b", "c"]})
    assert by_frame(table, ("frame_index", "track_id")) == {
        3: [{"frame_index": 3, "track_id": 1}, {"frame_index": 3, "track_id": 2}],
        5: [{"frame_index": 5, "track_id": 1}],
    }
