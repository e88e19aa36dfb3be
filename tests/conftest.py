"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import brokers

if TYPE_CHECKING:
    from tests.real_chain import Kitchen

ROOT = Path(__file__).resolve().parents[1]

TOGETHER = {"stack": "stack", "kitchen_chain": "kitchen"}
"""Fixtures that take long and serve tests of several files: those tests run in one process."""
LONG_FIRST = ("kitchen", "stack", "tests/e2e/test_resume.py", "tests/egoworld_ops/operators/test_masks_sam2.py")
"""Groups that would keep one core busy and leave the others idle if they came last."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests for `--dist loadgroup`: by file, but for those that share a long fixture; long groups come first."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    places = {group: place for place, group in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: places.get(groups[item], len(places)))


def _group(item: pytest.Item) -> str:
    fixtures = getattr(item, "fixturenames", ())
    return next((group for fixture, group in TOGETHER.items() if fixture in fixtures), item.nodeid.partition("::")[0])


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


@pytest.fixture(scope="session")
def kitchen_chain(tmp_path_factory: pytest.TempPathFactory, synthetic_example: Path) -> Kitchen:
    """The example scene through the whole chain, once for all tests that look at what comes of it."""
    from tests.real_chain import process

    return process(synthetic_example, tmp_path_factory.mktemp("kitchen"))
