"""A real Chromium, driven by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol) over a websocket."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 30.0
_PAINTED = "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)[0] ?? 0"


def found() -> str:
    """The program; the test is skipped where there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"needs a Chromium on the path: {', '.join(NAMES)}")


class Navigated(Exception):
    """The page went to another address before it had answered."""


class Browser:
    """One page of a browser without a window, with a profile of its own."""

    def __enter__(self) -> Self:
        program, self._profile = found(), tempfile.mkdtemp(prefix="egoworld-chromium-")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
        command = [program, *options, f"--user-data-dir={self._profile}", "about:blank"]
        with ExitStack() as ends:
            ends.callback(shutil.rmtree, self._profile, ignore_errors=True)
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ends.callback(self._process.wait, PATIENCE_S)
            ends.callback(self._process.terminate)
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port()}/json", timeout=PATIENCE_S) as answer:
                page = next(each for each in json.load(answer) if each["type"] == "page")
            self._socket, self._numbers = ends.enter_context(connect(page["webSocketDebuggerUrl"], max_size=None)), count(1)
            self.complaints: list[str] = []
            """Errors of scripts, and what the browser refused or could not load."""
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if said.get("id") == number:
                if "navigated" in said.get("error", {}).get("message", ""):
                    raise Navigated(method)
                assert "error" not in said, f"{method}: {said['error']}"
                return dict(said["result"])
            if said.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["params"]["exceptionDetails"])[:500])
            if said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.complaints.append(json.dumps(said["params"]["entry"])[:500])

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, f"{expression}: {said['exceptionDetails']}"
        return said["result"].get("value")

    def until(self, condition: str) -> Any:
        """The first value of an expression that is true, of a page that is loaded, with its scripts."""
        ends_s = time.monotonic() + PATIENCE_S
        asked = f"(() => {{ try {{ return document.readyState === 'complete' && ({condition}) }} catch {{ return null }} }})()"
        while time.monotonic() < ends_s:
            with suppress(Navigated):
                if value := self.js(asked):
                    return value
            time.sleep(0.02)
        raise AssertionError(f"never true within {PATIENCE_S:g} s: {condition}\n{self.js('document.body.innerText')[:2000]}")

    def open(self, address: str) -> None:
        """Go to an address, and wait until it is loaded."""
        with suppress(Navigated):
            self.js("window.before = true")
        self.call("Page.navigate", url=address)
        self.until("!window.before")

    def first_paint_s(self, address: str) -> float:
        """Seconds from the begin of the navigation to the first paint of content."""
        self.open(address)
        return float(self.until(_PAINTED)) / 1000

    def hold(self, part: str) -> None:
        """From now on keep from the page what servers answer at addresses that have a part, until `release`; also of pages that are opened later."""
        source = f"""(() => {{
            const real = window.fetch;
            window.held = [];
            const kept = (answer) => new Promise((go) => held.push(() => go(answer)));
            window.fetch = (...sent) => String(sent[0]).includes('{part}') ? real(...sent).then(kept) : real(...sent);
            window.release = () => (window.fetch = real, held.forEach((go) => go()));
        }})()"""
        self._holding = self.call("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"]
        self.js(source)

    def release(self, n: int = 1) -> None:
        """Wait until so many answers are kept, give them to the page, and keep none any more."""
        self.until(f"held.length >= {n}")
        self.call("Page.removeScriptToEvaluateOnNewDocument", identifier=self._holding)
        self.js("release()")

    def press(self, key: str, code: str = "") -> None:
        """Press a key and let it go."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the pointer at one place of an element and let it go at another; places are shares of its width and height."""
        asked = f"(() => {{ const r = document.querySelector('{selector}').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; }})()"
        left, top, width, height = self.js(asked)
        for kind, place in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            at = {"x": left + place[0] * width, "y": top + place[1] * height}
            self.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=int(kind != "mouseReleased"), clickCount=1, **at)

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """Give the page a size and a colour scheme; below 600 pixels it is a phone."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Write a screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _port(self) -> int:
        said = Path(self._profile) / "DevToolsActivePort"
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            if said.exists() and (text := said.read_text()).count("\n"):
                return int(text.splitlines()[0])
            assert self._process.poll() is None, "Chromium ended"
            time.sleep(0.02)
        raise AssertionError("Chromium says no port")
