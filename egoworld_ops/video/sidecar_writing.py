"""Writes one section of a sidecar and keeps the others. Nothing of the chain calls it: a sidecar is a person's word, given by a command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from egoworld_ops.errors import BadSettings, BadSidecar
from egoworld_ops.files.whole import is_there, write_bytes
from egoworld_ops.video.sidecar import Sidecar, as_written, read_sidecar, sidecar_path


def refuse_another(video_path: Path) -> None:
    """Ask before a camera is computed for a sidecar that has one.

    Raises:
        BadSettings: it has.
        BadSidecar, StorageUnavailable: as `with_camera`.
    """
    if read_sidecar(video_path).camera is not None:
        raise _has_another(sidecar_path(video_path))


def with_camera(video_path: Path, camera: Mapping[str, Any], force: bool) -> dict[str, Any]:
    """The content of a video's sidecar with this camera, its other sections as they are. Writes nothing.

    Args:
        force: replace another camera.

    Raises:
        BadSettings: the sidecar has another camera.
        BadSidecar: the sidecar that is there cannot be read, or the camera does not fit its format.
        StorageUnavailable: the storage does not answer.
    """
    path = sidecar_path(video_path)
    before = read_sidecar(video_path)
    said: dict[str, Any] = as_written(path) if is_there(path) else {}
    try:
        after = Sidecar.model_validate(said | {"camera": dict(camera)})
    except ValidationError as error:
        first = error.errors()[0]
        cure = first.get("ctx", {}).get("cure", "Check the calibration file")
        raise BadSidecar(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", cure) from error
    if before.camera is not None and before.camera != after.camera and not force:
        raise _has_another(path)
    return said | {"camera": dict(camera)}


def _has_another(path: Path) -> BadSettings:
    return BadSettings(path, "has another camera already", "Say --force to replace it")


def write(video_path: Path, content: Mapping[str, Any]) -> Path:
    """Write a video's sidecar, whole or not at all; returns its path.

    Raises:
        StorageUnavailable: the storage refuses; what was there is as it was.
    """
    path = sidecar_path(video_path)
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return path
