"""Keeps what was measured of a video, so that judging it again costs a few `stat` calls and reads no Parquet.

`quality.json` beside a video's tables holds what each stage measured and a digest of what that depends on: the metrics as they are defined now, and
the state (inode, size, time of change) of every file they read. It is derived: it may be deleted, and is never the only place of anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from egoworld_ops.contract import quality, schema
from egoworld_ops.contract.values import cure
from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.files.whole import write_bytes
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake.memo import file_state, read_notes

FILE_NAME = "quality.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """What the files of a stage of a video say.

    Args:
        metrics: by name.
        odd: what is wrong with them whatever the bounds, one sentence each.
        values: how many rows have a value that stands, in words.
        assumed: whether lengths in its rows rest on an assumed focal length.
    """

    metrics: Mapping[str, float | None]
    odd: Sequence[str]
    values: str
    assumed: bool


def digest_of(stage: str, files: Sequence[Path]) -> str:
    """What it depends on that is measured of these files of a stage for a video; to be asked before they are read.

    Raises:
        StorageUnavailable: whether one is there cannot be told now.
    """
    metrics = [[m.name, m.sql, m.table, *m.beside] for m in quality.metrics(stage)] + [[name] for name in quality.columns(stage)]
    names = sorted({name for m in quality.metrics(stage) for name in m.beside})
    read = [*files, *(path.with_name(f"{name}.parquet") for path in files for name in names)]
    states = [[path.parent.name, path.name, file_state(path)] for path in read]
    return sha256_of({"metrics": metrics, "cure": cure(stage), "schema": schema.SCHEMA_VERSION, "files": states})


def recall(folder: Path, stage: str, digest: str) -> Measured | None:
    """What was measured of a stage; None where that depends on something that has changed since.

    Args:
        folder: of the video.

    Raises:
        StorageUnavailable: what is there cannot be read now.
    """
    known = read_notes(folder / FILE_NAME).get(stage)
    try:
        return None if known is None or known["of"] != digest else Measured(**known["measured"])
    except (KeyError, TypeError):
        return None


def keep(folder: Path, stage: str, digest: str, found: Measured) -> None:
    """Note what was measured; see `recall`. Where the lake has no such video, or cannot be written to, nothing is kept, and nothing lost."""
    if not folder.is_dir():
        return
    with suppress(StorageUnavailable, PermissionError):
        content = read_notes(folder / FILE_NAME) | {stage: {"of": digest, "measured": asdict(found)}}
        write_bytes(folder / FILE_NAME, json.dumps(content).encode(), durable=False)
