"""A release of clips chosen by people's verdicts holds those alone, says which others it leaves out and why, and is verified against what stands."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops.errors import BadSettings, ContractError
from egoworld_ops.lake import counted, states, verdicts
from egoworld_ops.lake.lake import RELEASED_TABLES, Lake, Run
from egoworld_ops.release import place
from egoworld_ops.release.make import make_release
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.upkeep.verify import verify
from tests import damage, lakes

GOOD = ReleaseSettings(verdict="good", writers=1)
NOT_BAD = ReleaseSettings(without=("bad",), writers=1)


PLAIN = ReleaseSettings(writers=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of three clips each; of the first one the clips are good, good but for two frames, and bad."""
    made = Lake(tmp_path_factory.mktemp("written") / "lake").open_run({}, "20260101_0000", dict)
    for name in ("one", "two"):
        lakes.write_video(made, name, 12, 0.2, 0.04)
    lakes.register_videos(made)
    first, second, third, *_ = clips(made)
    judge(made, first, "good")
    judge(made, second, "good")
    judge(made, second, "bad", (4, 6), "<b>hands</b> swapped")
    judge(made, third, "bad")
    return made.lake.root


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Run:
    """The run in it, as a copy."""
    shutil.copytree(written, tmp_path / "lake", symlinks=True)
    return Run(Lake(tmp_path / "lake"), "20260101_0000")


def clips(run: Run) -> list[tuple[str, str]]:
    found = [states.video_state(run, video_id) for video_id in states.video_ids(run)]
    return [(video.video_id, clip.clip_id) for video in found if video for clip in video.clips]


def judge(run: Run, clip: tuple[str, str], word: str, frames: tuple[int | None, int | None] = (None, None), why: str = "") -> None:
    verdicts.add(run.lake, [verdicts.new(run, clip, word, why, "ann", frames)])


def released(run: Run, table: str) -> set[tuple[str, str]]:
    found = [pq.read_table(path, columns=["video_id", "clip_id"], partitioning=None) for path in (place.folder(run) / table).glob("*")]
    return {(row["video_id"], row["clip_id"]) for part in found for row in part.to_pylist()}


def contents(run: Run) -> dict[str, bytes]:
    return {str(path.relative_to(place.folder(run))): path.read_bytes() for path in place.folder(run).rglob("*") if path.is_file()}


def test_it_has_the_chosen_clips_in_every_table_and_says_which_others_and_why(run: Run) -> None:
    first, second, third, *others = clips(run)
    outcome = make_release(run, GOOD)
    assert all(released(run, table) == {first} for table in ("clips", "masks", "fusion", "clip_links"))
    assert outcome.manifest.rows["videos"] == 1
    told = place.read(run).verdicts  # type: ignore[union-attr]  # it was just made
    assert told is not None
    assert (told["verdict"], told["without"], told["judged"], told["left_out"]) == ("good", [], 3, {"bad": 2, "not judged": 3})
    lines = [json.loads(line) for line in (place.folder(run) / place.LEFT_OUT_NAME).read_text("utf-8").splitlines()]
    assert [(line["video_id"], line["clip_id"]) for line in lines] == [second, third, *others]
    assert [line["verdict"] for line in lines] == ["bad", "bad", *["not judged"] * 3]
    assert [(s["verdict"], s["frame_start"], s["why"]) for s in lines[0]["said"]] == [
        ("good", None, None),
        ("bad", 4, "<b>hands</b> swapped"),
    ]
    assert "ann" not in (place.folder(run) / place.LEFT_OUT_NAME).read_text("utf-8")
    page = (place.folder(run) / place.PAGE_NAME).read_text("utf-8")
    assert "Only clips that people call good. Clips left out: 2 bad, 3 not judged; `left_out.jsonl` names each" in page
    assert told["snapshot"] in page
    assert list(verify(run)) == []

    make_release(run, NOT_BAD)
    assert released(run, "masks") == {first, *others}
    assert list(verify(run)) == []


def test_taking_all_clips_again_leaves_no_trace_of_a_choice(run: Run) -> None:
    make_release(run, PLAIN)
    before = contents(run)
    make_release(run, NOT_BAD)
    untouched = make_release(run, NOT_BAD)
    assert (untouched.written, untouched.kept) == (0, len(RELEASED_TABLES))
    make_release(run, NOT_BAD, all_clips=True)
    assert contents(run) == before


def test_a_choice_that_leaves_out_no_clip_of_a_video_has_the_very_files_of_a_release_of_all(run: Run) -> None:
    whole = make_release(run, PLAIN)
    outcome = make_release(run, ReleaseSettings(without=("unsure",), writers=1))
    assert outcome.written == 0
    assert outcome.manifest.parts == whole.manifest.parts


def test_verify_tells_a_release_of_verdicts_that_no_longer_stand_and_a_release_made_again_keeps_its_choice(run: Run) -> None:
    make_release(run, NOT_BAD)
    judge(run, clips(run)[3], "unsure")
    found = [str(finding) for finding in verify(run)]
    assert len(found) == 1, found
    assert "left_out.jsonl: does not say what people say of the clips now" in found[0]
    assert found[0].endswith("Release the run again: egoworld release 20260101_0000 --without bad")
    damage.made_again(run.clip_table("events", *clips(run)[2]))  # the verdict `bad` was on what it had before
    counted.count(run, clips(run)[2][0])
    make_release(run, PLAIN)
    assert released(run, "masks") == {clips(run)[0], *clips(run)[2:]}
    assert list(verify(run)) == []
    damage.flip(place.folder(run) / place.LEFT_OUT_NAME, 3)
    assert str(place.folder(run) / place.LEFT_OUT_NAME) in [finding.culprit for finding in verify(run)]


def test_a_choice_of_no_clip_or_of_both_kinds_is_refused_and_what_was_released_stays(run: Run) -> None:
    make_release(run, GOOD)
    before = lakes.files_of_release(run)
    with pytest.raises(BadSettings, match="--verdict unsure: no clip of run 20260101_0000 is so"):
        make_release(run, ReleaseSettings(verdict="unsure"))
    with pytest.raises(BadSettings, match="Name one of them"):
        make_release(run, ReleaseSettings(verdict="good", without=("bad",)))
    assert lakes.files_of_release(run) == before
    (place.folder(run) / place.MANIFEST_NAME).unlink()
    with pytest.raises(BadSettings, match=r"left_out\.jsonl: is of a release of chosen clips.*--all-clips"):
        make_release(run, PLAIN)


CHOSEN = {"verdict": None, "without": ["bad"], "snapshot": "0" * 64, "judged": 1, "left_out": {"bad": 1}}


@pytest.mark.parametrize(
    "said",
    [
        3,
        [1],
        {"verdict": "good"},
        CHOSEN | {"without": 3},
        CHOSEN | {"without": []},
        CHOSEN | {"left_out": ["bad"]},
        CHOSEN | {"judged": "1"},
    ],
)
def test_a_choice_in_another_shape_than_a_release_has_is_damage(run: Run, said: Any) -> None:
    manifest = place.ReleaseManifest(run.run_id, "1", {}, {}, (), verdicts=CHOSEN)
    path = place.folder(run) / place.MANIFEST_NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest.to_json())
    assert place.read(run) == replace(manifest, parts=[])
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"verdicts": said}))
    with pytest.raises(ContractError, match=r"release\.json: cannot be read"):
        place.read(run)


def test_the_command_takes_words_in_the_place_of_the_settings_and_tells_what_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(run.lake.root))
    monkeypatch.setenv("EGOWORLD_RELEASE__VERDICT", "good")

    def told(*arguments: str) -> str:
        result = CliRunner().invoke(egoworld, [*arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "5 clip(s) are left out: 2 bad, 3 not judged; left_out.jsonl says which and why" in told("release", run.run_id)
    assert "2 clip(s) are left out: 2 bad; left_out.jsonl" in told("release", run.run_id, "--without", "bad", "--without", "unsure")
    assert "2 clip(s) are left out: 2 bad" in told("releases", "list")
    assert "left out" not in told("release", run.run_id, "--all-clips")
    both = CliRunner().invoke(egoworld, ["release", run.run_id, "--all-clips", "--without", "bad"])
    assert (both.exit_code, "Name one of them" in f"{both.output}{both.exception}") == (1, True)
