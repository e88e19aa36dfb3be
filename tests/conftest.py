"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test media beside the checkout; the test is skipped where it is not."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"needs the real test media in {data}, which are not part of the repository")
    return data


@pytest.fixture(scope="session")
def synthetic_example() -> Path:
    """The rendered example scene in the repository."""
    return ROOT / "examples" / "synthetic" / "kitchen.mp4"
