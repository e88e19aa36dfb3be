"""The quick reader of footers agrees with the Parquet library, and reads no files that are not whole or not of the lake."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egoworld_ops.contract import schema
from egoworld_ops.files import footer
from egoworld_ops.files.tables import PROVENANCE_KEY, provenance_at, write_table
from tests.rows import detection_row


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000, 3_000_000])
@pytest.mark.parametrize("n_rows", [0, 3])
def test_it_reads_what_was_written(tmp_path: Path, size: int, n_rows: int) -> None:
    path = tmp_path / "detections.parquet"
    said = {"digest": "d1", "note": "ü\u0013\n\0egoworld.provenance" + "x" * size, "identity": {"a": [1, None]}}
    rows = [detection_row(n) for n in range(n_rows)]
    write_table(path, "detections", schema.from_rows("detections", rows), said)
    assert footer.provenance(path) == provenance_at(path) == said


@pytest.mark.parametrize("kept", [0, 1, 4, 100, -1, -4, -9])
def test_a_torn_file_says_nothing(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "detections.parquet"
    write_table(path, "detections", schema.empty("detections"), {"digest": "d1"})
    path.write_bytes(path.read_bytes()[:kept])
    assert footer.provenance(path) is None


@pytest.mark.parametrize(
    "content", [b"PAR1", b"PAR1\xff\xff\xff\xffPAR1", b"x" * 100_000, b"PAR1\x18\x13egoworld.provenance\x18\xff\x17\0\0\0PAR1"]
)
def test_a_foreign_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    assert footer.provenance(path) is None


def test_a_parquet_file_of_somebody_else_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"a": [1]})
    for metadata in ({}, {b"other": b"{}"}, {PROVENANCE_KEY: b"not json"}, {PROVENANCE_KEY: b"[1]"}):
        pq.write_table(table.replace_schema_metadata(metadata), path)
        assert footer.provenance(path) is None


def test_where_there_is_no_file_there_is_nothing_and_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert footer.provenance(tmp_path / "x.parquet") is None
    with pytest.raises(OSError, match="regular file"):
        footer.provenance(tmp_path)
