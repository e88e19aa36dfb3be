"""A real ball before a depth camera that moves: how far poses of `object_pose` are from the depth, which they do not read where the size is given.

    python -m benchmarks.bench_rgbd

The pictures, depth and masks are `v2d_rgbd` of ../shared/data (nvidia-isaac/video_to_data): a basketball in 7 pictures, of which each is three frames
of 90 from the one before. The ball's place is that of a sphere fitted to its depth. Which way it is turned nobody knows.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import trimesh

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth_maps import DepthMaps
from egoworld_ops.types import Frame
from tests.boxes import mask_row
from tests.egoworld_ops.operators.clips import clip_input

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "v2d_rgbd"
CAMERA = {"fx": 481.979, "fy": 481.170, "cx": 479.202, "cy": 292.254, "width": 960, "height": 600}
RADIUS_M, STEP, TRACK = 0.0965, 3, 10
KNOWN: Mapping[str, Mapping[str, Any]] = {"mesh": {"mesh": "ball.ply"}, "dimensions": {"dimensions_m": [2 * RADIUS_M] * 3}, "depth": {}}
"""What fixes the ball's size, and the sidecar's word on it."""


def balls(depth: pa.Table, masks: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, float]]:
    """Middle (3,) and radius, metres, of the sphere fitted to the depth within the mask (H, W) bool of each picture."""
    maps = DepthMaps(depth)
    for index in maps:
        held = maps.of(index)
        assert held is not None
        inner = cv2.erode(masks[index].astype(np.uint8), np.ones((15, 15), np.uint8))
        points = held.points_m()[cv2.resize(inner, held.z_m.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0]
        points = points[np.isfinite(points).all(1)]
        fit = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
        yield fit[:3], float(np.sqrt(fit[3] + fit[:3] @ fit[:3]))


def clip(folder: Path, about: Mapping[str, Any]) -> tuple[ClipInput, list[np.ndarray]]:
    """The pictures as a clip with true masks and a sidecar, and the masks (H, W) bool."""
    depth = {"folder": "depth", "encoding": "inverse", "fps": 90.0, "error_share": 0.01}
    said = {"camera": CAMERA | {"focal_error_share": 0.0}, "objects": [{"label": "ball"} | about], "depth": depth}
    (folder / "v.egoworld.json").write_text(json.dumps(said))
    pictures = [cv2.imread(str(path))[..., ::-1] for path in sorted(DATA.glob("left_*.png"))]
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127 for path in sorted(DATA.glob("masks_*.png"))]
    frames = [Frame(i, i / 30, np.ascontiguousarray(rgb)) for i, rgb in enumerate(pictures)]
    item = clip_input(folder / "v.mp4", 0, len(frames), CAMERA["width"], CAMERA["height"], lambda: iter(frames))  # type: ignore[arg-type]
    rows = [mask_row(i, TRACK, "object", mask, "ball") for i, mask in enumerate(masks)]
    return replace(item, tables={"masks": schema.from_rows("masks", rows), "hand_pose": schema.empty("hand_pose")}), masks


def main() -> int:
    if not DATA.exists():
        print(f"{DATA} is not there")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "depth").mkdir()
        for path in DATA.glob("depth_*.png"):
            shutil.copy(path, folder / "depth")
        trimesh.creation.icosphere(4, RADIUS_M).export(folder / "ball.ply")
        for source, about in KNOWN.items():
            item, masks = clip(folder, about)
            depth = _run("depth", "given", item)
            true = list(balls(depth, masks))
            rows = _run("object_pose", "classical", replace(item, tables={**item.tables, "depth": depth})).to_pylist()
            _say(source, rows, true)
    diameters_mm = [2e3 * radius_m for _, radius_m in true]
    print(f"FIGURE rgbd, depth: diameters of the ball {min(diameters_mm):.1f} to {max(diameters_mm):.1f} mm in {len(true)} pictures")
    return 0


def _run(stage: str, backend: str, item: ClipInput) -> pa.Table:
    operator = operators.load(stage, backend)
    return operator(operator.Settings(), 1).run(item)


def _say(source: str, rows: Sequence[Mapping[str, Any]], true: Sequence[tuple[np.ndarray, float]]) -> None:
    posed = [(row, true[row["frame_index"]][0]) for row in rows if row["z_m"] is not None]
    off = [abs(row["z_m"] / middle_m[2] - 1) for row, middle_m in posed]
    aside_mm = [1e3 * float(np.hypot(row["x_m"] - middle_m[0], row["y_m"] - middle_m[1])) for row, middle_m in posed]
    told = [error for (row, _), error in zip(posed, off, strict=True) if error <= 2 * (row["depth_error_share"] or 0)]
    reasons = sorted({row["reason_class"] for row in rows if row["reason_class"]})
    print(
        f"FIGURE rgbd, size by {source}: {len(posed)} of {len(rows)} posed, {sum(row['converged'] for row, _ in posed)} converged; depth off by "
        f"{100 * np.median(off):.1f} %, at most {100 * max(off):.1f} %, within two stated errors {len(told)} of {len(posed)}; aside by "
        f"{np.median(aside_mm):.1f} mm; reasons {', '.join(reasons) or 'none'}"
        if posed
        else f"FIGURE rgbd, size by {source}: none of {len(rows)} posed; reasons {', '.join(reasons)}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
