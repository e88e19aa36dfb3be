"""Imports run one way, and loading the Dagster definitions stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

ALLOWED = {"egoworld_ops": {"egoworld_ops"}, "gpu_workers": {"egoworld_ops", "gpu_workers"}}
ALLOWED["egoworld_assets"] = {"egoworld_ops", "gpu_workers", "egoworld_assets"}
DAGSTER = ("dagster", "dagster_graphql", "dagster_shared", "dagster_webserver")
HEAVY = ("torch", "sam2", "cv2", "pinocchio", "dex_retargeting", "ai_edge_litert", "rerun", "scenedetect", "av", "duckdb", "scipy")
HEAVY_FOR_BACKENDS = ("torch", "sam2", "hydra", "pinocchio", "nlopt", "dex_retargeting", "ai_edge_litert", "scipy", "trimesh")
"""Without OpenCV, which is light: 16 MB, 0.03 s."""
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imported(path)} & ALLOWED.keys()
    assert ours <= ALLOWED[package]
    if package != "egoworld_assets":
        assert not {name.split(".")[0] for name in imported(path)} & set(DAGSTER)


def test_stages_do_not_import_sibling_stages() -> None:
    operators = ROOT / "egoworld_ops" / "operators"
    stages = {path.parent.name for path in operators.glob("*/__init__.py")}
    for path in operators.glob("*/**/*.py"):
        own = path.relative_to(operators).parts[0]
        for name in imported(path):
            parts = name.split(".")
            if parts[:2] == ["egoworld_ops", "operators"] and len(parts) > 2:
                assert parts[2] == own or parts[2] not in stages, f"{path} imports {name}"


def test_loading_the_definitions_loads_nothing_heavy() -> None:
    code = f"import sys, egoworld_assets.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_asking_every_backend_what_it_is_loads_nothing_heavy() -> None:
    """A step asks for settings, weights, device and memory of the backends, and leaves the computing to workers."""
    code = f"""
import sys
from egoworld_ops import operators
for backend in [operators.load(stage, name) for stage in operators.stages() for name in operators.backends(stage)]:
    options = backend.Settings()
    backend.weights(options), backend.device(options), backend.memory_mb(options)
print([m for m in {HEAVY_FOR_BACKENDS!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
