"""The folder that relative paths of settings are relative to: one for the raw videos, the lake and Dagster's database, from any working folder."""

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
    """A path of the settings as an absolute path."""
    return home() / path
