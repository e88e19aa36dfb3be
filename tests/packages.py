"""Packages that are installed beside egoworld in a test, without an installer: modules and the `entry_points.txt` that wheels install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

OUTSIDE = Path(__file__).parent / "outside"
ENTRY_POINTS: Mapping[str, Mapping[str, str]] = {
    "backend": {"egoworld.backends": "detections.still = still_hands"},
    "stage": {"egoworld.stages": "contact = contact_stage"},
    "robot": {"egoworld.robots": "claw = claw:ROBOT"},
    "pool": {"egoworld.pools": "counted = counted_pool:CountedPool"},
    "export": {"egoworld.exports": "row_counts = frame_list"},
}
"""The entry points of each package in `tests/outside`, as in its `pyproject.toml`."""


def install(site: Path, package: str, entry_points: Mapping[str, str], version: str = "1.0", modules: Path | None = None) -> None:
    """Put a package into a folder of packages, as an installer does.

    Args:
        modules: a folder whose content becomes importable.
    """
    if modules is not None:
        shutil.copytree(modules, site, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    about = site / f"{package.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text("".join(f"[{group}]\n{line}\n" for group, line in entry_points.items()))


def install_outside(site: Path, *names: str) -> None:
    """Install some of the packages in `tests/outside`."""
    for name in names:
        install(site, f"outside-{name}", ENTRY_POINTS[name], modules=OUTSIDE / name)


def python(code: str, *path: Path, arguments: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> str:
    """The output of a fresh interpreter that finds packages in these folders first, then ours."""
    root = Path(__file__).parents[1]
    given = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, root)))} | dict(environment or {})
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], env=given, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
