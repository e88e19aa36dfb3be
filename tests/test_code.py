"""The identity of code: that a worker runs, and that a version stands for. Edits are made in a copy of the tree."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from egoworld_ops import operators, sources
from egoworld_ops.execution import code
from tests.conftest import ROOT
from tests.packages import python

ASK = """
import json
from egoworld_ops import operators
from egoworld_ops.execution import code
from gpu_workers.code import operator_code, runner_code
every = [(stage, backend) for stage in operators.stages() for backend in operators.backends(stage)]
print(json.dumps({
    "workers": {"runner": runner_code("gpu_workers.runner")} | {f"{s}.{b}": operator_code(s, b) for s, b in every},
    "versions": {entry: code.version(entry) for entry in code.entries()},
    "changed": dict(code.changed()),
}))
"""
BACKENDS = [f"{stage}.{backend}" for stage in operators.stages() for backend in operators.backends(stage)]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, whose record of versions is that of its code."""
    folder = tmp_path_factory.mktemp("tree")
    for package in ("egoworld_ops", "gpu_workers", "egoworld_assets"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    python("from egoworld_ops.execution import code; code.record()", folder)
    return folder


@pytest.fixture(scope="module")
def before(copied: Path) -> dict[str, dict[str, str]]:
    return json.loads(python(ASK, copied))


def differences(copied: Path, before: dict[str, dict[str, str]], module: str, old: str, new: str) -> tuple[set[str], set[str]]:
    """The workers and the versions that an edit changes. The edit is undone."""
    path = copied / module
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new, 1))
    try:
        after = json.loads(python(ASK, copied))
    finally:
        path.write_text(source)
    workers, versions = ({name for name, value in after[what].items() if value != before[what][name]} for what in ("workers", "versions"))
    assert set(after["changed"]) == versions
    return workers, versions


def test_code_that_is_as_recorded_has_its_version_alone(before: dict[str, dict[str, str]]) -> None:
    assert before["versions"] == code.entries()
    assert before["changed"] == {}


@pytest.mark.parametrize(
    ("module", "old", "new", "workers", "versions"),
    [
        ("egoworld_assets/cli/main.py", "def main()", "def other_main()", set(), set()),
        ("egoworld_ops/release/make.py", "def make_release(", "def other_release(", set(), set()),
        ("egoworld_ops/operators/masks/sam2.py", "return", "return None or", {"masks.sam2"}, {"masks.sam2"}),
        ("egoworld_ops/operators/masks/sam2.py", '"""', '"""Now: ', {"masks.sam2"}, set()),
        ("egoworld_ops/operators/mapping/_solver.py", "\n\n\n", "\n\n# a remark\n\n\n", {"mapping.dex"}, set()),
        (
            "egoworld_ops/vision/geometry.py",
            "return",
            "return None or",
            set(BACKENDS),  # by way of `operators/rows.py`
            set(BACKENDS),
        ),
        ("egoworld_ops/execution/executor.py", "return", "return None or", {"runner"}, set()),
        ("egoworld_ops/contract/validation.py", "def validate(", "def other_validate(", {"runner"}, set()),
        (
            "egoworld_ops/video/picture.py",
            "return",
            "return None or",
            {"runner", "depth.given"},  # by way of `video/packet_index.py`, which tells how many frames a video has
            {"decode", "manifest", "depth.given"},
        ),
        ("egoworld_ops/errors.py", "return", "return None or", {"runner", *BACKENDS}, set()),
    ],
)
def test_an_edit_concerns_those_who_run_it(
    copied: Path, before: dict[str, dict[str, str]], module: str, old: str, new: str, workers: set[str], versions: set[str]
) -> None:
    assert differences(copied, before, module, old, new) == (workers, versions)


def test_every_version_stands_for_the_code_that_it_was_given_to() -> None:
    """If this fails, code was changed: raise the version of each operator that gives other results, then run `make versions`."""
    assert not list(code.changed()), "\n".join(said for _, said in code.changed())


def test_edited_code_has_a_version_of_its_own_until_it_is_recorded(copied: Path, before: dict[str, dict[str, str]]) -> None:
    path = copied / "egoworld_ops/operators/movement/classical.py"
    source = path.read_text()
    path.write_text(source.replace("return", "return None or", 1))
    try:
        edited = json.loads(python(ASK, copied))
        assert edited["versions"]["movement.classical"].startswith(before["versions"]["movement.classical"] + "+")
        assert "Raise its version where results may differ, then run `make versions`" in edited["changed"]["movement.classical"]
        said = python("from egoworld_ops.execution.code import main; main()", copied)
        assert "kept its version: the code of movement.classical" in said
        assert json.loads(python(ASK, copied))["versions"] == before["versions"]
    finally:
        path.write_text(source)
        python("from egoworld_ops.execution import code; code.record()", copied)


def test_operators_name_the_packages_that_they_import() -> None:
    """Packages that results depend on: all imports of a backend's own modules and of `vision`, except numpy, pyarrow and pydantic."""
    distributions = packages_distributions()
    for stage in operators.stages():
        for backend in operators.backends(stage):
            modules = sources.closure(operators.module_of(stage, backend), parents=False)
            own = [m for m in modules if m.startswith((f"egoworld_ops.operators.{stage}.", "egoworld_ops.vision."))]
            tops = {name.partition(".")[0] for module in own for name in sources.imports(module)}
            used = {package.replace("_", "-") for top in tops for package in distributions.get(top, ())}
            assert used - {"numpy", "pyarrow", "pydantic", "egoworld"} <= set(operators.load(stage, backend).packages), f"{stage}.{backend}"
