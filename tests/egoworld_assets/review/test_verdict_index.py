"""The index of the review page follows verdicts and the results they are on, and looks again only at videos of which one has changed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from egoworld_assets.review.index import Index
from egoworld_ops.lake import counted, verdicts
from egoworld_ops.lake.lake import Lake, Run
from tests import damage, lakes


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two videos of one clip each."""
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    for name in ("one", "two"):
        lakes.write_video(made, name, n_frames=6)
    return made


@pytest.fixture
def index(run: Run, tmp_path: Path) -> Iterator[Index]:
    made = Index(run, tmp_path / "index.duckdb", {})
    yield made
    made.close()


def said(index: Index) -> dict[str, str]:
    index.read_verdicts()
    return {row["video_id"][:3]: row["word"] for row in index.rows("SELECT * FROM verdicts")}


def judge(run: Run, name: str, word: str) -> tuple[str, str]:
    [folder] = run.path.glob(f"video_id={name}-*/clip_id=*")
    clip = folder.parent.name.partition("=")[2], folder.name.partition("=")[2]
    verdicts.add(run.lake, [verdicts.new(run, clip, word, "", "ann")])
    return clip


def test_it_follows_verdicts_and_what_they_are_on(run: Run, index: Index) -> None:
    assert said(index) == {}
    one = judge(run, "one", "good")
    assert said(index) == {"one": "good"}
    judge(run, "two", "good")
    judge(run, "one", "bad")
    assert said(index) == {"one": "bad", "two": "good"}
    assert {clip[0][:3]: len(of) for clip, of in index.stands.items()} == {"one": 1, "two": 1}
    assert [verdict.verdict for verdict in index.given] == ["good", "good", "bad"]
    damage.made_again(run.clip_table("events", *one))
    counted.count(run, one[0])
    assert said(index) == {"two": "good"}, "others count by now than those that were judged"
    judge(run, "one", "unsure")
    shutil.rmtree(verdicts.path(run.lake).parent)
    assert said(index) == {}


def test_a_video_of_which_nothing_has_changed_is_not_looked_at_again(run: Run, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(run, "one", "good")
    judge(run, "two", "good")
    said(index)
    looked: list[str] = []
    real = verdicts.results_of
    monkeypatch.setattr(verdicts, "results_of", lambda run, video_id: looked.append(video_id) or real(run, video_id))
    said(index)
    assert looked == []
    video_id, _ = judge(run, "two", "bad")
    looked.clear()
    assert said(index) == {"one": "good", "two": "bad"}
    assert looked == [video_id]
