"""How the columns of the contract are stored in Parquet, in clip files and in releases alike, so that every reader can read them.

Two of the contract's types are other ones in a file (docs/adr/0020). Lists of fixed size are lists of any size there: pyarrow below 26 cannot
read a null among the former. The columns of the folders' names (`video_id=`, `clip_id=`) are dictionaries: pandas and `pyarrow.parquet.read_table`
take those of the folders for such, and up to pyarrow 24 refuse a file that has others. `as_contract` gives the contract's types back.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from egoworld_ops.contract import schema

ARROW_SCHEMA_KEY = "ARROW:schema"
"""Where a Parquet file says what Arrow types its columns have: https://arrow.apache.org/docs/cpp/parquet.html, "Serialization details"."""
_FOLDER_WORD = pa.dictionary(pa.int32(), pa.string())
_LONG_WORDS = ("rle.counts",)
"""Columns whose values never repeat: a dictionary of them would only cost time and space."""


@lru_cache
def encodings(table: str) -> dict[str, Any]:
    """Arguments of pyarrow's writer: dictionary encoding for text, plain encoding for integers, BYTE_STREAM_SPLIT for floats.

    Compared with pyarrow's default, a dictionary for every column, clip files of 30 s take 36 % less space, half the time to write and a
    quarter less to read (zstd). The encodings are in Parquet since 2020 (format 2.8).
    """
    found = leaves(table)
    words = [path for path, kind in found.items() if pa.types.is_string(kind) and path not in _LONG_WORDS]
    floats = [path for path, kind in found.items() if pa.types.is_floating(kind)]
    return {"use_dictionary": words, "use_byte_stream_split": floats, "store_schema": False}


@lru_cache
def file_schema(table: str) -> pa.Schema:
    """The Arrow schema that files of a table say they have."""
    contract = schema.table(table).arrow_schema()
    return pa.schema([f.with_type(_in_file(f.name, f.type)) for f in contract])


@lru_cache
def said_schema(table: str) -> dict[str, str]:
    """What the writer adds to a file so that it says so, beside the contract's own words: Parquet itself has neither of the contract's types."""
    said = base64.b64encode(file_schema(table).serialize().to_pybytes()).decode()
    return {k.decode(): v.decode() for k, v in schema.table(table).arrow_schema().metadata.items()} | {ARROW_SCHEMA_KEY: said}


def as_contract(table: str, rows: pa.Table) -> pa.Table:
    """Rows as they were read from a file of this table, in the types of the contract; columns of types that no such file has stay as they are.

    Raises:
        ValueError: a list is not as long as the contract has it.
    """
    columns, fields = rows.columns, list(rows.schema)
    for i, field in enumerate(fields):
        kind, stored = _other_types(table).get(field.name, (None, None))
        if field.type == stored:
            try:
                columns[i], fields[i] = columns[i].cast(kind), field.with_type(kind)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{field.name} has lists that are not {kind}") from error
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, rows.schema.metadata))


@lru_cache
def _other_types(table: str) -> dict[str, tuple[pa.DataType, pa.DataType]]:
    """By column: the type in the contract, and that in a file where it is another one."""
    pairs = zip(schema.table(table).arrow_schema(), file_schema(table), strict=True)
    return {f.name: (f.type, stored.type) for f, stored in pairs if f.type != stored.type}


def _in_file(name: str, kind: pa.DataType) -> pa.DataType:
    return _FOLDER_WORD if name in schema.PARTITION_KEYS else _of_any_size(kind)


def _of_any_size(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_of_any_size(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_of_any_size(field.type)) for field in kind])
    return kind


def leaves(table: str) -> dict[str, pa.DataType]:
    """The leaves of a table's columns, by their path in a Parquet schema, in order."""
    return {path: kind for column in schema.table(table).columns for path, kind in _leaves(column.name, column.type)}


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind
