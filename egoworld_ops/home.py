"""Where relative paths of settings begin: one folder for the raw videos, the lake and Dagster's own record, wherever a command is called from."""

from __future__ import annotations

import os
from pathlib import Path

INSTANCE = "dagster.yaml"


def home() -> Path:
    """DAGSTER_HOME where it holds a `dagster.yaml`, else the working folder; absolute. See ADR 27."""
    given = os.environ.get("DAGSTER_HOME", "")
    place = Path(given).expanduser()
    return place.absolute() if given and (place / INSTANCE).is_file() else Path.cwd()


def anchored(path: Path) -> Path:
    """A path as the settings mean it, absolute."""
    return home() / path
