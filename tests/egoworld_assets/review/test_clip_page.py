"""The page of a clip shows each frame as it was decoded, with the layers of that frame, and gives nobody more than that."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from egoworld_assets.review import ranges, stream
from egoworld_assets.review.annotated import open_video
from egoworld_ops.errors import UnknownVideo
from egoworld_ops.lake import states, verdicts
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.raw import intake
from tests import damage
from tests.chromium import Browser
from tests.egoworld_assets.review import watched
from tests.egoworld_assets.review.served import LOOPBACK, asked, settings_of
from tests.egoworld_ops import media

EVIL = "<script>alert(1)</script>'\"&"
BARS = """(() => {
  const video = document.querySelector("video");
  const canvas = Object.assign(document.createElement("canvas"), { width: 160, height: 120 });
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 160, 120);
  let number = 0;
  for (let bit = 0; bit < 8; bit++) if (context.getImageData(20 * bit + 10, 30, 1, 1).data[0] > 128) number += 1 << bit;
  return number;
})()"""
"""The number that the picture on the screen shows."""


def address(lake: tuple[Run, dict[str, str]], name: str, which: int = 0) -> str:
    run, ids = lake
    state = states.video_state(run, ids[name])
    assert state is not None
    return f"/run/{run.run_id}/video/{ids[name]}/clip/{state.clips[which].clip_id}"


def test_the_page_says_frames_times_plots_and_where_the_pictures_are(client: TestClient, lake: tuple[Run, dict[str, str]]) -> None:
    page = address(lake, "played", 1)
    about = client.get(f"{page}/about.json").json()
    first, end = about["frame_start"], about["frame_end"]
    assert end == watched.N_FRAMES
    assert about["sources"][0]["times_s"] == pytest.approx([tick / 90_000 for tick in watched.TICKS[first:end]], abs=1e-5)
    assert about["frames"] == list(range(first, end))
    speed = next(plot for plot in about["plots"] if plot["title"] == "Distance of the wrist")
    assert {line["look"] for line in speed["lines"]} == {"raw", "fused"}
    assert all(len(line["values"]) == len(about["frames"]) for plot in about["plots"] for line in plot["lines"])
    assert {band["stage"] for band in about["bands"]} == {"movement", "events", "agreement"} - (
        {"agreement"} if not about["flagged"] else set()
    )
    frames = client.get(f"{page}/frames.json", params={"first": first, "n": 64}).json()
    assert [frame["frame_index"] for frame in frames] == about["frames"]
    assert all(frame["hands"] and frame["objects"] and frame["masks"] for frame in frames)
    html = client.get(page).text
    assert 'rel="prev"' in html


def test_clips_before_and_after_are_those_of_the_list_that_one_came_from(client: TestClient, lake: tuple[Run, dict[str, str]]) -> None:
    run, _ = lake
    listed = client.get(f"/run/{run.run_id}/clips", params={"metric": "hand_pose.solved_share", "order": "highest"}).text
    links = [link.replace("&amp;", "&") for link in re.findall(r'<th scope="row"><a href="([^"]+)"', listed)]
    assert len(links) == 4
    for here, after in pairwise(links):
        [found] = re.findall(r'rel="next" href="([^"]+)"', client.get(here).text)
        assert found.replace("&amp;", "&") == after
    assert 'rel="next"' not in client.get(links[-1]).text


def test_each_number_says_run_backend_settings_weights_and_digests(client: TestClient, lake: tuple[Run, dict[str, str]]) -> None:
    run, ids = lake
    page = address(lake, "played")
    shown = client.get(f"{page}/lineage", params={"stage": "fusion", "frame": 3, "column": "z_m"}).text
    clip_id = page.rpartition("/")[2]
    for stage in ("fusion", *states.upstream("fusion")):
        state = states.clip_states(run, ids["played"], clip_id)[stage]
        assert state.digest is not None
        assert state.digest in shown
    assert f"in run {run.run_id}" in shown
    assert "mediapipe, version" in shown
    assert "palm_detection_full <code>" in shown
    assert "min_palm_score" in shown
    assert '<dt class="asked">z_m</dt>' in shown


@pytest.mark.parametrize(
    ("header", "status", "wanted"),
    [
        ("bytes=0-99", 206, (0, 100)),
        ("bytes=100-", 206, (100, None)),
        ("bytes=-10", 206, (-10, None)),
        ("bytes=5-999999999999999999", 206, (5, None)),
        ("bytes=0-99999999999999999999999999", 200, (0, None)),
        ("bytes=0-1,5-6", 200, (0, None)),
        ("lines=1-2", 200, (0, None)),
        ("bytes=999999999-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-3", 416, None),
    ],
)
def test_a_range_is_what_was_asked_for_within_the_file(
    client: TestClient, lake: tuple[Run, dict[str, str]], header: str, status: int, wanted: tuple[int, int | None] | None
) -> None:
    whole = (lake[0].lake.root.parent / "raw" / "played.mp4").read_bytes()
    answer = client.get(f"{address(lake, 'played')}/raw", headers={"range": header})
    assert answer.status_code == status
    assert answer.headers["accept-ranges"] == "bytes"
    if wanted is not None:
        assert answer.content == whole[slice(*wanted)]


def test_a_huge_range_is_cut_and_the_rest_can_be_asked_for(
    client: TestClient, lake: tuple[Run, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MOST_BYTES", 1000)
    whole = (lake[0].lake.root.parent / "raw" / "played.mp4").read_bytes()
    got = b""
    while len(got) < len(whole):
        answer = client.get(f"{address(lake, 'played')}/raw", headers={"range": f"bytes={len(got)}-"})
        assert (answer.status_code, len(answer.content) <= 1000) == (206, True)
        got += answer.content
    assert got == whole
    assert client.get(f"{address(lake, 'played')}/raw").content == whole


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/raw/../../etc/passwd", 404),
        ("/frames.json?first=-1", 400),
        ("/frames.json?n=65", 400),
        ("/frames.json?first=1e3", 400),
        ("/lineage", 400),
        ("/lineage?stage=intake", 400),
        ("/lineage?stage=masks&frame=99999999", 400),
        ("/copy", 404),
    ],
)
def test_what_no_page_asks_for_is_refused(client: TestClient, lake: tuple[Run, dict[str, str]], path: str, status: int) -> None:
    answer = client.get(address(lake, "played") + path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("clip", ["..%2f..", "f9999999_9999999", "%3Cscript%3E", "A b"])
def test_a_clip_that_is_not_in_the_manifest_is_not_there(client: TestClient, lake: tuple[Run, dict[str, str]], clip: str) -> None:
    answer = client.get(f"{address(lake, 'played').rpartition('/')[0]}/{clip}")
    assert answer.status_code == 404
    assert "<script>" not in answer.text.partition("<main")[2]


def test_what_browsers_do_not_play_is_not_offered_raw(client: TestClient, lake: tuple[Run, dict[str, str]]) -> None:
    page = address(lake, "copied")
    assert [source["address"] for source in client.get(f"{page}/about.json").json()["sources"]] == [f"{page}/copy"]
    assert client.get(f"{page}/raw").status_code == 404


def test_a_raw_file_that_changed_or_is_gone_leaves_layers_and_says_so(lake: tuple[Run, dict[str, str]], tmp_path: Path) -> None:
    shutil.copytree(lake[0].lake.root.parent, tmp_path / "all", symlinks=True)
    run, page = Run(Lake(tmp_path / "all/lake"), lake[0].run_id), address(lake, "played")
    moved = tmp_path / "raw.mp4"
    row = next(row for row in intake.read(run.lake).to_pylist() if row["video_id"] == lake[1]["played"])
    shutil.copy2(row["path"], moved)
    intake.update(run.lake, [row | {"path": str(moved), "mtime_ns": moved.stat().st_mtime_ns}])
    with asked(run.lake.root, tmp_path / "scratch") as client:
        assert client.get(f"{page}/about.json").json()["trouble"] is None
        media.make(moved, 3)
        assert "other content" in client.get(f"{page}/about.json").json()["trouble"]
        assert client.get(f"{page}/raw").status_code == 404
        os.remove(moved)
        about = client.get(f"{page}/about.json").json()
        assert "is not there" in about["trouble"]
        assert (about["sources"], bool(about["plots"])) == ([], True)
        assert "is not there" in client.get(f"{page}/copy.json").json()["error"]


def test_a_damaged_table_a_damaged_manifest_and_an_older_contract_are_named(lake: tuple[Run, dict[str, str]], tmp_path: Path) -> None:
    shutil.copytree(lake[0].lake.root, tmp_path / "lake", symlinks=True)
    run, page = Run(Lake(tmp_path / "lake"), lake[0].run_id), address(lake, "played")
    with asked(run.lake.root, tmp_path / "scratch") as client:
        damage.flip(path := run.clip_table("masks", lake[1]["played"], page.rpartition("/")[2]), damage.in_a_page(path))
        assert "masks.parquet" in client.get(f"{page}/frames.json").json()["error"]
        said = json.loads((run.path / "run.json").read_text())
        (run.path / "run.json").write_text(json.dumps(said | {"frozen": said["frozen"] | {"schema": "3"}}))
        older = client.get(f"{page}/about.json")
        assert (older.status_code, "version 3 of the data contract" in older.json()["error"]) == (404, True)
        (run.path / "run.json").write_text(json.dumps(said))
        run.video_table("clips", lake[1]["played"]).write_bytes(b"PAR1 cut short")
        assert "clips.parquet" in client.get(f"{page}/about.json").json()["error"]


def test_the_rendered_clip_streams_one_picture_after_the_other_and_not_to_everybody(
    client: TestClient, lake: tuple[Run, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = address(lake, "played", 1)
    answer = client.get(f"{page}/stream", params={"size": 160})
    assert answer.headers["content-type"] == f"multipart/x-mixed-replace; boundary={stream.BOUNDARY}"
    jpegs = [part.partition(b"\r\n\r\n")[2] for part in answer.content.split(b"--" + stream.BOUNDARY.encode()) if b"image/jpeg" in part]
    about = client.get(f"{page}/about.json").json()
    assert len(jpegs) == about["own"][1] - about["own"][0]
    shown = [cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for jpeg in jpegs]
    assert all(picture.shape[1] >= 160 for picture in shown)
    assert client.get(f"{page}/stream?size=9999").status_code == 400
    monkeypatch.setattr(stream, "_free", threading.BoundedSemaphore(1))
    with stream._free:
        assert client.get(f"{page}/stream").status_code == 503
    assert client.get(f"{page}/stream?size=64").status_code == 200


def test_annotate_of_a_registered_video_asks_its_run_and_names_the_next_command(lake: tuple[Run, dict[str, str]], tmp_path: Path) -> None:
    video = open_video("played", settings_of(lake[0].lake.root), tmp_path)
    assert (video.video_id, video.n_frames) == (lake[1]["played"], watched.N_FRAMES)
    assert video.commands() == [f"egoworld process {video.video_id}"]
    assert [video.proposals(frame) for frame in (0, watched.N_FRAMES - 1)] == [
        [],
        [],
    ]  # not None, as where nobody looked: the run has hands alone
    with pytest.raises(UnknownVideo, match="is the beginning of 2 videos"):
        open_video("", settings_of(lake[0].lake.root), tmp_path)


def form_of(client: TestClient, page: str) -> dict[str, str]:
    """The hidden fields of the form of a clip's page."""
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', client.get(page).text))


OWN = {"origin": LOOPBACK}


def test_a_verdict_is_taken_from_its_own_page_alone(client: TestClient, lake: tuple[Run, dict[str, str]]) -> None:
    page, store = address(lake, "played"), lake[0].lake
    said = {**form_of(client, page), "verdict": "bad", "why": EVIL, "judge": EVIL, "first": "3", "last": "5"}
    for headers, changed, status in (
        ({}, {}, 403),
        ({"origin": "http://evil.example"}, {}, 403),
        ({"origin": "null"}, {}, 403),
        (OWN, {"csrf": "x"}, 400),
        (OWN, {"verdict": "fine"}, 400),
        (OWN, {"judge": " "}, 400),
        (OWN, {"last": "2"}, 400),
        (OWN, {"first": "99999"}, 400),
        (OWN, {"why": "x" * 20_000}, 400),
    ):
        assert client.post(f"{page}/verdict", data=said | changed, headers=headers).status_code == status, (headers, changed)
    assert client.post(f"{page}/verdict", json=said, headers=OWN).status_code == 400
    assert client.get(f"{page}/verdict").status_code == 405
    assert verdicts.read(store) == []
    answer = client.post(f"{page}/verdict", data=said, headers=OWN)
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, page)
    [given] = verdicts.read(store)
    assert (given.verdict, given.frames, given.why) == ("bad", (3, 6), EVIL)
    for path in (page, f"/run/{lake[0].run_id}/verdicts", f"/run/{lake[0].run_id}/clips?verdict=bad"):
        shown = client.get(path).text
        assert EVIL not in shown
        assert "✗ bad" in shown
    assert client.get(f"/run/{lake[0].run_id}/clips?verdict=fine").status_code == 400


def test_the_queue_hands_out_what_nobody_judged_to_each_judge_another(client: TestClient, lake: tuple[Run, dict[str, str]]) -> None:
    queue, run = f"/run/{lake[0].run_id}/queue", lake[0]
    n = client.get(f"/run/{run.run_id}/clips?verdict=none").text.count("data-row")
    handed = [client.get(queue).headers["location"] for _ in range(n)]
    judged = {f"/video/{v.video_id}/clip/{v.clip_id}?" for v in verdicts.read(run.lake)}
    assert len({where.partition("?")[0] for where in handed}) == n >= 3
    assert not any(mark in where for mark in judged for where in handed)
    for where in handed:
        form = {**form_of(client, where), "verdict": "good", "judge": "ann"}
        form["query"] = html.unescape(form["query"])
        after = client.post(f"{where.partition('?')[0]}/verdict", data=form, headers=OWN)
        assert after.headers["location"].startswith(queue)
    assert client.get(queue).headers["location"] == f"/run/{run.run_id}/verdicts"
    assert "All clips are judged" in client.get(f"/run/{run.run_id}/verdicts").text


@pytest.mark.parametrize("name", ["played", "copied"])
def test_every_frame_is_the_one_its_number_says(browsed: tuple[Browser, str], lake: tuple[Run, dict[str, str]], name: str) -> None:
    """Stepping, jumping and playing; of a video whose times no frame rate tells, and of one that browsers do not play."""
    browser, root = browsed
    browser.look(1200, 900)
    browser.open(f"{root}{address(lake, name)}#frame=20")
    shows = "document.getElementById('clip').dataset.frame === '{}' && document.getElementById('things').children.length"
    browser.until(shows.format(20))
    browser.until(f"{BARS} === 20")
    source = browser.until("document.querySelector('video').currentSrc.split('/').pop()")
    assert source == ("raw" if name == "played" else "copy")
    for key, frame in ((".", 21), (".", 22), ("ArrowRight", 23), (",", 22), ("ArrowLeft", 21), ("Home", 0), (".", 1), ("End", 31)):
        browser.press(key)
        browser.until(shows.format(frame))
        assert browser.until(f"{BARS} === {frame}"), (key, frame)
    browser.press("Home")
    browser.until(shows.format(0))
    browser.press(" ", "Space")
    browser.until(shows.format(31))
    assert browser.until(f"document.querySelector('video').paused && {BARS} === 31")
    assert browser.complaints == []


def test_layers_go_off_and_on_and_every_number_leads_to_its_origin(browsed: tuple[Browser, str], lake: tuple[Run, dict[str, str]]) -> None:
    browser, root = browsed
    drawn = "new Uint32Array(document.getElementById('over').getContext('2d').getImageData(0, 0, over.width, over.height).data.buffer).some((p) => p)"
    for width in (1200, 360):
        browser.look(width, 800, dark=width == 360)
        browser.open("about:blank")
        browser.open(f"{root}{address(lake, 'played')}")
        browser.until("document.getElementById('things').children.length > 3")
        browser.until(drawn)
        assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.js("['header', 'main', 'footer'].every((name) => document.querySelectorAll(name).length === 1)")
        assert browser.js(
            "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')].every((field) => field.labels.length)"
        )
        assert browser.js("[...document.querySelectorAll('canvas[role=img]')].every((canvas) => canvas.ariaLabel)")
    for key in "134":
        browser.press(key)
    assert browser.until(f"!({drawn})")
    assert browser.js("document.getElementById('things').textContent.includes('mask of')") is False
    for key in "134":
        browser.press(key)
    browser.until(drawn)
    browser.press("j")
    assert browser.until(f"location.pathname === '{address(lake, 'played', 1)}'")
    browser.until("document.querySelector('.numbers a[href*=fusion]') !== null")
    browser.js("document.querySelector('.numbers a[href*=fusion]').click()")
    assert browser.until("document.querySelector('dt.asked') !== null")
    browser.open(f"{root}{address(lake, 'played')}/lineage?stage=masks&frame=2")
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.complaints == []


def test_a_verdict_is_given_by_keys(browsed: tuple[Browser, str], lake: tuple[Run, dict[str, str]]) -> None:
    browser, root = browsed
    browser.look(360, 800)
    browser.open(f"{root}{address(lake, 'played')}")
    browser.until("document.getElementById('things').children.length > 0")
    browser.press("v")
    browser.press(" ", "Space")
    assert browser.until("document.activeElement.name === 'verdict' && document.activeElement.checked")
    browser.js("document.querySelector('[name=judge]').value = 'cleo'; document.querySelector('[name=why]').value = 'all fingers'")
    browser.press("Enter")
    browser.until("[...document.querySelectorAll('#verdicts td')].some((cell) => cell.textContent === 'cleo')")
    assert browser.js("document.querySelector('[name=judge]').value") == "cleo"
    assert browser.js("document.documentElement.scrollWidth") <= 360
    browser.open(f"{root}/run/{lake[0].run_id}/verdicts")
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.complaints == []
