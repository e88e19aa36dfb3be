"""Workers that cannot be started: clients are told why, in the worker's own last words; nothing waits for ever, and other environments go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.client import Order
from tests import brokers
from tests.brokers import changed, order


@pytest.fixture(scope="module")
def pool() -> Iterator[PoolSettings]:
    with brokers.broker(limits={"start_failures": 2}, workers=2) as settings:
        yield settings


def runner(path: Path, source: str, key: str) -> Order:
    """A task for a runner of this source, in a file of its own."""
    path.write_text(source)
    return changed(order(key), runner=f"{path}:Runner")


def failed_beside_neighbours(settings: PoolSettings, culprit: Order, error_class: str) -> client.Result:
    neighbours = [order(f"neighbour {i} of {culprit.submit.key}") for i in range(4)]
    answers = brokers.run(settings, [culprit, *neighbours])
    result = answers.pop(culprit.submit.key).result
    assert {a.result.outcome for a in answers.values()} == {"done"}
    assert len(answers) == 4
    assert (result.outcome, result.error_class) == ("failed", error_class)
    assert result.cure
    return result


def test_an_interpreter_that_is_not_there_is_named(pool: PoolSettings) -> None:
    result = failed_beside_neighbours(pool, order("lost", python="/nowhere/bin/python"), "WorkersBroken")
    assert result.culprit == "worker /nowhere/bin/python"
    assert "the last one said" in result.reason
    assert "No such file or directory" in result.reason


def test_an_interpreter_that_is_none_is_named(pool: PoolSettings, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho no model licence found\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    result = failed_beside_neighbours(pool, order("script", python=str(tmp_path / "python")), "WorkersBroken")
    assert str(tmp_path) in result.culprit
    assert result.reason.endswith("no model licence found")


BROKEN_RUNNERS = {
    "cannot be imported": ("import no_such_library", "No module named 'no_such_library'"),
    "cannot be built": (
        "class Runner:\n def __init__(self, threads): raise OSError('model.bin is not there')",
        "OSError: model.bin is not there",
    ),
    "ends in silence": ("import os; os._exit(1)", "it printed nothing"),
    "is not there": ("", "has no attribute 'Runner'"),
}


@pytest.mark.parametrize("what", BROKEN_RUNNERS)
def test_a_runner_that_cannot_be_used_is_named_by_its_last_words(pool: PoolSettings, tmp_path: Path, what: str) -> None:
    source, last_words = BROKEN_RUNNERS[what]
    result = failed_beside_neighbours(pool, runner(tmp_path / "runner.py", source, what), "WorkersBroken")
    assert result.reason.startswith("workers die at their start; the last one said: ")
    assert last_words in result.reason


def test_a_worker_that_is_never_ready_is_ended() -> None:
    with brokers.broker(limits={"start_s": 4.0, "start_failures": 1, "cooldown_s": 600}) as settings:
        sleepy = runner(settings.folder / "sleepy.py", "print('loading for ever', flush=True)\nimport time; time.sleep(3600)", "sleepy")
        result = failed_beside_neighbours(settings, sleepy, "WorkersBroken")
        assert result.reason.endswith("loading for ever")


def test_after_some_failures_it_is_not_tried_again_for_a_while(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    source = f"open({str(starts)!r}, 'a').write('.')\nraise SystemExit('broken')"
    with brokers.broker(limits={"start_failures": 3, "cooldown_s": 2.5}) as settings:
        broken = runner(tmp_path / "runner.py", source, "first")
        assert brokers.run(settings, [broken])["first"].result.error_class == "WorkersBroken"
        assert len(starts.read_text()) == 3
        began = time.monotonic()
        assert brokers.run(settings, [changed(broken, key="second")])["second"].result.error_class == "WorkersBroken"
        assert len(starts.read_text()) == 4, "one start is tried after the pause"
        assert time.monotonic() - began > 1.5

        (tmp_path / "runner.py").write_text(Path(brokers.TOY).read_text() + "\nRunner = Toy\n")
        assert brokers.run(settings, [changed(broken, key="third")])["third"].result.outcome == "done"


def test_code_that_changed_since_the_client_was_started_is_refused(pool: PoolSettings) -> None:
    result = failed_beside_neighbours(pool, changed(order("stale"), code="what it was yesterday"), "StaleCode")
    assert result.reason == "the code on disk is not the code that the run was started with"
    assert result.cure == "Start the run again"


def test_a_warm_worker_is_not_used_for_newer_code(pool: PoolSettings, tmp_path: Path) -> None:
    """The runner's file changes between two runs, and each run gets the results of its own code."""
    path, toy = tmp_path / "runner.py", Path(brokers.TOY).read_text()
    pids = []
    for version in ("1", "2"):
        source = toy.replace('code = "toy"', f"code = {version!r}") + "\nRunner = Toy\n"
        wanted = changed(runner(path, source, f"of version {version}"), code=version)
        pids.append(brokers.about(brokers.run(pool, [wanted])[wanted.submit.key])["pid"])
    assert pids[0] != pids[1]
    brokers.wait_until(lambda: not brokers.is_alive(pids[0]), "the worker with the old code to leave")


def test_our_own_interpreter_is_the_one_asked_for(pool: PoolSettings) -> None:
    brokers.run(pool, [order("plain")])
    assert sys.executable in {worker["python"] for worker in client.status(pool)["workers"]}
