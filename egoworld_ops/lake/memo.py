"""Remembers which results of a video were complete, so that planning it again costs a few `stat` calls and reads no Parquet.

`memo.json` beside a video's tables holds, for each stage, what its results depended on and the state (inode, size, time of change) of every file
that was looked at. Where anything differs the files themselves are asked. It is derived: it may be deleted, and is never the only place of anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.errors import unreadable
from egoworld_ops.files import regular
from egoworld_ops.files.whole import named_errors, write_bytes

FILE_NAME = "memo.json"
FileState = list[int] | None


def file_state(path: str | Path) -> FileState:
    """Inode, size and time of change of a file; None where there is none. A file of the lake is replaced, never changed, so this tells.

    Raises:
        StorageUnavailable: whether it is there cannot be told now.
    """
    try:
        state = os.stat(path)
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        return None
    return [state.st_ino, state.st_size, state.st_mtime_ns]


@dataclass(frozen=True, slots=True)
class Remembered:
    """A clip's result that is there: its clip, its rows and its digest."""

    clip_id: str
    rows: int
    digest: str = ""


def recall(folder: Path, stage: str, wanted: Mapping[str, Any], tables: Sequence[str]) -> list[Remembered] | None:
    """The results of a stage, if no file has changed since all were found complete; None where the files must be read.

    Raises:
        StorageUnavailable: what is there cannot be read now.

    Args:
        folder: of the video.
        wanted: all that the results depend on but the clips' own files, as JSON values.
        tables: names of the clips' tables that are looked at: the stage's own and those it reads.
    """
    known = read_notes(folder / FILE_NAME).get(stage)
    try:
        if known is None or known["wanted"] != wanted:
            return None
        for clip_id, _, _, *states in known["clips"]:
            if states != [file_state(f"{folder}/clip_id={clip_id}/{name}.parquet") for name in tables]:
                return None
        return [Remembered(clip_id, rows, digest) for clip_id, rows, digest, *_ in known["clips"]]
    except (KeyError, TypeError, ValueError):
        return None


def remember(folder: Path, stage: str, wanted: Mapping[str, Any], tables: Sequence[str], found: Sequence[Remembered]) -> None:
    """Note that a stage's results are all there; see `recall`."""
    clips = [[f.clip_id, f.rows, f.digest, *(file_state(f"{folder}/clip_id={f.clip_id}/{name}.parquet") for name in tables)] for f in found]
    if any(state is None for clip in clips for state in clip[3:]):
        return
    content = read_notes(folder / FILE_NAME) | {stage: {"wanted": wanted, "clips": clips}}
    write_bytes(folder / FILE_NAME, json.dumps(content).encode(), durable=False)


def forget(folder: Path) -> None:
    """Forget a video, so that its next plan reads its files."""
    with named_errors(folder / FILE_NAME):
        (folder / FILE_NAME).unlink(missing_ok=True)


def read_notes(path: Path) -> dict[str, Any]:
    """A JSON object that can be derived again; empty where there is none that is whole.

    Raises:
        StorageUnavailable: it is there and cannot be read now.
    """
    try:
        content = json.loads(regular.read_bytes(path))
    except ValueError:
        return {}
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        return {}
    return content if isinstance(content, dict) else {}
