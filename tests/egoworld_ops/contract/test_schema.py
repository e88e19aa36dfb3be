"""The contract accepts valid tables and names the fault of invalid ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import links, quality, schema, validation, world
from egoworld_ops.errors import ContractError
from egoworld_ops.report.contract_page import contract_page
from tests.rows import detection_row, hand_pose_row, sample_row

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", schema.TABLES)
def test_an_empty_table_keeps_the_contract(name: str) -> None:
    validation.validate(name, schema.empty(name))


@pytest.mark.parametrize("name", operators.stages())
def test_the_rows_that_a_stage_declares_as_samples_keep_its_contract(name: str) -> None:
    assert operators.stages()[name].sample
    validation.validate(name, schema.from_rows(name, [sample_row(name, 0)]))


@pytest.mark.parametrize("name", [*schema.TABLES, *world.VIEWS, *links.LINKS])
def test_every_column_says_what_it_means(name: str) -> None:
    for column in schema.table(name).columns:
        assert column.doc
        units = {"_m_s": "m/s", "_rad_s": "rad/s", "_m": "m", "_s": "s", "_px": "px", "_rad": "rad", "_deg": "deg"}
        unit = next((unit for suffix, unit in units.items() if column.name.endswith(suffix)), None)
        assert unit in (None, column.unit), f"{name}.{column.name}"


def test_rows_survive_parquet_with_their_types_and_meaning(tmp_path: Path) -> None:
    rows = schema.from_rows(
        "detections", [detection_row(1), detection_row(0, role="object", track_id=10, points_px=None, landmarks_m=None)]
    )
    pq.write_table(rows, tmp_path / "x.parquet")
    back = pq.read_table(tmp_path / "x.parquet")
    validation.validate("detections", back)
    assert back["frame_index"].to_pylist() == [0, 1]
    assert back["points_px"].to_pylist()[0] is None
    assert back.schema.field("box_px").metadata[b"unit"] == b"px"
    assert b"OpenCV" in back.schema.metadata[b"egoworld.convention.camera_frame"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"role": "foot"}, "role has values ['foot']"),
        ({"score": 1.5}, "score has values above 1"),
        ({"frame_index": -1}, "frame_index has values below 0"),
        ({"timestamp_s": None}, "timestamp_s has 1 nulls"),
        ({"box_px": np.array([0, 0, np.nan, 1])}, "box_px has 1 values that are not finite"),
        ({"timestamp_s": np.inf}, "timestamp_s has 1 values that are not finite"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(ContractError) as caught:
        validation.validate("detections", schema.from_rows("detections", [detection_row(0) | change]))
    assert said in str(caught.value)


@pytest.mark.parametrize("change", [{"points_px": np.zeros((20, 2))}, {"sample_stride": "one"}, {"colour": "red"}])
def test_a_row_of_another_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="table detections"):
        schema.from_rows("detections", [detection_row(0) | change])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qw": 0.9}, "unit norm"),
        ({"qw": -1.0}, "qw < 0"),
        ({"qx": None}, "null in part"),
    ],
)
def test_quaternions_are_of_unit_norm_whole_and_of_the_right_sign(change: dict[str, object], said: str) -> None:
    wrong = validation.violations("hand_pose", schema.from_rows("hand_pose", [hand_pose_row(0) | change]))
    assert any(said in w for w in wrong)


def test_a_key_is_unique_and_rows_are_in_its_order() -> None:
    twice = schema.from_rows("detections", [detection_row(0), detection_row(0)])
    assert any("not unique" in w for w in validation.violations("detections", twice))
    ordered = schema.from_rows("detections", [detection_row(0), detection_row(1)])
    assert any("not sorted" in w for w in validation.violations("detections", ordered.take([1, 0])))


def test_foreign_columns_and_types_are_named() -> None:
    assert any("columns" in w for w in validation.violations("clips", pa.table({"a": [1]})))
    wrong = schema.empty("clips").set_column(2, "frame_start", pa.array([], pa.string()))
    assert any("frame_start is string" in w for w in validation.violations("clips", wrong))


def test_the_page_of_the_contract_is_the_one_in_the_docs() -> None:
    page = (ROOT / "docs" / "data_contract.md").read_text("utf-8")
    assert page == contract_page(), "run `make docs`"


def test_a_metric_warns_below_its_minimum_and_above_its_maximum_and_not_at_them() -> None:
    metric = quality.Metric("share", "avg(x)", "what it is", 0.5, 0.9)
    assert [metric.verdict(value) for value in (None, 0.5, 0.7, 0.9)] == [None] * 4
    assert "share is 0.4, want at least 0.5: what it is" in (metric.verdict(0.4) or "")
    assert "share is 0.95, want at most 0.9: what it is" in (metric.verdict(0.95) or "")


def test_a_surface_that_is_not_there_takes_no_room_and_one_of_another_mesh_is_refused() -> None:
    rows = schema.from_rows("hand_pose", [hand_pose_row(i, vertices_wrist_m=None) for i in range(100)])
    assert rows["vertices_wrist_m"].nbytes < 10 * 100, "a list of fixed size takes the room of its values also where it is null"
    right = schema.from_rows("hand_pose", [hand_pose_row(0, vertices_wrist_m=np.zeros((778, 3)))])
    assert not list(validation.violations("hand_pose", right))
    wrong = schema.from_rows("hand_pose", [hand_pose_row(0, vertices_wrist_m=np.zeros((21, 3)))])
    assert list(validation.violations("hand_pose", wrong)) == ["vertices_wrist_m has lists of [21] values, want 778"]
