"""One table in one Parquet file: written whole, sealed, checked against the contract, and saying what it was made from."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.contract import encodings, schema
from egoworld_ops.errors import ContractError, unreadable
from egoworld_ops.files import footer, regular, seal
from egoworld_ops.files.whole import write_bytes

PROVENANCE_KEY = b"egoworld.provenance"
PARQUET: Mapping[str, Any] = {"compression": "zstd", "small_compression": "snappy", "small_bytes": 1_000_000, "page_checksums": True}
"""How clip files are written. Below `small_bytes` in memory, setting up zstd for each column costs more time than it saves bytes."""
_SMALL_BYTES = 65_536
"""Up to this size what was parsed is kept, for a file that is read again and holds the same bytes."""
_DELETE_IT = "Delete the file and run the stage again"


def write_table(path: Path, name: str, rows: pa.Table, provenance: Mapping[str, Any], validated: bool = False) -> None:
    """Write rows of table `name`, checked against the contract, with their provenance in the same file.

    Args:
        validated: the caller has checked them.

    Raises:
        ContractError: the rows break the data contract.
    """
    if not validated:
        from egoworld_ops.contract import validation

        validation.validate(name, rows)
    said = encodings.said_schema(name) | {PROVENANCE_KEY.decode(): json.dumps(provenance, sort_keys=True)}
    sink = pa.BufferOutputStream()
    options = {"compression": _compression(rows), "write_page_checksum": PARQUET["page_checksums"], **encodings.encodings(name)}
    with pq.ParquetWriter(sink, rows.schema, **options) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({**said, seal.KEY: seal.OPEN})
    write_bytes(path, seal.sealed(sink.getvalue().to_pybytes()))


def _compression(rows: pa.Table) -> str:
    return str(PARQUET["small_compression" if rows.nbytes < PARQUET["small_bytes"] else "compression"])


def read_table(path: Path, name: str) -> pa.Table:
    """Rows of table `name` from one file; see `read_result`."""
    return read_result(path, name)[0]


def read_result(path: Path, name: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Rows of table `name` and what the same file says of their origin, nothing where it says nothing.

    Args:
        columns: those that are read, in the contract's order; all if None.

    Raises:
        ContractError: the file is not there, is not Parquet, is damaged, or is not of this contract.
        StorageUnavailable: it is there and cannot be read now.
    """
    rows, said = read_any(path, name, columns)
    if rows.schema.names != list(columns or schema.table(name).arrow_schema().names):
        raise ContractError(path, f"holds columns {rows.schema.names}, not those of table {name}", _DELETE_IT)
    return rows, said


def read_any(path: Path, name: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """As `read_result`, of whatever version of the contract, which may have other columns."""
    wanted = None if columns is None else tuple(columns)
    try:
        content = regular.read_bytes(path)
        found = _parse_small(content, name, wanted) if len(content) <= _SMALL_BYTES else _parse(content, name, wanted)
        if found is None:
            raise ContractError(path, "is damaged: its bytes are not those that were written", _DELETE_IT)
        rows, said = found[0], json.loads(found[1])
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow's own errors of a broken file are OSErrors without a number
        if isinstance(error, OSError) and error.errno is not None and (away := unreadable(error, path)) is not None:
            raise away from error
        raise ContractError(path, f"cannot be read as Parquet: {error}", _DELETE_IT) from error
    return rows, said if isinstance(said, dict) else {}


def _parse(content: bytes, name: str, columns: tuple[str, ...] | None) -> tuple[pa.Table, bytes] | None:
    """The rows of a file's bytes, and its provenance as JSON; None where its seal is broken."""
    if (whole := seal.is_whole(content)) is False:
        return None
    # not pq.read_table: small files cost several times as much there
    with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=not whole) as file:
        rows = encodings.as_contract(name, file.read(columns, use_threads=False))
        return rows, (file.metadata.metadata or {}).get(PROVENANCE_KEY, b"{}")


@lru_cache(maxsize=64)
def _parse_small(content: bytes, name: str, columns: tuple[str, ...] | None) -> tuple[pa.Table, bytes] | None:
    """As `_parse`. What a video's stages read again and again is parsed once; it is read each time, so that nothing stands in for a file."""
    return _parse(content, name, columns)


def provenance_at(path: str | Path) -> Mapping[str, Any] | None:
    """What a file says of its origin, to be read only; None where there is no such file or it is not a whole file of the lake.

    Raises:
        StorageUnavailable: it is there and cannot be read now.
    """
    try:
        return footer.provenance(path)
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        return None


def digest_at(path: str | Path) -> str | None:
    """Digest of the result a file holds; None where there is none.

    Raises:
        StorageUnavailable: as `provenance_at`.
    """
    return (provenance_at(path) or {}).get("digest")


def make_provenance(
    digest: str, identity: Mapping[str, Any], rows: int, seconds: float, run_id: str, made: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Provenance of a file: what its result depends on, and what making it took.

    Args:
        made: what else is known of that: `worker`, `began_at`, `waited_s`, `device_s`; see `lake/timeline.py`.
    """
    return {
        "digest": digest,
        "identity": dict(identity),
        "rows": rows,
        "seconds": round(seconds, 6),
        "host": socket.gethostname(),
        "run_id": run_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **made,
    }
