"""Imports run downward, from floor to floor and never in a circle; and loading the Dagster definitions stays light.

A room is a package, or a module that stands in the root of `egoworld_ops`. A module may import from its own room and from the floors below.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.conftest import ROOT

FLOORS = (
    ("errors", "hashing", "home", "naming", "posting", "read_ahead", "section", "sources", "types", "verdict_words", "gpu_workers.wire"),
    ("alerts", "contract", "environment", "logs", "plugins", "vision", "gpu_workers.broker"),
    ("files", "robots", "synthetic", "video.calibrations"),
    ("models", "video"),
    ("operators",),
    ("operators.*", "lake"),
    ("ledger", "release", "score"),
    ("score.readers", "settings"),
    ("execution", "raw", "report"),
    ("exports", "query", "upkeep", "gpu_workers"),
    ("egoworld_assets.chain",),
    ("egoworld_assets.review",),
    ("egoworld_assets.monitoring",),
    ("egoworld_assets",),
    ("egoworld_assets.acceptance",),
    ("egoworld_assets.cli",),
)
"""Rooms from the ground up; those of `egoworld_ops` without its name. `operators.*` are the stages, which never import each other."""
PACKAGES = ("egoworld_ops", "gpu_workers", "egoworld_assets")
DAGSTER = ("dagster", "dagster_graphql", "dagster_shared", "dagster_webserver")
HEAVY = (
    "pyarrow.compute",
    "torch",
    "sam2",
    "cv2",
    "pinocchio",
    "dex_retargeting",
    "ai_edge_litert",
    "onnxruntime",
    "warp",
    "rerun",
    "scenedetect",
    "av",
    "duckdb",
    "scipy",
)
HEAVY_FOR_BACKENDS = (
    "torch",
    "sam2",
    "hydra",
    "pinocchio",
    "nlopt",
    "dex_retargeting",
    "ai_edge_litert",
    "onnxruntime",
    "warp",
    "scipy",
    "trimesh",
)
"""Without OpenCV, which is light: 16 MB, 0.03 s."""


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, at its top, inside functions, or for types alone."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str | None:
    """The module of ours that an imported name is, or is in; None where it is not ours."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


@cache
def imports() -> Mapping[str, set[str]]:
    """Which modules of ours each module imports."""
    return {module: {m for n in imported(path) if (m := module_of(n))} - {module} for module, path in MODULES.items()}


def room(module: str) -> str:
    """The room a module is in, as FLOORS names it."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    return (module if package == "egoworld_ops" else package).removeprefix("egoworld_ops.")


def floor(of_room: str) -> int:
    """The floor a room is on."""
    wanted = "operators.*" if of_room.startswith("operators.") else of_room
    found = [number for number, rooms in enumerate(FLOORS) if wanted in rooms]
    assert found, f"{of_room} is on no floor: name it in FLOORS, above all that it imports and below all that import it"
    return found[0]


def upward() -> list[str]:
    """Imports from a room of the same floor or of one above."""
    crossing = [(a, b) for a, below in imports().items() for b in below if room(a) != room(b) and "egoworld_ops" not in (a, b)]
    return [f"{a} imports {b}" for a, b in crossing if floor(room(b)) >= floor(room(a))]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of imports, as a list of names; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_run_downward_from_floor_to_floor() -> None:
    assert upward() == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(imports()) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for module, below in imports().items():
        rooms.setdefault(room(module), set()).update({room(b) for b in below if b != "egoworld_ops"} - {room(module)})
    assert circle(rooms) == []
    sizes = Counter(room(module) for module, path in MODULES.items() if path.name != "__init__.py")
    alone = [name for name in sizes if f"egoworld_ops.{name}" in MODULES and MODULES[f"egoworld_ops.{name}"].name != "__init__.py"]
    print(
        f"FIGURE layering: {', '.join(f'{name} {n}' for name, n in sorted(sizes.items()) if name not in alone)}; alone: {', '.join(alone)}"
    )
    largest, n_largest = max(sizes.items(), key=lambda item: item[1])
    print(f"FIGURE layering: {len(sizes) - len(alone)} rooms and {len(alone)} modules alone on {len(FLOORS)} floors", end="; ")
    print(f"{len(upward())} imports run upward, no circles; the largest room is {largest}, {n_largest} modules")


def test_only_the_package_of_assets_knows_dagster_and_the_chain_does_not() -> None:
    for module, path in MODULES.items():
        if module.startswith(("egoworld_ops", "gpu_workers", "egoworld_assets.chain")):
            assert not {name.split(".")[0] for name in imported(path)} & set(DAGSTER), f"{module} imports Dagster"


def test_loading_the_chain_loads_no_dagster() -> None:
    chain = [module for module in MODULES if module.startswith("egoworld_assets.chain")]
    code = f"import sys, {', '.join(chain)}; print([m for m in {DAGSTER!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


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
    """A step reads settings, weights, device and memory of the backends; workers do the computing."""
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
