"""Two runs of one clip side by side: both in the same frame, and what differs is what was made to differ."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from egoworld_assets.review import beside
from egoworld_ops.lake import clip_comparing, states
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.settings import Settings
from tests.chromium import Browser
from tests.egoworld_assets.review import watched
from tests.egoworld_assets.review.served import asked
from tests.lakes import write_manifest


@pytest.fixture(scope="module")
def two(watchable: tuple[Settings, Run, dict[str, str]]) -> tuple[Run, Run, str]:
    """Both runs, and the address of a clip below each."""
    settings, a, ids = watchable
    b = watched.another_run(settings, ids["played"])
    state = states.video_state(a, ids["played"])
    assert state is not None
    return a, b, f"video/{ids['played']}/clip/{state.clips[0].clip_id}"


def test_what_was_made_to_differ_differs_and_nothing_else(two: tuple[Run, Run, str]) -> None:
    a, b, place = two
    _, video_id, _, clip_id = place.split("/")
    found = {each.stage: each for each in clip_comparing.compare(a, b, video_id, clip_id)}
    assert found["detections"].same
    assert found["masks"].rows is None
    hands = found["hand_pose"]
    assert hands.rows is not None
    odd = [frame for frame in range(32) if frame % 2]
    assert (hands.rows.same, hands.rows.differ, hands.rows.only_a, hands.rows.only_b) == (16, 15, 1, 0)
    assert hands.rows.columns == {"score": (15, pytest.approx(0.4))}
    assert hands.rows.frames == tuple(odd[: clip_comparing.MOST_FRAMES])
    assert any(one.name.startswith("camera") for one in hands.made)


def test_only_results_that_count_are_compared(two: tuple[Run, Run, str]) -> None:
    a, b, place = two
    _, video_id, _, clip_id = place.split("/")
    path = b.clip_table("hand_pose", video_id, clip_id)
    path.rename(path.with_suffix(".away"))
    try:
        found = {each.stage: each for each in clip_comparing.compare(a, b, video_id, clip_id)}
    finally:
        path.with_suffix(".away").rename(path)
    assert (found["hand_pose"].trouble, found["hand_pose"].rows) == ("not compared: done in A, missing in B", None)
    assert found["fusion"].trouble.startswith("not compared: done in A, ")
    assert found["masks"].same


def test_rows_are_matched_by_their_keys_and_lists_and_nan_are_compared() -> None:
    nan = float("nan")
    a = {(1,): {"frame_index": 1, "v": [1.0, nan], "w": None}, (2,): {"frame_index": 2, "v": [1.0, 2.0], "w": "x"}}
    b = {(1,): {"frame_index": 1, "v": [1.0, nan], "w": None}, (2,): {"frame_index": 2, "v": [1.5, 2.0], "w": "y"}}
    found = clip_comparing.row_difference(a, b)
    assert (found.same, found.differ, found.columns, found.frames) == (1, 1, {"v": (1, 0.5), "w": (1, None)}, (2,))


def test_the_newest_runs_are_offered_first_and_the_oldest_fall_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "MOST_RUNS", 2)
    made = [Lake(tmp_path / "lake").open_run({"n": n}, f"202601{n:02d}_0000", dict) for n in range(1, beside.MOST_RUNS + 3)]
    for run in made:
        video_id = write_manifest(run, "v")
    newest = [run.run_id for run in made[::-1]]
    assert beside.other_runs(made[0], video_id) == newest[: beside.MOST_RUNS]
    with asked(tmp_path / "lake", tmp_path / "scratch") as client:
        for place in ("drift", "metrics"):
            shown = client.get(f"/run/{newest[0]}/{place}").text
            assert re.findall(r'<option value="(2026\d+_0000)"', shown) == newest[1:]


def test_the_page_says_what_differs_and_refuses_what_is_not_there(client: TestClient, two: tuple[Run, Run, str]) -> None:
    a, b, place = two
    plain = client.get(f"/run/{a.run_id}/{place}").text
    assert f'<option value="{b.run_id}">' in plain
    shown = client.get(f"/run/{a.run_id}/{place}?with={b.run_id}").text
    assert "16 same, 15 differ, 1 only in A<" in shown
    assert "assumed_hfov_deg" in shown
    assert "score: 15, by up to 0.4" in shown
    for run_id, status in (("20990101_0000", 404), ("..", 404), ("%3Cscript%3E", 404), ("x" * 300, 400)):
        answer = client.get(f"/run/{a.run_id}/{place}?with={run_id}")
        assert (answer.status_code, "<script>" in answer.text.partition("<main")[2]) == (status, False)


def test_both_pictures_and_both_lists_show_the_same_frame(two: tuple[Run, Run, str], browsed: tuple[Browser, str]) -> None:
    a, b, place = two
    browser, root = browsed
    number = """((what) => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 160, height: 120 });
      const context = canvas.getContext("2d");
      context.drawImage(document.querySelector(what), 0, 0, 160, 120);
      let number = 0;
      for (let bit = 0; bit < 8; bit++) if (context.getImageData(20 * bit + 10, 30, 1, 1).data[0] > 128) number += 1 << bit;
      return number;
    })"""
    browser.look(1200, 900)
    browser.open(f"{root}/run/{a.run_id}/{place}?with={b.run_id}#frame=4")
    browser.until(
        "['words-a', 'words-b'].every((id) => document.getElementById(id).children.length) && document.getElementById('clip').dataset.ready"
    )
    for key, frame in ((".", 5), ("ArrowRight", 6), (",", 5), ("d", 7), ("Home", 0), ("d", 1)):
        browser.press(key)
        browser.until(f"document.getElementById('clip').dataset.frame === '{frame}'")
        browser.until(f"{number}('video') === {frame} && {number}('#picture-b') === {frame}")
    differs = "[...document.querySelectorAll('.differs')].map((item) => item.textContent)"
    assert browser.until(f"{differs}.length === 2")
    assert all("hand as found" in text for text in browser.js(differs))
    assert browser.js("[...document.querySelectorAll('.numbers li')].some((item) => item.textContent.includes('B'))")
    browser.js("document.querySelector('td[data-label=Frames] a').click()")
    browser.until("document.getElementById('clip').dataset.frame === '1'")
    browser.hold("frames.json")
    browser.open(f"{root}/run/{b.run_id}/{place}?with={a.run_id}#frame=4")
    browser.until("document.getElementById('clip').dataset.ready && held.length >= 2")
    browser.press("d")
    assert "on its way" in browser.until("document.getElementById('said').textContent")
    browser.press(",")
    browser.until("document.getElementById('clip').dataset.frame === '3'")
    browser.release(2)
    browser.until("['words-a', 'words-b'].every((id) => document.getElementById(id).children.length)")
    browser.press(".")
    browser.until("document.getElementById('clip').dataset.frame === '4'")
    browser.look(360, 800, dark=True)
    assert browser.until("document.documentElement.scrollWidth <= 360")
    assert browser.js("[...document.querySelectorAll('input, select')].every((field) => field.labels.length)")
    assert browser.complaints == []
