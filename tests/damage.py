"""Ways to damage a file of a lake. Each replaces it by a new file, because it may be linked from elsewhere."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egoworld_ops.contract import schema
from egoworld_ops.files import seal
from egoworld_ops.files.tables import PROVENANCE_KEY, read_result, read_table, write_table
from egoworld_ops.hashing import sha256_of


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x01
    rewrite(path, bytes(content))


def swap(path: Path, column: str, values: pa.Array) -> None:
    """Other values in one column, with the same provenance."""
    rows, known = read_result(path, path.stem)
    index = rows.schema.names.index(column)
    write_table(path, path.stem, rows.set_column(index, rows.schema.field(index), values), known, validated=True)


def reword(path: Path, **change: object) -> None:
    """The same rows with another provenance."""
    rows, known = read_result(path, path.stem)
    write_table(path, path.stem, rows, known | change, validated=True)


def plus(path: Path, column: str, by: int) -> None:
    rows = read_table(path, path.stem)
    swap(path, column, pc.add(rows[column], by).cast(rows.schema.field(column).type).combine_chunks())


def in_a_page(path: Path) -> int:
    """The middle of a column's pages."""
    column = pq.read_metadata(path).row_group(0).column(8)
    return column.data_page_offset + column.total_compressed_size // 2


def write_unsealed(path: Path, rows: pa.Table, known: object, version: str = schema.SCHEMA_VERSION) -> None:
    """A file as an older version of the lake wrote it."""
    metadata = {k: v for k, v in (rows.schema.metadata or {}).items() if k != seal.KEY.encode()}
    metadata |= {b"egoworld.schema_version": version.encode(), PROVENANCE_KEY: json.dumps(known).encode()}
    path.unlink()
    pq.write_table(rows.replace_schema_metadata(metadata), path, write_page_checksum=True)


def false_statistics(path: Path) -> None:
    """Another maximum frame in the footer, which stays well formed and has a valid seal."""
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    metadata = pq.read_metadata(path)
    greatest = metadata.row_group(0).column(2).statistics.max
    footer = content[start:].replace(struct.pack("<q", greatest), struct.pack("<q", greatest - 5))
    rewrite(path, seal.sealed(content[:start] + footer.replace(metadata.metadata[seal.KEY.encode()], seal.OPEN.encode())))


def with_foreign_schema(path: Path) -> None:
    rewrite(path, b"")
    pq.write_table(pa.table({"video_id": ["a"], "x": [1]}), path)


def of_other_types(path: Path) -> None:
    """The columns of the contract, all of words."""
    rows = read_table(path, path.stem)
    write_unsealed(path, pa.table({name: pa.array([], pa.string()) for name in rows.schema.names}), {})


def with_nulls(path: Path, column: str) -> None:
    """Nulls in a column, which the file declares nullable."""
    rows, known = read_result(path, path.stem)
    index = rows.schema.names.index(column)
    field = rows.schema.field(index).with_nullable(True)
    write_unsealed(path, rows.set_column(index, field, pa.nulls(rows.num_rows, field.type)), known)


def of_an_older_schema(path: Path) -> None:
    write_unsealed(path, *read_result(path, path.stem), version="0")


def made_again(path: Path) -> None:
    """A result of another version of its operator, with everything downstream unchanged."""
    _, known = read_result(path, path.stem)
    identity = known["identity"] | {"operator": known["identity"]["operator"] | {"version": "2"}}
    reword(path, identity=identity, digest=sha256_of(identity))


def without_a_row_that_is_referred_to(path: Path) -> None:
    rows, known = read_result(path, path.stem)
    write_table(path, path.stem, rows.slice(1), known | {"rows": rows.num_rows - 1}, validated=True)
