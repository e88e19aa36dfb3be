"""The page of documentation about the data contract: generated, so that it cannot differ from the code."""

from __future__ import annotations

import inspect

import pyarrow as pa

from egoworld_ops.contract import links, world
from egoworld_ops.contract.schema import CONVENTIONS, SCHEMA_VERSION, TABLES, Column, Table
from egoworld_ops.video import calibrations, sidecar
from egoworld_ops.video.sidecar_depth import SidecarDepth
from egoworld_ops.video.sidecar_trajectory import SidecarTrajectory


def contract_page() -> str:
    """`docs/data_contract.md`: conventions, every table, and the sidecar's format."""
    parts = [
        "# The data contract",
        "",
        "Generated from `egoworld_ops/contract/`, the stages and `egoworld_ops/video/sidecar.py` by `make docs`. "
        f"Schema version {SCHEMA_VERSION}.",
        "",
        "## Conventions",
        "",
        *(f"- **{k.replace('_', ' ')}**: {v}" for k, v in CONVENTIONS.items()),
        "",
        "In the files, lists of fixed length are lists of any length, which every reader of Parquet can read, and `video_id` and `clip_id` are",
        "dictionaries of words (in pandas: categories), as pandas and pyarrow take the folders `video_id=` and `clip_id=` for such.",
        "`pyarrow.dataset` is told not to read the folders' names: `dataset(path)`, without `partitioning`; the columns are in the files.",
    ]
    for t in TABLES.values():
        parts += _table(t)
    parts += ["", "# Views of the world", "", inspect.cleandoc(world.__doc__ or "").partition("\n\n")[2], ""]
    parts += [
        "They are views of `egoworld.duckdb` (of the latest run, and in schemas `runs`, `release` and `releases`) and files of every export."
    ]
    for view in world.VIEWS.values():
        parts += _table(view.table)
    parts += ["", "# Links of clips", "", inspect.cleandoc(links.__doc__ or "").partition("\n\n")[2], ""]
    parts += ["They are views of `egoworld.duckdb` (of the latest run, and in schema `runs`), and tables of every release and export."]
    for link in links.LINKS.values():
        parts += _table(link.table)
    return "\n".join([*parts, *_sidecar()]) + "\n"


def _table(t: Table) -> list[str]:
    parts = ["", f"## {t.name}", "", t.doc, "", f"Key and order: {', '.join(f'`{k}`' for k in t.key)}.", ""]
    parts += ["| column | type | unit | frame | null | values | meaning |", "| --- | --- | --- | --- | --- | --- | --- |"]
    return parts + [_row(c) for c in t.columns]


def _sidecar() -> list[str]:
    title, _, form = inspect.cleandoc(sidecar.__doc__ or "").partition("\n\n")
    parts = ["", "## Sidecar", "", title, "", "```text", form, "```"]
    parts_of_it = (
        sidecar.SidecarCamera,
        sidecar.SidecarObject,
        sidecar.Prompt,
        sidecar.SidecarPicture,
        SidecarTrajectory,
        SidecarDepth,
        sidecar.SidecarHands,
    )
    for model in parts_of_it:
        parts += ["", f"`{model.__name__.removeprefix('Sidecar').lower()}`: {inspect.cleandoc(model.__doc__ or '')}"]
    parts += ["", "`egoworld calibrate import FILE VIDEO` writes `camera` from the calibration files of other tools:", ""]
    return [*parts, *(f"- {calibrations.described(name)}" for name in calibrations.formats())]


def _row(c: Column) -> str:
    bounds = [f">= {c.minimum:g}" if c.minimum is not None else "", f"<= {c.maximum:g}" if c.maximum is not None else ""]
    values = ", ".join(c.allowed) or " ".join(b for b in bounds if b)
    cells = [f"`{c.name}`", f"`{_type_name(c.type)}`", c.unit, c.frame, "yes" if c.nullable else "", values, c.doc]
    return "| " + " | ".join(cells) + " |"


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{_type_name(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"{_type_name(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return "struct(" + ", ".join(f"{f.name} {_type_name(f.type)}" for f in kind) + ")"
    return str(kind)
