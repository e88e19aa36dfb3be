"""Table `intake`, one file in the lake: the raw files that were seen, and what became of each. Registered videos can be materialized."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, EgoworldError, printable
from egoworld_ops.files import locks, regular
from egoworld_ops.files.tables import read_table, write_table
from egoworld_ops.files.whole import make_folder, named_errors, sweep, write_bytes
from egoworld_ops.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class Registered:
    """A raw file that was accepted as a video: where it is, and its content when it was hashed."""

    video_id: str
    path: Path
    sha256: str
    bytes: int
    mtime_ns: int


def read(store: Lake) -> pa.Table:
    """Table `intake`: every raw file seen so far; empty where none was.

    Raises:
        BadSettings: the lake's place is that of something else.
        ContractError, StorageUnavailable: as `read_table`.
    """
    place = path(store)
    with named_errors(place):
        there = place.exists()
    if not there:
        store.check_place()
    return read_table(place, "intake") if there else schema.empty("intake")


def registered(store: Lake) -> dict[str, Registered]:
    """The videos that can be processed, by video_id."""
    rows = [r for r in read(store).to_pylist() if r["status"] == "registered"]
    return {r["video_id"]: Registered(r["video_id"], Path(r["path"]), r["sha256"], r["bytes"], r["mtime_ns"]) for r in rows}


def update(store: Lake, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add or replace rows of `intake`, by path; a video has one registered path, the newest. Safe against other processes doing the same."""
    moved = {r["video_id"] for r in rows if r["status"] == "registered"}
    with _lock(store):
        kept = [
            r for r in read(store).to_pylist() if r["path"] not in moved and (r["status"] != "registered" or r["video_id"] not in moved)
        ]
        merged = {r["path"]: r for r in [*kept, *rows]}
        write_table(path(store), "intake", schema.from_rows("intake", list(merged.values())), {})


def forget(store: Lake, video_ids: Iterable[str]) -> None:
    """Remove videos from those registered; later scans of the raw folder skip their content."""
    gone = set(video_ids)
    said = {"status": "forgotten", "reason": "a person forgot it", "cure": "`egoworld register FILE` takes it back"}
    rows = [row | said for row in read(store).to_pylist() if row["status"] == "registered" and row["video_id"] in gone]
    update(store, rows)


def forgotten(store: Lake) -> dict[str, str]:
    """The videos that were forgotten and not registered again: video_id by SHA-256 of the content."""
    rows = read(store).to_pylist()
    present = {row["sha256"] for row in rows if row["status"] == "registered"}
    return {row["sha256"]: row["video_id"] for row in rows if row["status"] == "forgotten" and row["sha256"] not in present}


def lake_id(store: Lake) -> str:
    """Identifier of this lake, also different from that of an earlier lake at the same path: 12 hex digits, made once and kept beside `intake`."""
    path = store.root / "intake" / "lake_id"
    with suppress(FileNotFoundError):
        return _word(path)
    with _lock(store):
        if not path.exists():
            write_bytes(path, uuid.uuid4().hex[:12].encode())
        return _word(path)


def _word(path: Path) -> str:
    """What a file of one word says."""
    try:
        with named_errors(path):
            return regular.read_bytes(path).decode("ascii")
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise ContractError(
            path, f"cannot be read: {error}", "Delete it: another is made, and the sensor looks at all videos again"
        ) from error


def touched(store: Lake, entry: Registered, size: int, mtime_ns: int) -> None:
    """A registered file was touched or copied in place and holds what it held: note its state, so that nobody reads it again to find that."""
    with _lock(store):
        rows = read(store).to_pylist()
        meant = [r for r in rows if (r["path"], r["sha256"], r["status"]) == (str(entry.path), entry.sha256, "registered")]
        for row in meant:
            row |= {"bytes": size, "mtime_ns": mtime_ns}
        if meant:
            write_table(path(store), "intake", schema.from_rows("intake", rows), {})


def refuse(store: Lake, key: str, error: EgoworldError) -> None:
    """Add a row for a key that names no registered video, such as a partition added by hand. Registering a video of this name removes the row."""
    said = {"error_class": type(error).__name__, "reason": error.reason, "cure": error.cure}
    update(store, [{"path": printable(key), "status": "rejected", **said}])


def ensure(store: Lake) -> None:
    """Write an empty table where there is none."""
    with named_errors(path(store)):
        there = path(store).exists()
    if not there:
        update(store, [])


def path(store: Lake) -> Path:
    """Where table `intake` lies."""
    return store.root / "intake" / "intake.parquet"


@contextmanager
def _lock(store: Lake) -> Iterator[None]:
    folder = store.root / "intake"
    with named_errors(folder):
        make_folder(folder)
        with locks.alone(folder):
            sweep(folder)
            yield
