"""Which version of a package is installed, whichever of its builds it is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_BUILDS = {
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
}
"""Other distributions of the same package."""


def installed(package: str) -> str | None:
    """The version, with the name of the distribution where it is another build; None where it is not here: a backend may have its own interpreter."""
    for name in (package, *_BUILDS.get(package, ())):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        return found if name == package else f"{found} ({name})"
    return None
