"""What the command line does in this process: the Dagster instance it works with."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from egoworld_assets import console
from egoworld_assets.cli import processing
from egoworld_ops.errors import BadSettings, StorageUnavailable
from tests.conftest import ROOT

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


@pytest.mark.parametrize(("home", "reason"), [("", "is not set"), ("nowhere", "is no folder"), ("file", "is no folder")])
def test_a_home_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, reason: str) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DAGSTER_HOME", home and str(tmp_path / home))
    with pytest.raises(BadSettings, match=f"DAGSTER_HOME.*{reason}.*dagster.yaml"):
        processing.instance()
