"""Which source files a module runs: all that it imports of its own package and of ours, found by reading, without importing any of it.

Two hashes of them. `fingerprint` is of the bytes: is this the code that was started? `meaning` is of what the code says, without comments,
docstrings and layout: may its results differ?
"""

from __future__ import annotations

import ast
import hashlib
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

OURS = ("egoworld_ops", "gpu_workers")
_PARSING = threading.Lock()
"""Python 3.11 fails with SystemError where two threads parse at once (python/cpython#106905)."""


@cache
def closure(module: str, outside: tuple[str, ...] = (), parents: bool = True) -> tuple[str, ...]:
    """Full names of a module and of all that it imports, also inside functions, of its own top-level package and of ours; sorted.

    Not among them: what is imported for type checkers alone, and what is imported by a name that is made while running.

    Args:
        outside: modules that are left out, with what they import; a name that ends in `.` stands for all below it.
        parents: with the packages they lie in, whose `__init__` runs first.
    """
    tops = {*OURS, module.partition(".")[0]}
    found: dict[str, None] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in tops or _left_out(name, outside) or _file(name) is None:
            continue
        found[name] = None
        waiting += imports(name)
        if parents and "." in name:
            waiting.append(name.rpartition(".")[0])
    return tuple(sorted(found))


def fingerprint(modules: Sequence[str]) -> str:
    """SHA-256, hex, of the sources of these modules, each as it was when this process first read it."""
    return _sha256(f"{name} {hashlib.sha256(content(name)).hexdigest()}" for name in modules)


def meaning(modules: Sequence[str]) -> str:
    """SHA-256, hex, of what the code of these modules says: another comment, docstring or layout gives the same."""
    return _sha256(f"{name} {_said(name)}" for name in modules)


@cache
def content(module: str) -> bytes:
    """The source of a module, as it was when this process first read it."""
    path = _file(module)
    assert path is not None, module
    return path.read_bytes()


def tree(module: str) -> ast.Module:
    """The syntax of a module's source."""
    with _PARSING:
        return ast.parse(content(module))


@cache
def constant(module: str, name: str) -> object:
    """The value of a constant that a module assigns, read from its source.

    Raises:
        LookupError: it assigns none of that name.
    """
    for line in tree(module).body:
        if isinstance(line, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in line.targets):
            return ast.literal_eval(line.value)
    raise LookupError(f"{module} assigns no {name}")


def exists(module: str) -> bool:
    """Whether there is a source file of that module."""
    return _file(module) is not None


def _sha256(lines: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _said(module: str) -> str:
    said = tree(module)
    for node in ast.walk(said):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [line for line in node.body if not _is_text(line)]
    return hashlib.sha256(ast.dump(said).encode()).hexdigest()


def _is_text(line: ast.stmt) -> bool:
    """An expression that is only a string: a docstring of a module, class, function or constant."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


@cache
def imports(module: str) -> tuple[str, ...]:
    """Full names of all that a module imports when it runs: modules, and things in them."""
    spec = _spec(module)
    package = module if spec is not None and spec.submodule_search_locations is not None else module.rpartition(".")[0]
    return tuple(dict.fromkeys(_imported(tree(module), package)))


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package.rsplit(".", child.level - 1)[0] if child.level else ""
            base = ".".join(filter(None, [above, child.module]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for line in child.orelse:
                yield from _imported(ast.Module([line], []), package)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _imported(child, package)


def _left_out(name: str, outside: tuple[str, ...]) -> bool:
    return any(name == out or (out.endswith(".") and name.startswith(out)) for out in outside)


def _file(module: str) -> Path | None:
    """Where the source of a module lies; None where it is no module or has none."""
    spec = _spec(module)
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.origin.endswith(".py") else None


@cache
def _spec(module: str) -> ModuleSpec | None:
    """The spec of a module, found without importing it or its packages."""
    if (loaded := getattr(sys.modules.get(module), "__spec__", None)) is not None:
        return loaded
    parent = module.rpartition(".")[0]
    above = _spec(parent) if parent else None
    if parent and (above is None or above.submodule_search_locations is None):
        return None
    where = list(above.submodule_search_locations or ()) if above else None
    for finder in sys.meta_path:
        if (spec := finder.find_spec(module, where)) is not None:
            return spec
    return None
