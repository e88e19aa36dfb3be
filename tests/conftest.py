"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import brokers

if TYPE_CHECKING:
    from tests.real_chain import Kitchen

ROOT = Path(__file__).resolve().parents[1]

_OPERATORS = "tests/egoworld_ops/operators"
TOGETHER = {
    "stack": ("tests/e2e/test_pool_faults.py", "tests/e2e/test_stack.py"),
    "watched": ("tests/egoworld_assets/review/test_beside.py", "tests/egoworld_assets/review/test_clip_page.py"),
    "kitchen": (
        "tests/test_chain.py",
        "tests/egoworld_assets/cli/test_accept.py",
        "tests/egoworld_ops/test_rerun_file.py",
        *(f"{_OPERATORS}/test_{name}.py" for name in ("agreement", "masks_classical", "movement", "object_pose")),
    ),
}
"""Files that share a slow fixture (`stack`, `watchable`, `kitchen_chain`): their tests run in one process."""
APART = ("tests/test_chaos_runs.py", "tests/gpu_workers/test_chaos.py")
"""Files whose tests are slow and share nothing: each test may run in a process of its own."""
LONG_FIRST = ("stack", "kitchen", "tests/e2e", *APART, f"{_OPERATORS}/test_masks_sam2.py")
"""Slow groups, by the beginning of their name: run last, they would keep one core busy and leave the others idle."""


def group(nodeid: str) -> str:
    """The group of a test, which runs in one process: its file, except for those above."""
    file = nodeid.partition("::")[0]
    return nodeid if file in APART else next((name for name, files in TOGETHER.items() if file in files), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long groups come first."""
    items.sort(key=lambda item: next((i for i, first in enumerate(LONG_FIRST) if group(item.nodeid).startswith(first)), len(LONG_FIRST)))


def pytest_collection_finish() -> None:
    """All that is imported and collected by now stays to the end: no collection of garbage need go through it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the interpreter end as usual: some libraries look then for what was never collected."""
    gc.unfreeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """With `--dist loadfile` groups in place of files. (`loadgroup` of pytest-xdist 3.8 does nothing under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Grouped(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def _own_pool() -> Iterator[None]:
    """Brokers that tests start on demand have a folder of their own."""
    root = Path(tempfile.mkdtemp(prefix="egoworld-tests-"))
    os.environ.update(EGOWORLD_POOL__FOLDER=str(root / "p"), EGOWORLD_POOL__IDLE_EXIT_S="60")
    yield
    brokers.stop(root / "p")
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test media beside the checkout; the test is skipped if it is missing."""
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
    """The example scene through the whole chain, once for all tests that check its results."""
    from tests.real_chain import process

    return process(synthetic_example, tmp_path_factory.mktemp("kitchen"))
