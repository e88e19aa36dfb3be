"""Logs as JSON: of results, of Dagster, and of a real broker and its workers; as text nothing changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from egoworld_assets.console import json_console
from egoworld_ops import logs
from egoworld_ops.logs import LogSettings
from tests import brokers, finished


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Loggers are the process's: they are left as they were."""
    yield
    for name in logs.OURS:
        logger = logging.getLogger(name)
        for handler in [h for h in logger.handlers if isinstance(h.formatter, logs.JsonLines)]:
            logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def lines(said: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines() if line]
    return found


def test_each_result_is_a_line_that_says_run_video_clip_stage_and_worker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = finished.settings_in(tmp_path)
    run, video_id = finished.registered_video(settings)
    logs.configure(LogSettings(format="text"))
    finished.go(run, video_id, settings, "detections", "detections")
    assert capsys.readouterr().err == "", "text logs have no results"
    for _ in range(2):
        logs.configure(LogSettings(format="json"))
    _, results = finished.go(run, video_id, settings, "masks", "masks")
    said = [line for line in lines(capsys.readouterr().err) if line["message"] == "masks computed"]
    assert [(line["run"], line["video"], line["clip"], line["stage"]) for line in said] == [
        (run.run_id, video_id, result.clip_id, "masks") for result in results
    ]
    assert len(said) >= 2
    assert {line["worker"] for line in said} == {"inline"}
    assert all({"at", "level", "logger", "host", "pid", "seconds", "rows"} <= line.keys() for line in said)
    finished.go(run, video_id, settings, "masks", "masks")
    assert capsys.readouterr().err == "", "what was done before is no news"


def test_a_record_that_holds_anything_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    log = logging.getLogger("egoworld_ops.test")
    try:
        raise ValueError("two\nlines \udcff")
    except ValueError:
        log.exception("a name %s\nof two lines", Path("/raw/\udcff.mp4"), extra=logs.about(video=None, clip="c"))
    log.info("%s", "no", extra={"egoworld": {"odd": object()}})
    first, second = lines(capsys.readouterr().err)
    assert first["message"] == "a name /raw/\udcff.mp4\nof two lines"
    assert (first["clip"], first["level"], "video" in first) == ("c", "error", False)
    assert first["error"].startswith("Traceback")
    assert second["odd"].startswith("<object")


def test_lines_of_dagster_say_their_run_stage_video_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    @dg.op
    def masks(context):  # type: ignore[no-untyped-def]  # Dagster reads no annotations of postponed evaluation
        context.log.warning("clip c: broken")

    @dg.job(logger_defs={"json": json_console})
    def chain() -> None:
        masks()

    result = chain.execute_in_process(run_config={"loggers": {"json": {}}}, tags={"dagster/partition": "v-1"})
    said = [line for line in lines(capsys.readouterr().err) if line["logger"] == "egoworld.dagster"]
    assert {line["dagster_run"] for line in said} == {result.run_id}
    [ours] = [line for line in said if line["message"] == "clip c: broken"]
    assert (ours["stage"], ours["video"], ours["level"]) == ("masks", "v-1", "warning")


def test_the_log_of_a_broker_and_what_its_workers_print_are_lines_of_json(tmp_path: Path) -> None:
    with brokers.broker(environment={"EGOWORLD_LOGS__FORMAT": "json"}) as settings:
        brokers.run(settings, [brokers.order("k", fault="print"), brokers.order("dies", fault="segv")])
        said = lines((settings.folder / "broker.log").read_text())
    printed = [line for line in said if line["logger"] == "gpu_workers.processes.output" and "chatter" in line["message"]]
    assert printed
    assert "cpu0-1" in {line["worker"] for line in printed}
    assert ("toy", "v") in {(line.get("stage"), line.get("video")) for line in printed}, "what it computed as it printed"
    [died, *_] = [line for line in said if "died" in line["message"]]
    assert died["worker"].startswith("cpu0-")
    [letter] = [line for line in said if "dead letter" in line["message"]]
    assert (letter["stage"], letter["video"], letter["level"]) == ("toy", "v", "error")
