"""A whole deployment for the end-to-end tests: temporary DAGSTER_HOME and lake, the repository's own dagster.yaml, real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import ROOT
from tests.e2e.stack import Deployment, Stack

BIN = Path(sys.executable).parent


def deployment(root: Path, **settings: object) -> Deployment:
    """An empty deployment under `root`; settings by their name in the environment, without the prefix. Its pool is the one of the tests."""
    home, lake, raw = (root / name for name in ("home", "lake", "raw"))
    for folder in (home, raw):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    given = {"LAKE": lake, "RAW": raw} | ({"POOL__FOLDER": os.environ["EGOWORLD_POOL__FOLDER"]} if "POOL__FOLDER" not in settings else {})
    chosen = {f"EGOWORLD_{name}": str(value) for name, value in (given | settings).items()}
    kept = {k: v for k, v in os.environ.items() if k == "EGOWORLD_WEIGHTS" or not k.startswith(("DAGSTER_", "EGOWORLD_"))}
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    ours = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "1",
        "PATH": path,
    }
    return Deployment(home, lake, raw, kept | chosen | ours)


@pytest.fixture
def fresh(tmp_path: Path) -> Deployment:
    """A deployment of this test alone; nothing runs."""
    return deployment(tmp_path)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A deployment with a webserver and a daemon, shared by the tests of a session."""
    running = Stack(deployment(tmp_path_factory.mktemp("stack")))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def command(where: Deployment, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment as a user would."""
    return subprocess.run([*arguments], cwd=ROOT, env=where.environment, capture_output=True, text=True, timeout=timeout_s, check=False)


def instance(where: Deployment) -> dg.DagsterInstance:
    """The deployment's own Dagster instance, to read what happened."""
    return dg.DagsterInstance.from_config(str(where.home))
