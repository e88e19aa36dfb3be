"""What stages that read `hand_pose` would give if they read the hands of `fusion` instead, on rendered scenes whose truth is known.

    python -m benchmarks.bench_fused_inputs [SEED ...]

Each scene (the head walks past the table) goes through the laptop's networks. `object_pose` without a known size, `movement` with and without
object poses, and the scale of `camera` by hands are then computed twice: from `hand_pose`, and from its rows with the joints of `fusion` in space and
in the picture, filled hands among them. Nothing was chosen on these seeds. Scenes are kept under `.bench/fused`: one takes minutes to render.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.bench_depth_error import shots
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.rows import camera_of, pose_of
from egoworld_ops.synthetic import SceneConfig, load_truth, render_scene
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.geometry import align_similarity
from egoworld_ops.vision.lenses import project

KEPT = Path(__file__).resolve().parents[1] / ".bench" / "fused"
SEEDS = (71, 72)
FRAMES_A_SHOT = 36
READ = ("hand_pose", "fusion")
Found = dict[str, list[float]]
"""Values of each figure, pooled over shots."""


def scene(seed: int) -> Path:
    """The video of a seed."""
    path = KEPT / f"walk-{seed}.mp4"
    config = SceneConfig(seed=seed, frames_per_shot=FRAMES_A_SHOT, camera_path="walk", width=320, height=240)
    return path if path.exists() else render_scene(config, KEPT, path.stem)


def through(item: ClipInput, stage: str, tables: Mapping[str, pa.Table], backend: str = "") -> pa.Table:
    """The table of a stage of the laptop's backend, or of the one that is named."""
    operator = operators.load(stage, backend or operators.stages()[stage].default_backend)
    inputs = {name: tables[name] for name in operators.stages()[stage].inputs}
    return operator(operator.Settings(), 1).run(replace(item, tables=inputs))


def as_found(found: pa.Table, fused: pa.Table) -> pa.Table:
    """Rows of hand_pose with the joints of fusion where it has any; filled ones as not observed."""
    rows = {(row["frame_index"], row["hand"]): row for row in found.to_pylist()}
    for row in fused.to_pylist():
        if row["joints_m"] is not None:
            key = (row["frame_index"], row["hand"])
            base = rows.get(key) or next(iter(rows.values())) | {"hand": row["hand"]}
            taken = {name: row[name] for name in ("frame_index", "timestamp_s", "joints_m", "joints_wrist_m", "observed")}
            rows[key] = base | taken | {"joints_px": project(camera_of(base), np.array(row["joints_m"]))}
    return schema.from_rows("hand_pose", list(rows.values())) if rows else found


def figures(item: ClipInput, path: Path) -> Iterator[tuple[str, Found]]:
    """Of one shot: the values of each figure, from hand_pose and from fusion."""
    truth = load_truth(path.with_suffix(".truth"))
    things = {row["frame_index"]: row for row in truth.objects.to_pylist()}
    tables: dict[str, pa.Table] = {"camera": schema.empty("camera"), "depth": schema.empty("depth")}
    for stage in ("detections", "hand_pose", "fusion", "masks", "object_pose"):
        tables[stage] = through(item, stage, tables)
    hands = {"hand_pose": tables["hand_pose"], "fusion": as_found(tables["hand_pose"], tables["fusion"])}
    nothing = {"object_pose": schema.empty("object_pose")}
    unsized = replace(
        item, sidecar=Sidecar(objects=tuple(thing.model_copy(update={"dimensions_m": None}) for thing in item.sidecar.objects))
    )
    poses = {row["frame_index"]: np.array(row["T_world_camera"]).reshape(4, 4) for row in truth.camera.to_pylist()}
    for read, table in hands.items():
        known = {**tables, "hand_pose": table}
        rows = through(unsized, "object_pose", known).to_pylist()
        placed = [(T, pose_of(things[row["frame_index"]])) for row in rows if (T := pose_of(row)) is not None]
        off = [100 * abs(np.linalg.norm(T[:3, 3]) / np.linalg.norm(true[:3, 3]) - 1) for T, true in placed if true is not None]
        yield read, {"object_pose, size unknown: distance off, %": off}
        for name, more in (("movement", {}), ("movement without object poses", nothing)):
            moved = through(item, "movement", known | more).to_pylist()
            pairs = [(row, things[row["frame_index"]]) for row in moved]
            yield read, {f"{name}: held_by right": [float(row["held_by"] == (true["held_by"] or "none")) for row, true in pairs]}
            yield read, {f"{name}: state right": [float((row["state"] == "moving") == true["moving"]) for row, true in pairs]}
        yield read, {"camera: metres by hands, off, %": scale_off(through(item, "camera", known | nothing, "colmap"), poses)}


def scale_off(camera: pa.Table, poses: Mapping[int, np.ndarray]) -> list[float]:
    """By how much the unit's length is off, one value a clip; none where it has no scale."""
    rows: list[dict[str, Any]] = [row for row in camera.to_pylist() if row["x_m"] is not None]
    if len(rows) < 3:
        return []
    true = np.array([poses[row["frame_index"]][:3, 3] for row in rows])
    scale, _, _ = align_similarity(np.array([row["position_units"] for row in rows]), true)
    return [100 * abs(rows[0]["metres_per_unit"] / scale - 1)]


def main() -> int:
    pooled: dict[str, dict[str, list[float]]] = {}
    for seed in [int(seed) for seed in sys.argv[1:]] or SEEDS:
        path = scene(seed)
        for item in shots(path, load_truth(path.with_suffix(".truth"))):
            for read, found in figures(item, path):
                for name, values in found.items():
                    pooled.setdefault(name, {}).setdefault(read, []).extend(values)
                    said = f"{np.mean(values):.3g} of {len(values)}" if values else "none"
                    print(f"seed {seed}, clip {item.clip.clip_id}, {name} from {read}: {said}", flush=True)
    for name, by_table in pooled.items():
        said = ", ".join(f"from {read} {np.mean(by_table[read]):.3g} of {len(by_table[read])}" for read in READ if by_table.get(read))
        print(f"FIGURE fused inputs, {name}, mean: {said or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
