"""A small run to release."""

import os
from pathlib import Path

import pytest

from egoworld_ops.lake.lake import Lake, Run
from tests.lakes import write_video


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here simulates a power loss, so syncs are skipped."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Three videos of two clips, of which neighbours overlap."""
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    for name in ("b", "a", "c"):
        write_video(made, name, n_frames=50)
    return made
