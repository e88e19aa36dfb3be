"""A walk in overlapping clips, each in the frame of its own first camera and in its own unit: what links of clips are found in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from egoworld_ops.contract import schema
from egoworld_ops.files.tables import make_provenance, provenance_at, read_table, write_table
from egoworld_ops.lake.lake import Run
from egoworld_ops.operators.rows import pose_columns
from egoworld_ops.vision.geometry import invert
from tests.boxes import pose
from tests.lakes import write_video

N_FRAMES = 60
PATH = [pose(8 * np.sin(i / 9), 40 * i / N_FRAMES, 3, (0.01 * i, 0.05 * np.sin(i / 5), 0.004 * i)) for i in range(N_FRAMES)]
"""`T_world_camera`, metres."""
UNITS, NOISE = (0.8, 2.5, 1.3), 2e-4
Row = dict[str, Any]


def write_walk(run: Run, name: str, broken: bool = False, n_frames: int = N_FRAMES, clip_s: float = 0.9) -> str:
    """A video of three clips, with two hands and an object in their places; returns its video_id. The third clip does not fit, if it is broken."""
    video_id = write_video(run, name, n_frames=n_frames, clip_s=clip_s, overlap_s=0.2)
    for number, folder in enumerate(sorted(run.video_folder(video_id).glob("clip_id=*"))):
        _rewrite(run, folder / "camera.parquet", _posed(number, at_rest=broken and number == 2))
        _rewrite(run, folder / "masks.parquet", _boxes(number))
    return video_id


def _posed(number: int, at_rest: bool) -> Callable[[list[Row]], list[Row]]:
    def change(rows: list[Row]) -> list[Row]:
        rng = np.random.default_rng(number)
        first = invert(PATH[rows[0]["frame_index"]])
        for row in rows:
            T = first @ (PATH[rows[0]["frame_index"]] if at_rest else PATH[row["frame_index"]])
            units = T[:3, 3] / UNITS[number] + rng.normal(0, NOISE, 3)
            row |= pose_columns(T[:3, :3], units * UNITS[number]) | {"position_units": units, "metres_per_unit": UNITS[number]}
        return rows

    return change


def _boxes(number: int) -> Callable[[list[Row]], list[Row]]:
    """Two hands and an object in their places; the second clip calls the object 12, and has an 11 elsewhere."""

    def change(rows: list[Row]) -> list[Row]:
        for row in rows:
            row |= {"bbox_px": [100.0 + 90 * row["track_id"] % 400 + row["frame_index"], 50, 60, 40], "area_px": 900}
        if number == 1:
            things = [row for row in rows if row["role"] == "object"]
            rows += [row | {"track_id": 11, "bbox_px": [400.0, 300, 60, 40]} for row in things]
            for row in things:
                row["track_id"] = 12
        return rows

    return change


def _rewrite(run: Run, path: Path, change: Callable[[list[Row]], list[Row]]) -> None:
    table, said = path.stem, provenance_at(path)
    assert said is not None
    rows = schema.from_rows(table, change(read_table(path, table).to_pylist()))
    write_table(path, table, rows, make_provenance(said["digest"], said["identity"], rows.num_rows, 0.1, run.run_id))
