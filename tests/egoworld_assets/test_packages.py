"""A package counts as installed in each of its builds: who has onnxruntime-gpu has onnxruntime."""

from pathlib import Path

import numpy as np
import pytest

from egoworld_assets.chain.packages import installed


def test_another_build_of_a_package_is_that_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red before: doctor asked to install onnxruntime beside onnxruntime-gpu, and runs recorded no version of it."""
    (tmp_path / "onnxruntime_gpu-9.9.0.dist-info").mkdir()
    (tmp_path / "onnxruntime_gpu-9.9.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 9.9.0\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert installed("onnxruntime") == "9.9.0 (onnxruntime-gpu)"
    monkeypatch.undo()
    assert installed("numpy") == np.__version__
    assert installed("no-such-package") is None
