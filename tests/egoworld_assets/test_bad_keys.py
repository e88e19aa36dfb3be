"""Partitions that a person added by hand in the UI: a key without a registered video fails alone, and the other videos are processed."""

from pathlib import Path

import dagster as dg
import pytest

from egoworld_assets.partitions import VIDEO_IDS, add_videos
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import intake
from tests.egoworld_assets.conftest import Place, checks, metadata
from tests.egoworld_ops import media

KEYS = ("kitchen.mp4", "..", "two words", "a" * 300, "küche-0123456789ab", "unknown-0123456789ab", "a/../b", "UPPER-0123456789ab")


@pytest.fixture
def good(place: Place, tmp_path: Path) -> str:
    """A video that can be processed."""
    media.make(tmp_path / "raw" / "good.mp4", 20, picture=media.scenes([]))
    [video_id] = place.register(tmp_path / "raw")
    return video_id


def test_keys_that_stand_for_no_video_fail_by_themselves(place: Place, good: str) -> None:
    place.dagster.add_dynamic_partitions(str(VIDEO_IDS.name), list(KEYS))

    result = place.run([good, *KEYS], "manifest", "detections", "masks", "preview")

    assert result.success
    for stage in ("manifest", "detections", "masks"):
        shown = metadata(result, stage)
        assert shown[good]["status"] == "ok"
        assert {shown[key]["status"] for key in KEYS} == {"failed"}
        judged = checks(result)
        assert judged[f"{stage}_complete", good].passed
        for key in KEYS:
            assert not judged[f"{stage}_complete", key].passed
            assert judged[f"{stage}_complete", key].severity == dg.AssetCheckSeverity.ERROR
            assert judged[f"{stage}_contract", key].passed, "nothing is there that could break it"
            assert key[:100] in str(judged[f"{stage}_complete", key].description)
            assert key[:100] in str(shown[key]["first failure"])
            assert "egoworld register" in str(shown[key]["first failure"]) or stage != "manifest"
    assert "preview" in metadata(result, "preview")[good]
    assert all(key[:100] in str(metadata(result, "preview")[key]["no preview"]) for key in KEYS)
    rows = {row["path"]: row for row in intake.read(Lake(place.settings.lake)).to_pylist() if row["status"] == "rejected"}
    assert set(rows) == set(KEYS)
    assert {row["error_class"] for row in rows.values()} == {"UnknownVideo"}
    assert not list(place.settings.lake.glob("run_id=*/video_id=unknown*")), "nothing of them is in the run"


def test_a_key_that_is_alone_is_no_fault_of_the_step(place: Place, good: str) -> None:
    place.dagster.add_dynamic_partitions(str(VIDEO_IDS.name), ["kitchen.mp4"])
    result = place.run(["kitchen.mp4"], "manifest", "detections")
    assert result.success
    assert not checks(result)["detections_complete", "kitchen.mp4"].passed


def test_a_key_whose_file_is_registered_later_is_refused_no_more(place: Place, good: str, tmp_path: Path) -> None:
    later = media.make(tmp_path / "later.mp4", 20, picture=media.scenes([], first=5))
    other = Place(place.settings.model_copy(update={"lake": tmp_path / "other"}), place.dagster)
    [video_id] = other.register(later)
    assert not checks(place.run([video_id], "manifest"))["manifest_complete", video_id].passed
    assert place.register(later) == [video_id]
    add_videos(place.dagster, [video_id])

    assert checks(place.run([video_id], "manifest"))["manifest_complete", video_id].passed

    rows = read_table(place.settings.lake / "intake" / "intake.parquet", "intake").to_pylist()
    assert {row["status"] for row in rows} == {"registered"}
