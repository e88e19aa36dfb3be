"""The part of the command line that works with Dagster in this process: instance, home, runs."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager

from egoworld_assets import console
from egoworld_assets.cli import processing
from egoworld_ops.errors import BadSettings, StorageUnavailable
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings
from tests.conftest import ROOT
from tests.egoworld_ops import media

OPENER = """
import sys
from egoworld_assets.cli import processing
print("ready", flush=True)
sys.stdin.readline()
with processing.instance() as dagster:
    print(dagster.get_runs_count())
"""


def test_commands_that_are_the_first_ones_at_once_all_find_dagster_usable(tmp_path: Path) -> None:
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "1"}
    command, pipe = [sys.executable, "-c", OPENER], subprocess.PIPE
    openers = [subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(5)]
    for opener in openers:
        assert opener.stdout
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin
        opener.stdin.write("\n")
        opener.stdin.flush()
    said = [opener.communicate(timeout=60) for opener in openers]
    assert [out for out, _ in said] == ["0\n"] * 5, said


def test_a_step_that_fails_says_what_our_error_says_and_not_what_caused_that() -> None:
    @dg.op
    def store() -> None:
        try:
            raise OSError("unable to open database file")
        except OSError as error:
            raise StorageUnavailable("ledger x", "is read-only", "Restore the storage, then run again") from error

    @dg.job
    def chain() -> None:
        store()

    failed = chain.execute_in_process(raise_on_error=False)
    [event] = [event for event in failed.all_events if event.is_step_failure]
    assert console._reason(event).endswith("ledger x: is read-only. Restore the storage, then run again")


def test_a_run_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    settings = _home(tmp_path, monkeypatch)
    [video_id] = register.register(settings.lake, [media.make(tmp_path / "raw" / "a.mp4", 5)]).video_ids
    monkeypatch.setenv("EGOWORLD_POOL__WORKERS", "many")
    said: list[str] = []

    assert processing.process(settings, [video_id], said.append) == [video_id]

    assert "the run failed: " in (shown := capfd.readouterr().err)
    assert "pool.workers" in shown
    assert [line for line in said if "not run" in line and "the run did not start, see above" not in line] == []


def test_what_lies_in_the_way_of_the_catalog_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = _home(tmp_path, monkeypatch)
    [video_id] = register.register(settings.lake, [media.make(tmp_path / "raw" / "a.mp4", 5)]).video_ids
    (settings.lake / "egoworld.duckdb" / "in the way").mkdir(parents=True)
    said: list[str] = []

    assert processing.process(settings, [video_id], said.append) == [video_id]

    assert "egoworld.duckdb" in capfd.readouterr().err
    assert any("not run: what it needs is not there" in line for line in said), said


def test_ctrl_c_ends_all_with_one_line_and_begins_no_further_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _home(tmp_path, monkeypatch)
    register.register(settings.lake, [media.make(tmp_path / "raw" / f"{n}.mp4", 200 + n) for n in range(2)])
    command = [sys.executable, "-c", "from egoworld_assets.cli.main import main; main()", "process", "--all"]
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    shown = []
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as running:
        assert running.stdout
        for line in running.stdout:
            shown.append(line)
            if line == "  manifest ...\n":
                os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all processes of the command

    assert running.returncode == processing.INTERRUPTED, shown
    assert not [line for line in shown if "watch_orphans" in line or line.startswith("[2/2]")], "".join(shown)
    assert shown[-1] == "interrupted: what is done is kept; `egoworld process --missing` goes on\n"


def test_what_runs_print_goes_to_the_terminal_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _home(tmp_path, monkeypatch)
    with processing.instance() as dagster:
        assert isinstance(dagster.compute_log_manager, NoOpComputeLogManager)


def _home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a new home for a test."""
    for name in ("EGOWORLD_LAKE", "EGOWORLD_RAW", "EGOWORLD_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(place))
    return processing.settings(None)


def test_an_interrupt_that_a_destructor_drops_is_known() -> None:
    class Dropped:
        def __del__(self) -> None:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background has it ignored
    try:
        with processing._interrupts() as pressed:
            assert not pressed()
            thing = Dropped()
            del thing
            assert pressed()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("home", ["nowhere", "file"])
def test_a_home_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / home))
    with pytest.raises(BadSettings, match=r"DAGSTER_HOME.*is no folder.*mkdir"):
        processing.instance()


@pytest.mark.parametrize("given", ["", "home"])
def test_relative_paths_begin_at_home_wherever_a_command_is_called_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    for name in ("EGOWORLD_LAKE", "EGOWORLD_RAW"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", given and str(tmp_path / given))
    monkeypatch.chdir(tmp_path / "work")
    place = tmp_path / (given or "work")
    made = processing.settings(None)
    assert (made.lake, made.raw) == (place / "output", place / "raw")
    assert (place / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()
    assert made.raw.is_dir()
    monkeypatch.chdir(tmp_path)
    assert processing.settings(None) == made
    monkeypatch.setenv("EGOWORLD_LAKE", "lakes/one")
    assert processing.settings(None).lake == place / "lakes" / "one"
