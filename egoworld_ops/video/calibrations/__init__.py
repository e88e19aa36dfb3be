"""Calibration files of other tools, read into the sidecar's camera section: found by looking into this folder.

`calibrations/<format>.py` has a function `cameras(text, picture)`: the cameras of a file, or None where it is not of that format. `picture` is the
size (width, height) of the video's picture in pixels, for formats that depend on it. The first line of its docstring says what it reads.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from egoworld_ops.errors import BadCalibration, unreadable
from egoworld_ops.naming import did_you_mean
from egoworld_ops.video.calibrations.base import PARAMETERS, Calibration, NotUnderstood

Reader = Callable[[str, tuple[int, int]], Sequence[Calibration] | None]
MAX_BYTES = 16_000_000
_NO_FORMATS = ("base",)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in a file: the format's name, and the cameras, at least one."""

    format: str
    cameras: Sequence[Calibration]

    def camera(self, path: Path, name: str | None, model: str | None = None) -> Calibration:
        """The camera of that name; the only one where none is asked for.

        Args:
            model: what a person says that the coefficients are of.

        Raises:
            BadCalibration: there are several and none is asked for, or none of that name; or the sidecar has no such lens model.
        """
        names = [one.name for one in self.cameras]
        if name is None and len(names) > 1:
            raise BadCalibration(path, f"holds {len(names)} cameras: {', '.join(names)}", "Name one with --camera NAME")
        chosen = self.cameras[0] if name is None else next((one for one in self.cameras if one.name == name), None)
        if chosen is None:
            raise BadCalibration(path, f"has no camera {name!r}", did_you_mean(name or "", names))
        if model is not None and model != chosen.model:
            chosen = replace(chosen, model=model, note="")
        if not chosen.known:
            model = f"{chosen.model} with {len(chosen.distortion)} coefficients" if chosen.model in PARAMETERS else chosen.model
            known = ", ".join(f"{lens} ({' or '.join(map(str, counts))} coefficients)" for lens, counts in PARAMETERS.items())
            raise BadCalibration(path, f"camera {chosen.name!r} has the model {model}, which is not known here", f"Known are {known}")
        return chosen


@cache
def formats() -> tuple[str, ...]:
    """Names of all formats."""
    return tuple(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NO_FORMATS)


def described(name: str) -> str:
    """What a format's reader says that it reads."""
    return (inspect.getdoc(_reader(name)) or "it does not say").splitlines()[0].removesuffix(".")


def read(path: Path, picture: tuple[int, int]) -> Reading:
    """The cameras in a calibration file, whatever its format.

    Args:
        picture: width and height of the video's picture, px.

    Raises:
        BadCalibration: it cannot be read, is of no known format, or makes no sense.
        StorageUnavailable: the storage does not answer.
    """
    text = _text(path)
    for name in formats():
        try:
            found = _reader(name)(text, picture)
        except NotUnderstood as error:
            raise BadCalibration(path, f"is taken for a file of format {name}: {error}", "Mend it, or calibrate again") from error
        if found:
            return Reading(name, found)
    known = "; ".join(described(name) for name in formats())
    raise BadCalibration(path, "is no calibration file that is known here", f"Known are: {known}")


def _reader(name: str) -> Reader:
    reader: Reader = importlib.import_module(f"{__name__}.{name}").cameras
    return reader


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise BadCalibration(path, "is not a file", "Name the calibration file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        raise BadCalibration(path, f"cannot be read: {error.strerror}", "Check its permissions") from error
    if len(content) > MAX_BYTES:
        raise BadCalibration(path, f"is larger than {MAX_BYTES} bytes", "Name the calibration file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadCalibration(path, "is not text", "Name the calibration file; of COLMAP, cameras.txt rather than cameras.bin") from error
