"""`egoworld score` prints the card, keeps it beside the tables, and shows it in Dagster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops.errors import UnknownVideo
from egoworld_ops.lake import counted
from egoworld_ops.lake.lake import Lake, Run
from tests.conftest import ROOT
from tests.lakes import fail, write_video

KITCHEN = ROOT / "examples" / "synthetic" / "kitchen.truth"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "home").mkdir()
    for name, value in (("DAGSTER_HOME", tmp_path / "home"), ("EGOWORLD_LAKE", tmp_path / "lake")):
        monkeypatch.setenv(name, str(value))
    return Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)


@pytest.fixture
def truth(tmp_path: Path) -> str:
    """The hands of the rendered scene."""
    (tmp_path / "truth").mkdir()
    shutil.copy(KITCHEN / "hands.parquet", tmp_path / "truth")
    return str(tmp_path / "truth")


def test_the_card_is_printed_kept_and_observed(run: Run, tmp_path: Path, truth: str) -> None:
    video_id = write_video(run, "a", n_frames=50)
    done = CliRunner().invoke(egoworld, ["score", run.run_id, "--truth", truth])
    assert done.exit_code == 0, done.output
    assert "hands: MPJPE in the camera frame, missed as 100 mm" in done.output
    kept = json.loads(run.truth_card(video_id).read_text())
    assert (kept["run_id"], kept["video_id"], kept["source"]) == (run.run_id, video_id, truth)
    found = {score["name"]: score for score in kept["stages"]["hand_pose"]["scores"]}
    assert found["hands: found, on the right side"]["n"] == 336  # both hands in 168 frames, of which the lake has 50
    assert found["hands: found, on the right side"]["value"] == pytest.approx(100 / 336)
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as dagster:
        [record] = dagster.fetch_observations(dg.AssetKey("hand_pose"), limit=5).records
        assert record.asset_observation is not None
        assert record.asset_observation.partition == video_id
        assert record.asset_observation.metadata["hands: found, on the right side"].value == pytest.approx(100 / 336)


def test_other_rows_have_another_digest_on_their_card(run: Run, truth: str) -> None:
    video_id = write_video(run, "a", n_frames=50)
    made_of = []
    for broken in (False, True):
        if broken:
            [clip, *_] = sorted(p.name.removeprefix("clip_id=") for p in run.video_folder(video_id).glob("clip_id=*"))
            fail(run, video_id, clip, "hand_pose")
            counted.count(run, video_id)
        assert CliRunner().invoke(egoworld, ["score", run.run_id, "--truth", truth]).exit_code == 0
        made_of.append(json.loads(run.truth_card(video_id).read_text())["made_of"])
    assert made_of[0] != made_of[1]


def test_of_several_videos_one_must_be_named(run: Run, truth: str) -> None:
    videos = [write_video(run, name, n_frames=30) for name in "ab"]
    refused = CliRunner().invoke(egoworld, ["score", run.run_id, "--truth", truth])
    assert isinstance(refused.exception, UnknownVideo)
    assert f"Name one with --video: {', '.join(sorted(videos))}" in str(refused.exception)
    assert CliRunner().invoke(egoworld, ["score", run.run_id, "--truth", truth, "--video", videos[1]]).exit_code == 0
    assert not run.truth_card(videos[0]).exists()
