"""A folder of Parquet files as the synthetic scene has it: hands, objects, masks, camera, each if known, and scene.json. See docs/scoring.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.errors import InputError
from egoworld_ops.operators.rows import pose_of
from egoworld_ops.score import shapes
from egoworld_ops.score.truth import HandTruth, MaskTruth, ObjectTruth, ShapeTruth, Truth
from egoworld_ops.types import HANDS, Hand
from egoworld_ops.vision.rle import Rle

_TABLES = ("hands", "objects", "masks", "camera")
_HELD: dict[str | None, frozenset[Hand]] = {None: frozenset(), "none": frozenset(), "both": frozenset(HANDS)}
_HELD |= {hand: frozenset({hand}) for hand in HANDS}


def reads(path: Path) -> bool:
    """Whether it is such a folder."""
    return any((path / f"{name}.parquet").is_file() for name in _TABLES)


def read(path: Path, stream: str | None) -> Truth:
    """The truth in a folder. `stream` is not used: there is one camera.

    Raises:
        InputError: a file cannot be read, or lacks a column.
    """
    try:
        scene = json.loads((path / "scene.json").read_text("utf-8")) if (path / "scene.json").exists() else {}
        rows = {name: pq.read_table(path / f"{name}.parquet").to_pylist() for name in _TABLES if (path / f"{name}.parquet").exists()}
        label = str(scene.get("label", "object"))
        hands, objects, masks = (_made(rows, name, make) for name, make in _made_of(label).items())
        camera = {row["frame_index"]: np.array(row["T_world_camera"]).reshape(4, 4) for row in rows["camera"]} if "camera" in rows else None
        frames = frozenset(range(scene["n_frames"])) if "n_frames" in scene else _frames(rows)
        cuts = tuple(scene["cuts"]) if "cuts" in scene else None
        return Truth(str(path), frames, hands, objects, masks, camera, _shapes(scene, label), cuts)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise InputError(path, f"is no folder of truth: {error}", "Write it as docs/scoring.md says") from error


def _made_of(label: str) -> dict[str, Callable[[dict[str, Any]], Any]]:
    def mask(row: dict[str, Any]) -> MaskTruth:
        rle: Rle = {"size": [row["height"], row["width"]], "counts": row["rle_counts"]}
        return MaskTruth(row["frame_index"], row["role"], rle, (row.get("label") or label) if row["role"] == "object" else None)

    return {"hands": _hand, "objects": _object, "masks": mask}


def _made(rows: dict[str, list[dict[str, Any]]], name: str, make: Callable[[dict[str, Any]], Any]) -> Any:
    return tuple(map(make, rows[name])) if name in rows else None


def _hand(row: dict[str, Any]) -> HandTruth:
    if row["hand"] not in HANDS:
        raise ValueError(f"hand {row['hand']!r} in frame {row['frame_index']} is neither left nor right")
    px = row.get("joints_px")
    return HandTruth(
        row["frame_index"], row["hand"], np.array(row["joints_m"], np.float64), None if px is None else np.array(px, np.float64)
    )


def _object(row: dict[str, Any]) -> ObjectTruth:
    T = pose_of(row)
    if T is None:
        raise ValueError(f"the object's pose in frame {row['frame_index']} is not known")
    held = _HELD[row["held_by"]] if "held_by" in row else None
    return ObjectTruth(row["frame_index"], row["label"], T, row.get("visible", True), held, row.get("moving"))


def _shapes(scene: dict[str, Any], label: str) -> dict[str, ShapeTruth]:
    given = dict(scene.get("dimensions_m_by_label", {}))
    if "dimensions_m" in scene:
        given[label] = scene["dimensions_m"]
    return {name: shapes.box(np.array(size)) for name, size in given.items()}


def _frames(rows: dict[str, list[dict[str, Any]]]) -> frozenset[int]:
    return frozenset(row["frame_index"] for listed in rows.values() for row in listed)
