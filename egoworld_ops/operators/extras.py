"""Packages that only some backends need: what to say where they are not installed."""

from __future__ import annotations

from importlib.util import find_spec

from egoworld_ops.errors import SetupError


def require(package: str, extra: str, backend: str) -> None:
    """Make sure that a package is installed, without importing it.

    Args:
        package: name by which it is imported.
        extra: the extra of egoworld that brings it.
        backend: `stage.backend`, which needs it.

    Raises:
        SetupError: it is not.
    """
    if find_spec(package) is None:
        raise SetupError(
            f"stages.{backend}", f"it needs the package {package}, which is not installed", f"Run: pip install egoworld[{extra}]"
        )
