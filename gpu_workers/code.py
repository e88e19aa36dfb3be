"""Which code this is: a worker that stays warm must not run older code than the run that asks it, and need not care about code that it does not run.

A worker is known by what runs its tasks (`runner_code`); what its operator consists of (`operator_code`) is compared clip by clip.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from egoworld_ops import operators, plugins, sources


@cache
def runner_code(module: str) -> str:
    """SHA-256, hex, over the sources of a runner's module and all that it imports, as this process first read them."""
    return sources.fingerprint(sources.closure(module))


@cache
def operator_code(stage: str, backend: str) -> str:
    """The same of a backend, with the tables of all stages, and the robots that packages bring, which operators look up by name."""
    brought = [plugin.module for plugin in plugins.found(plugins.ROBOTS, ()).values()]
    modules = {name for module in (operators.module_of(stage, backend), *brought) for name in sources.closure(module)}
    return sources.fingerprint(sorted(modules))


def remember_tables() -> None:
    """Read the sources in which the tables of stages are declared: a process loads them all, whatever operator it runs."""
    for package in operators.packages_of_stages():
        sources.content(package)


def file_fingerprint(path: Path) -> str:
    """The same of a runner that is a file of its own."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
