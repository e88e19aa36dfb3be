"""A release and an export carry the truth cards that speak of their rows, say so, and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops import exports
from egoworld_ops.exports.base import rows_of
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import video_ids
from egoworld_ops.release.make import make_release
from egoworld_ops.release.place import PAGE_NAME, card_path, folder, read
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.upkeep.verify import verify
from tests.conftest import ROOT
from tests.lakes import files_of_release, register_videos, write_video

KITCHEN = ROOT / "examples" / "synthetic" / "kitchen.truth"
FIGURE = "hands: MPJPE in the camera frame"
SETTINGS = ReleaseSettings(part_mb=0.75, writers=2)


@pytest.fixture(autouse=True)
def _at_home(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    register_videos(run)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EGOWORLD_LAKE", str(run.lake.root))
    (run.lake.root.parent / "truth").mkdir()
    shutil.copy(KITCHEN / "hands.parquet", run.lake.root.parent / "truth")


def command(*arguments: str) -> str:
    done = CliRunner().invoke(egoworld, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def score(run: Run, video_id: str) -> bytes:
    command("score", run.run_id, "--video", video_id, "--truth", str(run.lake.root.parent / "truth"))
    return run.truth_card(video_id).read_bytes()


def test_a_release_carries_the_card_of_its_rows_and_its_page_tells_the_figures(run: Run) -> None:
    a, b, c = video_ids(run)
    assert "no video of it was scored" in command("release") + (make_release(run, SETTINGS).path / PAGE_NAME).read_text()
    before = files_of_release(run)
    card = score(run, b)
    made = make_release(run, SETTINGS)
    assert card_path(made.path, b).read_bytes() == card
    assert (list(made.manifest.truth_cards), made.left_out, made.written) == ([b], [], 0)
    assert read(run) == made.manifest
    changed = {name for name, stat in files_of_release(run).items() if before.get(name) != stat}
    assert changed == {"release.json", PAGE_NAME, f"truth_cards/{b}.json"}
    [value] = [s["value"] for s in json.loads(card)["stages"]["hand_pose"]["scores"] if s["name"] == FIGURE]
    shown = command("releases", "show")
    assert f"### {b}" in shown
    assert f"| {FIGURE} | {value:.4g} | mm |" in shown
    assert f"### {a}" not in shown
    assert "1 truth card(s)  schema `release`" in command("releases", "list")
    assert list(verify(run)) == []
    again = files_of_release(run)
    make_release(run, SETTINGS)
    assert files_of_release(run) == again, "the same run, the same release"
    score(run, c)
    assert list(make_release(run, SETTINGS).manifest.truth_cards) == [b, c]


def test_a_card_of_other_rows_is_left_out_and_said(run: Run) -> None:
    _, b, c = video_ids(run)
    score(run, b)
    score(run, c)
    assert len(make_release(run, SETTINGS).manifest.truth_cards) == 2
    write_video(run, "b", n_frames=50, seed=1)
    assert any("truth_cards" in str(found) and "run as it is now" in str(found) for found in verify(run))
    made = make_release(run, SETTINGS)
    assert (list(made.manifest.truth_cards), made.left_out) == ([c], [b])
    assert not card_path(made.path, b).exists()
    run.truth_card(c).write_text("{")
    assert make_release(run, SETTINGS).left_out == [b, c]
    assert not (folder(run) / "truth_cards").exists()
    said = CliRunner().invoke(egoworld, ["release"])
    assert (
        f"the truth card of {b} is left out, it is of other rows or damaged: score the video again, if all its clips are taken"
        in said.stderr
    )


def test_a_card_or_page_that_was_changed_is_found_and_mended(run: Run) -> None:
    _, b, _ = video_ids(run)
    card = score(run, b)
    path = make_release(run, SETTINGS).path
    for changed in (card_path(path, b), path / PAGE_NAME, card_path(path, "nobody")):
        changed.write_text("better")
        assert [str(changed) in str(found) for found in verify(run)] == [True]
        make_release(run, SETTINGS)
        assert card_path(path, b).read_bytes() == card
        assert list(verify(run)) == []


def test_an_export_carries_the_very_cards_of_the_release_and_names_them(run: Run, tmp_path: Path) -> None:
    a, b, c = video_ids(run)
    exports.write("csv", rows_of(run, [a]), tmp_path / "before")
    assert not (tmp_path / "before" / "truth_cards").exists()
    score(run, a)
    score(run, b)
    write_video(run, "b", n_frames=50, seed=1)
    released = make_release(run, SETTINGS)
    [card] = released.manifest.truth_cards
    done = CliRunner().invoke(egoworld, ["export", "parquet", run.run_id, str(tmp_path / "parquet")], catch_exceptions=False)
    assert f"{tmp_path}/parquet/truth_cards/{a}.json" in done.stdout
    assert [line for line in done.stderr.splitlines() if "card" in line] == [
        f"the truth card of {b} is left out, it is of other rows or damaged: score the video again, if all its clips are taken"
    ]
    exports.write("csv", rows_of(run, [a, c]), tmp_path / "csv")
    said = {
        "csv": (tmp_path / "csv" / "export.json").read_bytes(),
        "parquet": pq.read_metadata(tmp_path / "parquet" / "hand_pose.parquet").metadata[b"egoworld.export"],
    }
    for name, about in said.items():
        [path] = (tmp_path / name / "truth_cards").iterdir()
        assert (path.stem, path.read_bytes()) == (card, card_path(released.path, a).read_bytes())
        assert json.loads(about)["truth_cards"] == released.manifest.truth_cards
    assert json.loads((tmp_path / "before" / "export.json").read_text())["truth_cards"] == {}
