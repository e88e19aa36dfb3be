"""A worker that is killed in the middle of loading a network and in the middle of its run loses no clip; all backends: `make models-full`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu_workers import killed_models


@pytest.mark.parametrize("name", ["hand_pose.hamer"])
def test_a_worker_that_is_killed_at_a_model_loses_no_clip(name: str, tmp_path: Path) -> None:
    print(f"FIGURE {killed_models.check(name, tmp_path)}")
