"""A verdict stays in the history, stands while the results it is on count, and chooses the rows of an export."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops.errors import BadSettings, ContractError, SetupError
from egoworld_ops.exports.base import rows_of
from egoworld_ops.lake import chosen, counted, states, verdicts
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query import catalog
from egoworld_ops.upkeep.verify import verify
from tests import damage, lakes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two videos of three clips each."""
    made = Lake(tmp_path_factory.mktemp("written") / "lake").open_run({}, "20260101_0000", dict)
    for name in ("one", "two"):
        lakes.write_video(made, name, 12, 0.2, 0.04)
    return made


@pytest.fixture
def run(written: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    shutil.copytree(written.lake.root, tmp_path / "lake", symlinks=True)
    return Run(Lake(tmp_path / "lake"), written.run_id)


def clips(run: Run) -> list[tuple[str, str]]:
    found = [states.video_state(run, video_id) for video_id in states.video_ids(run)]
    return [(video.video_id, clip.clip_id) for video in found if video for clip in video.clips]


def taken(run: Run, word: str) -> set[tuple[str, str]]:
    choice = chosen.choose(run, word)
    assert choice is not None
    return {clip for clip in clips(run) if choice.takes(clip)}


def judge(
    run: Run, clip: tuple[str, str], word: str, by: str = "ann", why: str = "", frames: tuple[int | None, int | None] = (None, None)
) -> None:
    verdicts.add(run.lake, [verdicts.new(run, clip, word, why, by, frames)])


def test_the_last_word_of_each_judge_stands_the_worst_is_the_clips_and_all_stay(run: Run) -> None:
    first, second, *_ = clips(run)
    judge(run, first, "bad", why="fingers swapped")
    judge(run, first, "good")
    judge(run, second, "good")
    judge(run, second, "bad", frames=(4, 6))
    judge(run, second, "unsure", by="bob")
    stands = verdicts.standing(run, verdicts.read(run.lake))
    assert {clip: verdicts.word(of_clip) for clip, of_clip in stands.items()} == {first: "good", second: "bad"}
    assert [(v.verdict, v.why) for v in verdicts.read(run.lake)][:2] == [("bad", "fingers swapped"), ("good", None)]
    assert taken(run, "good") == {first}


def test_a_verdict_on_results_that_no_longer_count_does_not_stand(run: Run) -> None:
    first, second, *_ = clips(run)
    judge(run, first, "good")
    judge(run, second, "good")
    damage.made_again(run.clip_table("events", *first))
    counted.count(run, first[0])
    assert taken(run, "good") == {second}
    judge(run, first, "bad")
    assert taken(run, "bad") == {first}


def test_an_export_has_the_rows_of_clips_of_that_verdict_and_no_others(run: Run) -> None:
    kept = clips(run)[1]
    judge(run, kept, "good")
    judge(run, clips(run)[0], "bad")
    rows = rows_of(run, verdict="good")
    assert rows.videos == [kept[0]]
    told = rows.described()["verdicts"]
    assert (told["verdict"], told["judged"], told["left_out"]) == ("good", 2, {"bad": 1, "not judged": 4})
    for table in ("clips", "masks", "fusion", "events"):
        found = {row["clip_id"] for part in rows.of(table) for row in part.to_pylist()}
        assert found == {kept[1]}, table
    assert [part.num_rows for part in rows.of("videos")] == [1]
    assert len(rows_of(run).videos) == 2
    assert rows_of(run, without=["bad"]).described()["verdicts"]["left_out"] == {"bad": 1}
    assert rows_of(run, [clips(run)[3][0]], without=["bad"]).described()["verdicts"]["left_out"] == {}
    with pytest.raises(BadSettings, match="Choose one of bad, good, unsure"):
        rows_of(run, verdict="fine")


def test_judges_at_once_lose_no_verdict(run: Run) -> None:
    def many(by: str) -> None:
        for clip in clips(run):
            judge(run, clip, "good", by=by)

    threads = [threading.Thread(target=many, args=(f"judge {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(verdicts.read(run.lake)) == 4 * 6


def test_kappa_is_that_of_cohen(run: Run) -> None:
    """Of 50 pairs as in the textbook example: both yes 20, both no 15, 5 and 10 apart: kappa 0.4."""
    said = [("good", "good")] * 20 + [("good", "bad")] * 5 + [("bad", "good")] * 10 + [("bad", "bad")] * 15
    one = verdicts.new(run, clips(run)[0], "good", "", "ann")
    of_clips = {
        (f"v{n}", "c"): [replace(one, video_id=f"v{n}", clip_id="c", judge=by, verdict=word) for by, word in (("ann", a), ("bob", b))]
        for n, (a, b) in enumerate(said)
    }
    [pair] = verdicts.agreement(of_clips)  # type: ignore[arg-type]
    assert (pair.a, pair.b, pair.n, pair.same, pair.kappa) == ("ann", "bob", 50, 35, pytest.approx(0.4))
    [alike] = verdicts.agreement({("v", "c"): of_clips["v0", "c"]})
    assert alike.kappa is None


def test_the_view_has_every_verdict_and_of_a_lake_without_any_none(run: Run) -> None:
    database = str(catalog.write_catalog(run.lake))
    with duckdb.connect(database, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM verdicts").fetchall() == [(0,)]
    judge(run, clips(run)[0], "bad", why="'; DROP TABLE x")
    with duckdb.connect(database, read_only=True) as connection:
        assert connection.execute("SELECT verdict, why, judge FROM verdicts").fetchall() == [("bad", "'; DROP TABLE x", "ann")]


def test_verdicts_go_to_another_lake_once_and_a_line_that_is_none_stops_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(run, clips(run)[0], "bad", why="ä \n line", frames=(0, 3))
    judge(run, clips(run)[1], "good")
    file = tmp_path / "verdicts.jsonl"

    def told(*arguments: str) -> str:
        result = CliRunner().invoke(egoworld, ["verdicts", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    monkeypatch.setenv("EGOWORLD_LAKE", str(run.lake.root))
    told("export", str(file))
    assert file.read_text("utf-8") == told("export").removesuffix("2 verdict(s)\n")
    refused = CliRunner().invoke(egoworld, ["verdicts", "export", "/dev/full"])
    assert "/dev/full: is there, and is no file" in str(refused.exception)
    assert "bad" in told("list", "--run", run.run_id)
    assert "1 clip(s)" in told("list", "--run", run.run_id, "--verdict", "good")
    other = Lake(tmp_path / "other")
    monkeypatch.setenv("EGOWORLD_LAKE", str(other.root))
    assert "2 verdict(s) added, 0 were there" in told("import", str(file))
    assert "0 verdict(s) added, 2 were there" in told("import", str(file))
    assert verdicts.read(other) == verdicts.read(run.lake)
    line = json.loads(file.read_text().splitlines()[0])
    for wrong in (
        {"verdict": "fine"},
        {"clip_id": "../x"},
        {"judge": ""},
        {"frame_end": 0},
        {"judged_at": "2026-01-01"},
        {"why": "x" * 2001},
    ):
        with pytest.raises(SetupError, match="line 2"):
            list(verdicts.parse(["\n", json.dumps(line | wrong)], "f"))
    with pytest.raises(SetupError, match="line 1"):
        list(verdicts.parse(["[1, 2"], "f"))


def test_a_damaged_history_is_not_written_over(run: Run) -> None:
    judge(run, clips(run)[0], "bad")
    damage.flip(verdicts.path(run.lake), 40)
    before = verdicts.path(run.lake).read_bytes()
    with pytest.raises(ContractError, match=r"verdicts\.parquet"):
        judge(run, clips(run)[0], "good")
    assert verdicts.path(run.lake).read_bytes() == before
    assert [str(found.culprit) for found in verify(run) if "verdicts" in str(found.culprit)] == [str(verdicts.path(run.lake))]
