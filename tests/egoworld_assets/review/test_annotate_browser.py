"""`egoworld annotate` in a real Chromium: a box is drawn by the pointer, a thing is named and saved, and the page fits a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from egoworld_assets.review.annotated import Annotated
from egoworld_ops.video.sidecar import Prompt, read_sidecar
from tests import chromium
from tests.chromium import Browser
from tests.egoworld_assets.review.annotating import N_FRAMES, SIZE, video_in
from tests.egoworld_assets.review.served import served

SHOWS = "document.getElementById('annotate').dataset.frame === '{}'"
SAID = "document.getElementById('result').textContent"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Annotated:
    chromium.found()
    return video_in(tmp_path_factory.mktemp("annotated") / "here", "<b>cup & tête</b>".replace("/", "∕"))


@pytest.fixture(scope="module")
def page(video: Annotated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    with served(video.settings.lake, tmp_path_factory.mktemp("scratch"), video) as root, Browser() as browser:
        yield browser, f"{root}annotate"


def fill(browser: Browser, **values: object) -> None:
    """Type into fields of the page by their names."""
    for name, value in values.items():
        browser.js(
            f"(() => {{ const field = document.querySelector('[name={name}]'); field.value = {str(value)!r};"
            "field.dispatchEvent(new Event('change', { bubbles: true })); })()"
        )


def test_a_box_and_a_point_are_drawn_named_and_saved(page: tuple[Browser, str], video: Annotated) -> None:
    browser, address = page
    browser.look(1200, 900)
    browser.open(address)
    browser.until(SHOWS.format(0))
    browser.js("document.querySelector('[data-do=on]').focus()")
    for key, frame in ((".", 1), ("ArrowRight", 2), (",", 1), (".", 2)):
        browser.press(key)
        browser.until(SHOWS.format(frame))
    browser.drag("#over", (20 / SIZE[0], 30 / SIZE[1]), (80 / SIZE[0], 90 / SIZE[1]))
    browser.until("document.getElementById('prompts').textContent.includes('frame 2')")
    browser.press("p")
    browser.drag("#over", (0.25, 0.5), (0.25, 0.5))
    fill(browser, label="<script>杯", x=80, y=0.08, z=0.1)
    browser.js("document.querySelector('[data-do=save]').click()")
    assert browser.until(f"{SAID}.startsWith('Not saved') && {SAID}.includes('metres')")
    assert not list(video.path.parent.glob("*.json"))
    fill(browser, x=0.08)
    browser.js("document.querySelector('[data-do=save]').click()")
    browser.until(f"{SAID}.startsWith('Saved')")
    assert browser.js("document.getElementById('next').textContent").endswith(f"egoworld process {video.video_id}")
    [thing] = read_sidecar(video.path).objects
    assert (thing.label, thing.dimensions_m) == ("<script>杯", (0.08, 0.08, 0.1))
    [drawn] = thing.prompts
    assert isinstance(drawn, Prompt)
    assert drawn.frame_index == 2
    assert drawn.box_px == pytest.approx((20, 30, 60, 60), abs=0.5)
    assert drawn.points_px[0] == pytest.approx((39.5, 59.5), abs=0.5)
    assert [each for each in browser.complaints if "422" not in each] == []


def test_what_was_drawn_while_the_server_was_busy_is_neither_shown_as_tried_nor_taken_for_saved(page: tuple[Browser, str]) -> None:
    browser, address = page
    said = {
        "layers": {},
        "poses": [{"label": "cup", "frame_index": 2, "converged": True, "reason": None, "z_m": 0.5, "metric": True, "verified": [1, 1]}],
    }
    tried = f"""((real) => {{
        window.fetch = (to, sent) => to.includes("preview") ? Promise.resolve(Response.json({json.dumps(said)})) : real(to, sent);
    }})(window.fetch)"""
    browser.open(address)
    browser.until(SHOWS.format(2))
    browser.js(tried)
    browser.hold("preview.json")
    browser.js("document.querySelector('[data-do=preview]').click()")
    fill(browser, x=0.09)
    browser.release()
    assert browser.js("document.getElementById('poses').children.length") == 0
    browser.hold("preview.json")
    browser.js("document.querySelector('[data-do=preview]').click()")
    browser.press(".")
    browser.until(SHOWS.format(3))
    browser.release()
    assert browser.js(SAID) == ""
    browser.hold("save.json")
    browser.js("document.querySelector('[data-do=save]').click()")
    fill(browser, x=0.08)
    browser.release()
    assert browser.until(f"{SAID}.startsWith('Saved') && {SAID}.endsWith('without what was changed since.')")
    leave = "(() => { const left = new Event('beforeunload', { cancelable: true }); dispatchEvent(left); return left.defaultPrevented; })()"
    assert browser.js(leave)
    browser.js("document.querySelector('[data-do=save]').click()")
    browser.until(f"{SAID}.startsWith('Saved') && !{leave}")


def test_it_is_readable_on_a_phone_and_shows_what_was_saved(page: tuple[Browser, str]) -> None:
    browser, address = page
    browser.look(360, 800, dark=True)
    browser.open(address)
    browser.until(SHOWS.format(2))
    assert browser.until("document.getElementById('things').textContent.includes('<script>杯')")
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.js("['header', 'main', 'footer'].every((name) => document.querySelectorAll(name).length === 1)")
    assert browser.js("[...document.querySelectorAll('input:not([type=hidden]), select')].every((field) => field.labels.length)")
    fill(browser, left=1, width=4)
    browser.until("document.getElementById('prompts').textContent.includes('box 1, 30, 4, 60')")
    browser.js(
        f"(() => {{ const number = document.getElementById('number'); number.value = {N_FRAMES + 99};"
        "number.dispatchEvent(new Event('change')); })()"
    )
    browser.until(SHOWS.format(N_FRAMES - 1))
