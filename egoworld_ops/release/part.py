"""One file of a release: rows streamed out of clip files, each owned frame once, into large row groups. Memory is bounded by a few row groups."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.contract import encodings, schema
from egoworld_ops.errors import unreadable
from egoworld_ops.files.tables import PROVENANCE_KEY, digest_at
from egoworld_ops.hashing import sha256_of
from egoworld_ops.read_ahead import ReadAhead
from egoworld_ops.release.place import FileRecord, sha256_of_file
from egoworld_ops.release.plan import Source, identity
from egoworld_ops.release.rows import released_rows
from egoworld_ops.release.settings import ReleaseSettings

_READ_AHEAD_BYTES = 64_000_000
_BUFFER_BYTES = 1 << 20
_MOST_ROWS_A_PAGE = (1 << 31) - 1
"""Pages end by size alone."""
_BLOOM_FALSE_POSITIVES = 0.01


def laid_out(settings: ReleaseSettings) -> dict[str, Any]:
    """How files are laid out and what is left out of them, as JSON: part of their digests, and recorded in each of them."""
    return settings.model_dump(mode="json", include={"row_group_mb", "page_mb", "compression", "level", "bloom_columns", "assumed_metric"})


def write_part(target: Path, table: str, files: Sequence[Source], settings: ReleaseSettings, run_id: str) -> FileRecord:
    """Write one file of a release: under a temporary name, durable, then renamed. The same sources and layout give the same bytes.

    Args:
        files: what it is made of, in the order of the table's rows.

    Raises:
        InputChanged, ContractError: of a source.
        OSError: the storage refuses.
    """
    said = identity(table, laid_out(settings), files)
    made_of = sha256_of(said)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{target.name}")
    with closing(_HashedFile(temporary)) as sink:
        rows = _write(sink, table, files, settings, {"digest": made_of, "identity": said, "run_id": run_id})
    os.replace(temporary, target)
    return FileRecord(sink.hexdigest, sink.size, rows, made_of, len(files))


def record_of(path: Path, wanted: str, sources: int) -> FileRecord | None:
    """The record of a whole file with the wanted digest, as a release that was cut short left it; None where there is none."""
    if digest_at(path) != wanted:
        return None
    try:
        n_rows = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and (away := unreadable(error, path)) is not None:
            raise away from error
        return None
    return FileRecord(sha256_of_file(path), path.stat().st_size, n_rows, wanted, sources)


def _write(sink: _HashedFile, table: str, files: Sequence[Source], settings: ReleaseSettings, provenance: Mapping[str, Any]) -> int:
    written = 0
    rows = released_rows(files, settings.assumed_metric)
    # the writer hands over page by page: each would wait for the interpreter, which the thread that reads needs too
    stream = pa.BufferedOutputStream(pa.PythonFile(sink, mode="w"), _BUFFER_BYTES)
    with stream, pq.ParquetWriter(stream, schema.table(table).arrow_schema(), **_options(table, files, settings)) as writer:
        for group in _groups(ReadAhead(rows, _READ_AHEAD_BYTES, _size), settings.row_group_mb * 1e6):
            writer.write_table(group, row_group_size=group.num_rows)
            written += group.num_rows
        writer.add_key_value_metadata({**encodings.said_schema(table), PROVENANCE_KEY.decode(): json.dumps(provenance, sort_keys=True)})
    return written


def _size(rows: pa.Table) -> int:
    return int(rows.nbytes)


def _groups(tables: Iterable[pa.Table], most_bytes: float) -> Iterator[pa.Table]:
    group: list[pa.Table] = []
    size = 0
    for rows in tables:
        if not rows.num_rows:
            continue
        group.append(rows)
        size += rows.nbytes
        if size >= most_bytes:
            yield pa.concat_tables(group)
            group, size = [], 0
    if group:
        yield pa.concat_tables(group)


def _options(table: str, files: Sequence[Source], settings: ReleaseSettings) -> dict[str, Any]:
    """Arguments of the writer."""
    names = schema.table(table).arrow_schema().names
    flat = {name for name in names if name in encodings.leaves(table)}
    ordered = takewhile(lambda key: {*names[: names.index(key)]} < flat, schema.table(table).key)
    distinct = {"video_id": len({f.video_id for f in files}), "clip_id": len({clip_id for f in files for clip_id in f.clips})}
    bloom = {name: {"ndv": max(1, distinct[name]), "fpp": _BLOOM_FALSE_POSITIVES} for name in settings.bloom_columns if name in flat}
    return {
        **encodings.encodings(table),
        "compression": settings.compression,
        "compression_level": settings.level,
        "data_page_size": int(settings.page_mb * 1e6),
        "max_rows_per_page": _MOST_ROWS_A_PAGE,
        "write_statistics": sorted(flat),
        "write_page_index": True,
        "write_page_checksum": True,
        "sorting_columns": [pq.SortingColumn(names.index(key)) for key in ordered],
        "bloom_filter_options": bloom or None,
    }


class _HashedFile(io.RawIOBase):
    """A file that knows the SHA-256 of what was written to it, and is durable when it is closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=_BUFFER_BYTES)
        self._sha256 = hashlib.sha256()
        self.size = 0

    @property
    def hexdigest(self) -> str:
        """Of all that was written."""
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        """It is for writing alone."""
        return True

    def write(self, content: Any) -> int:
        """Append."""
        self._sha256.update(content)
        written = self._file.write(content)
        self.size += written
        return written

    def close(self) -> None:
        """Make it durable."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        super().close()
