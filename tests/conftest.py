"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import brokers

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_pool() -> Iterator[None]:
    """A broker that tests start on demand is theirs alone."""
    root = Path(tempfile.mkdtemp(prefix="egoworld-tests-"))
    os.environ.update(EGOWORLD_POOL__FOLDER=str(root / "p"), EGOWORLD_POOL__IDLE_EXIT_S="60")
    yield
    brokers.stop(root / "p")
    shutil.rmtree(root)


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
