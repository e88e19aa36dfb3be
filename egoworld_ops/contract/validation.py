"""Whether rows keep the data contract. What the contract is stands in `schema.py`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egoworld_ops.contract import schema


def validate(name: str, rows: pa.Table) -> None:
    """Raise ContractError, listing everything in which `rows` breaks the contract of table `name`."""
    if wrong := list(violations(name, rows)):
        raise schema.broken(name, "; ".join(wrong))


def violations(name: str, rows: pa.Table) -> Iterable[str]:
    """Each way in which `rows` breaks the contract, as a sentence. Empty where it does not."""
    contract = schema.table(name)
    want = contract.arrow_schema()
    if rows.schema.names != want.names:
        yield f"columns {rows.schema.names}, want {want.names}"
        return
    wrong_types = [f"{f.name} is {rows.schema.field(f.name).type}, want {f.type}" for f in want if rows.schema.field(f.name).type != f.type]
    if wrong_types:
        yield from wrong_types
        return
    for column in contract.columns:
        yield from _column_violations(column, rows[column.name])
    yield from _quaternion_violations(rows)
    yield from _reason_violations(rows)
    yield from _key_violations(contract, rows)


def _column_violations(column: schema.Column, values: pa.ChunkedArray) -> Iterable[str]:
    if not column.nullable and values.null_count:
        yield f"{column.name} has {values.null_count} nulls"
    present = values.drop_null() if values.null_count else values
    if not len(present):
        return
    if column.allowed and (strange := set(pc.unique(present).to_pylist()) - set(column.allowed)):
        yield f"{column.name} has values {sorted(strange)}, want one of {list(column.allowed)}"
    if column.length is not None and (strange := set(pc.unique(pc.list_value_length(present)).to_pylist()) - {column.length}):
        yield f"{column.name} has lists of {sorted(strange)} values, want {column.length}"
    flat = _flat_floats(present)
    if flat is not None and not np.isfinite(flat).all():
        yield f"{column.name} has {int((~np.isfinite(flat)).sum())} values that are not finite"
    if column.minimum is None and column.maximum is None:
        return
    least, most = pc.min_max(present).as_py().values()
    if column.minimum is not None and least < column.minimum:
        yield f"{column.name} has values below {column.minimum:g}"
    if column.maximum is not None and most > column.maximum:
        yield f"{column.name} has values above {column.maximum:g}"


def _flat_floats(values: pa.ChunkedArray) -> np.ndarray | None:
    flat = values.combine_chunks()
    while pa.types.is_fixed_size_list(flat.type) or pa.types.is_list(flat.type):
        flat = flat.flatten()
    return flat.to_numpy(zero_copy_only=False) if pa.types.is_floating(flat.type) else None


def _quaternion_violations(rows: pa.Table) -> Iterable[str]:
    names = ["qw", "qx", "qy", "qz"]
    if "qw" not in rows.schema.names or rows.num_rows == 0:
        return
    nulls = np.stack([rows[n].is_null().to_numpy() for n in names])
    if (nulls.any(0) != nulls.all(0)).any():
        yield "quaternions are null in part"
        return
    q = np.stack([rows[n].drop_null().to_numpy() for n in names])
    if q.size and (np.abs(np.linalg.norm(q, axis=0) - 1) > 1e-6).any():
        yield "quaternions are not of unit norm"
    if q.size and (q[0] < 0).any():
        yield "quaternions with qw < 0"


def _reason_violations(rows: pa.Table) -> Iterable[str]:
    if not {"reason", "reason_class"} <= set(rows.schema.names):
        return
    if not rows["reason"].is_null().equals(rows["reason_class"].is_null()):
        yield "reason_class is null where reason is not, or the other way round"


def _key_violations(contract: schema.Table, rows: pa.Table) -> Iterable[str]:
    if rows.num_rows < 2:
        return
    keys = rows.select(list(contract.key)).combine_chunks()
    ordered = schema.sort(contract.name, keys)
    repeated = [pc.equal(column.slice(1), column.slice(0, len(column) - 1)).fill_null(True).to_numpy() for column in ordered.columns]
    if np.logical_and.reduce(repeated).any():
        yield f"key {contract.key} is not unique"
    elif not keys.equals(ordered):
        yield f"rows are not sorted by {contract.key}"
