"""The review page in a real Chromium: clicks and keys do what they say, every page fits its window, and no script or header stands in the way."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from egoworld_ops.lake.lake import Lake
from tests import chromium, lakes
from tests.chromium import Browser
from tests.egoworld_assets.review.served import served

RUN = "20260101_0000"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    chromium.found()
    folder = tmp_path_factory.mktemp("browser")
    run = Lake(folder / "lake").open_run({}, RUN, dict)
    video_id = lakes.write_video(run, "a-video-with-a-name-that-is-rather-long-as-cameras-and-people-give-them", 12, 0.2, 0.04)
    lakes.fail(run, video_id, sorted(run.video_folder(video_id).glob("clip_id=*"))[1].name.partition("=")[2], "events")
    (folder / "scratch").mkdir()
    with served(run.lake.root, folder / "scratch") as address:
        while b"Reading the run" in urllib.request.urlopen(f"{address}run/{RUN}", timeout=60).read():
            pass
        yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def test_from_the_runs_to_a_dead_letter_by_clicks_and_keys(browser: Browser, address: str) -> None:
    browser.open(address)
    browser.js(f"[...document.links].find((link) => link.textContent === '{RUN}').click()")
    browser.until("document.querySelector('h1').textContent.startsWith('Run 2026')")
    browser.js("[...document.querySelectorAll('main a')].find((link) => link.href.includes('state=dead')).click()")
    browser.until("location.pathname.endsWith('/clips') && document.querySelectorAll('tr[data-row]').length === 1")
    browser.press("j")
    assert browser.until("document.querySelector('tr.at').contains(document.activeElement)")
    browser.js("[...document.links].find((link) => link.textContent === 'Failures').click()")
    browser.until("document.querySelector('h1')?.textContent === 'Dead letters'")
    browser.js("document.querySelector('[data-copy]').click()")
    assert browser.until("/^(Copied|Selected)/.test(document.querySelector('[data-copy]').textContent)")
    assert browser.complaints == []


@pytest.mark.parametrize("width", [360, 1200])
def test_every_list_fits_its_window_and_names_its_landmarks(browser: Browser, address: str, width: int) -> None:
    browser.look(width, 800)
    for path in (
        "",
        f"run/{RUN}",
        f"run/{RUN}/clips?metric=hand_pose.solved_share",
        f"run/{RUN}/failures",
        f"run/{RUN}/warnings",
        f"run/{RUN}/metrics",
        f"run/{RUN}/drift",
    ):
        browser.open(address + path)
        assert browser.js("document.documentElement.scrollWidth") <= width, path
        assert browser.js("['header', 'main', 'footer'].every((name) => document.querySelectorAll(name).length === 1)")
        assert browser.js("[...document.querySelectorAll('input, select, textarea')].every((field) => field.labels.length)"), path
    assert browser.complaints == []
