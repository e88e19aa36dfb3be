"""What installed packages bring by entry points: backends, stages, robots, pools, exports. Found here; what each must be, its user says.

A name that is built in, or that two packages bring, is a clash: the built-in one stays; of two packages neither is used. A broken plug-in
does not affect others: it is logged, `egoworld plugins` lists it, and using it by its name is an error. Nothing is imported before
it is asked for, and nothing but what an entry point of an installed package names.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import Any

from egoworld_ops.errors import BrokenPlugin

log = logging.getLogger(__name__)

BACKENDS = "egoworld.backends"
"""`stage.backend = package.module`: the module has a class `Backend`."""
STAGES = "egoworld.stages"
"""`stage = package`: its `__init__` has a `STAGE`, its modules without a leading `_` are backends."""
ROBOTS = "egoworld.robots"
"""`robot = package.module:ROBOT`."""
POOLS = "egoworld.pools"
"""`kind = package.module:Class`: called with the pool's settings, a name and a priority."""
EXPORTS = "egoworld.exports"
"""`format = package.module`: the module has a function `export`."""
GROUPS = (BACKENDS, STAGES, ROBOTS, POOLS, EXPORTS)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point of an installed package.

    Args:
        target: `package.module` or `package.module:name`.
        package, version: of the distribution that brings it.
    """

    group: str
    name: str
    target: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} of {self.package} {self.version} ({self.group})"

    @property
    def module(self) -> str:
        """Full name of the module it names."""
        return self.target.partition(":")[0].strip()

    def load(self) -> Any:
        """What it names: a module or something in it.

        Raises:
            BrokenPlugin: it cannot be imported.
        """
        try:
            return EntryPoint(self.name, self.target, self.group).load()
        except Exception as error:
            raise self.broken(f"cannot be loaded: {type(error).__name__}: {error}") from error

    def broken(self, reason: str) -> BrokenPlugin:
        """The error of a plug-in that is not what it must be; it is remembered, and logged once."""
        problem = BrokenPlugin(f"plug-in {self}", reason, f"Mend or uninstall the package {self.package}")
        if self not in _problems:
            _problems[self] = problem
            log.warning("%s", problem)
        return problem


_problems: dict[Plugin, BrokenPlugin] = {}


def found(group: str, built_in: Collection[str]) -> dict[str, Plugin]:
    """The plug-ins of a group by name, sorted, without those whose name is taken; imports none of them."""
    by_name: dict[str, list[Plugin]] = defaultdict(list)
    for plugin in _installed().get(group, ()):
        by_name[plugin.name].append(plugin)
    taken = {}
    for name, same in sorted(by_name.items()):
        if name in built_in:
            for plugin in same:
                plugin.broken(f"{name!r} is the name of a part of egoworld, which stays")
        elif len(same) > 1:
            packages = ", ".join(plugin.package for plugin in same)
            for plugin in same:
                plugin.broken(f"several packages bring {name!r}, and none of them is taken: {packages}")
        else:
            taken[name] = same[0]
    return taken


def problem_with(group: str, name: str) -> BrokenPlugin | None:
    """Why the plug-in of that name is not used, where one is installed and that is known."""
    return next((problem for plugin, problem in _problems.items() if (plugin.group, plugin.name) == (group, name)), None)


def listed() -> list[tuple[Plugin, BrokenPlugin | None]]:
    """All plug-ins that are installed, and what is known to be wrong with each."""
    return [(plugin, _problems.get(plugin)) for group in GROUPS for plugin in _installed().get(group, ())]


@cache
def _installed() -> Mapping[str, tuple[Plugin, ...]]:
    found: dict[str, list[Plugin]] = defaultdict(list)
    seen: set[str] = set()
    for package in distributions():
        points = [point for point in package.entry_points if point.group in GROUPS]
        if points and package.name not in seen:  # the first on the path is the one that is imported
            seen.add(package.name)
            for point in points:
                found[point.group].append(Plugin(point.group, point.name, point.value, package.name, package.version))
    return {group: tuple(plugins) for group, plugins in found.items()}
