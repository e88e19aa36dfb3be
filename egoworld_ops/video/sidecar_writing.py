"""Writes sections of a sidecar and keeps the others. Nothing of the chain calls it: a sidecar is a person's word, given by a command or a page."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from egoworld_ops.errors import BadSettings, BadSidecar, SidecarChanged, StorageUnavailable
from egoworld_ops.files.whole import is_there, write_bytes
from egoworld_ops.section import first_fault
from egoworld_ops.video.beside import read_regular
from egoworld_ops.video.sidecar import MAX_BYTES, Sidecar, as_written, read_sidecar, sidecar_path, videos_of


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
    before = read_sidecar(video_path)
    content, after = with_sections(video_path, {"camera": dict(camera)}, "Check the calibration file")
    if before.camera is not None and before.camera != after.camera and not force:
        raise _has_another(sidecar_path(video_path))
    return content


def with_sections(video_path: Path, sections: Mapping[str, Any], cure: str) -> tuple[dict[str, Any], Sidecar]:
    """The content of a video's sidecar with these sections, its others as they are, and what it says. Writes nothing.

    Args:
        cure: what to do where a value does not say that itself.

    Raises:
        BadSidecar: the sidecar that is there cannot be read, or a section does not fit its format; or the file would be that of two videos.
        StorageUnavailable: the storage does not answer.
    """
    read_sidecar(video_path)
    if len(videos := videos_of(sidecar_path(video_path))) > 1:
        raise BadSidecar(
            sidecar_path(video_path), f"would stand beside several videos of that name: {videos}", "Rename all but one of the videos"
        )
    content = as_it_is(video_path) | dict(sections)
    try:
        return content, Sidecar.model_validate(content)
    except ValidationError as error:
        first = first_fault(error)
        where = ".".join(map(str, first["loc"]))
        raise BadSidecar(sidecar_path(video_path), f"{where}: {first['msg']}", first.get("ctx", {}).get("cure", cure)) from error


def as_it_is(video_path: Path) -> dict[str, Any]:
    """What a video's sidecar says, word for word; nothing where there is none.

    Raises:
        BadSidecar, StorageUnavailable, ValueError: as `as_written`.
    """
    path = sidecar_path(video_path)
    return dict(as_written(path)) if is_there(path) else {}


def state(video_path: Path) -> str:
    """The SHA-256 of a video's sidecar, by which `write` finds that somebody changed it; empty where there is none.

    Raises:
        BadSidecar, StorageUnavailable: as `read_regular`.
    """
    path = sidecar_path(video_path)
    return hashlib.sha256(read_regular(path, MAX_BYTES)).hexdigest() if is_there(path) else ""


def write(video_path: Path, content: Mapping[str, Any], before: str | None = None) -> Path:
    """Write a video's sidecar, whole or not at all; returns its path.

    Args:
        before: the `state` that it must still be in; None overwrites whatever is there.

    Raises:
        SidecarChanged: somebody wrote it meanwhile.
        StorageUnavailable: the storage or its permissions refuse. What was there is as it was.
    """
    path = sidecar_path(video_path)
    with _alone(path.parent):
        if before is not None and state(video_path) != before:
            raise SidecarChanged(
                path, "was changed by somebody else meanwhile, and is not overwritten", "Load the page again: it shows what stands there"
            )
        try:
            write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        except PermissionError as error:
            cure = f"Allow this user to write in {path.parent}, or work on a copy of the video elsewhere"
            raise StorageUnavailable(path, f"cannot be written: {error.strerror}", cure) from error
    return path


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Take turns with other writers of sidecars in a folder, where its file system has locks. It leaves no file beside the videos."""
    with ExitStack() as ends:
        with suppress(OSError):  # what refuses to be locked may be written all the same
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            ends.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _has_another(path: Path) -> BadSettings:
    return BadSettings(path, "has another camera already", "Say --force to replace it")
