"""Faults planted in finished tables, and which warnings each raises, on synthetic and on real video; and what clean tables of many seeds raise.

    python -m benchmarks.bench_planted_faults [NAMES OF VIDEOS] [--seeds 20]

Videos are the rendered kitchen, and of ../shared/data a view of `handpose3d_stereo` with its true intrinsics and the blocks of SAM 2 (no
intrinsics), whole, through the chain of profile `laptop`. Faults of objects are planted where a pose of one is verified. A fault passes where it
raises, beyond what the clean video raises, the warnings meant for it and no other; `tests/planted.py` says how each is planted. Clean seeds are
rendered truth with noise (masks as they are, joints off by 1 % of a hand, poses by 2 mm and 1 degree), 160 by 120 pixels, without decoding. Exits
with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.cli.demo import EXAMPLE
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.files.tables import read_table
from egoworld_ops.raw import register
from egoworld_ops.settings import load_settings
from egoworld_ops.synthetic import SceneConfig
from egoworld_ops.synthetic.config import PlanName
from gpu_workers.inline import InlinePool
from tests.held_scenes import TRACKS, Errors, clip_input, render_shot
from tests.planted import FAULTS, UNTOLD, Known, warned, with_fault
from tests.rows import detection_row

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
STEREO = DATA / "handpose3d_stereo"
VIDEOS = {
    "kitchen": EXAMPLE,
    "stereo": STEREO / "cam1_test.mp4",
    "blocks": DATA / "sam2_03_blocks.mp4",
    "hand": DATA / "dexretarget_human_hand_video.mp4",
}
PLANS: tuple[PlanName, ...] = ("carry", "hold", "near")
FRAMES = 30
PINHOLE: dict[str, Any] = {"lens_model": "pinhole", "distortion": [], "focal_error_share": 0.0}
NOISE = Errors(joints_share=0.01, hand_depth_share=0.05)


def main() -> int:
    """Print a line for each fault and video, and for the clean seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", default=["kitchen", "stereo", "blocks"], help=f"of {', '.join(VIDEOS)}")
    parser.add_argument("--seeds", type=int, default=20)
    wanted = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted.videos:
            if not VIDEOS[name].exists():
                print(f"{name}: {VIDEOS[name]} is not there")
                continue
            missed += [f"{name}: {fault}" for fault in _plant(name, _process(name, Path(folder) / name), Path(folder))]
        missed += _clean(wanted.seeds, Path(folder))
    if missed:
        print("MISSED " + "; ".join(missed))
    return 1 if missed else 0


def _plant(name: str, clips: list[Known], folder: Path) -> Iterator[str]:
    """Prints what each fault raises; gives the names of those that raise anything else than they should."""
    usual = _warned(clips, folder)
    print(f"== {name}, {sum(c.end - c.start for c in clips)} frames; as it is: {', '.join(sorted(usual)) or 'no warning'}")
    told = 0
    faults = [f for f in (*FAULTS, *UNTOLD) if all(any(_stands(c.tables[s]) for c in clips) for s in f.needs)]
    for fault in faults:
        found = _warned([with_fault(clip, fault, n) for n, clip in enumerate(clips)], folder) - usual
        ok = fault.warns <= found <= fault.warns | fault.may
        told += ok and bool(fault.warns)
        print(f"{'    ' if ok else 'NOT '}{fault.name:<54} {', '.join(sorted(found)) or 'nothing'}")
        if not ok:
            yield fault.name
    print(f"FIGURE planted faults on {name}: {told} of {sum(bool(f.warns) for f in faults)} raise exactly the warning meant for them")


def _stands(table: pa.Table) -> bool:
    """Whether there is a row to plant a fault in: of poses of objects, one that is verified."""
    return bool(pc.any(table["converged"]).as_py()) if "converged" in table.schema.names else table.num_rows > 0


def _warned(clips: list[Known], folder: Path) -> set[str]:
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        return warned(clips, place)
    finally:
        shutil.rmtree(place)


def _process(name: str, folder: Path) -> list[Known]:
    """The tables of a video's clips."""
    folder.mkdir()
    path = folder / VIDEOS[name].name
    shutil.copyfile(VIDEOS[name], path)
    if name == "kitchen":
        shutil.copyfile(EXAMPLE.with_suffix(".egoworld.json"), path.with_suffix(".egoworld.json"))
    if name == "stereo":
        path.with_suffix(".egoworld.json").write_text(json.dumps({"camera": _intrinsics(STEREO / "c1.dat")}))
    settings = load_settings("laptop").model_copy(update={"lake": folder / "lake"})
    [video_id] = register.register(settings.lake, [path]).video_ids
    run = configuration.open_run(settings)
    for stage, result in pipeline.process(run, [video_id], settings, InlinePool(threads=2)):
        assert result.state == "computed", (stage, result)
    found = []
    for clip in read_table(run.video_table("clips", video_id), "clips").to_pylist():
        tables = {s: read_table(run.clip_table(s, video_id, clip["clip_id"]), s) for s in operators.stages()}
        found.append(Known(tables, clip["frame_start"], clip["frame_end"]))
    return found


def _intrinsics(path: Path) -> dict[str, Any]:
    """Of a file of handpose3d; its distortion, fitted to a few boards, folds within the picture, and is small: it is left out."""
    fx, _, cx, _, fy, cy, *_ = (float(word) for line in path.read_text().splitlines()[1:4] for word in line.split())
    return {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": 720, "height": 720}


def _clean(seeds: int, folder: Path) -> list[str]:
    """What clean tables raise, of one shot a seed."""
    warnings: dict[int, set[str]] = {}
    for seed in range(seeds):
        config = SceneConfig(seed=100 + seed, width=160, height=120, frames_per_shot=FRAMES, plan=PLANS[seed % len(PLANS)])
        tables = _true_tables(config, seed)
        warnings[seed] = {w for w in _warned([Known(tables, 0, FRAMES)], folder) if not w.startswith("mapping")}
    noisy = {seed: found for seed, found in warnings.items() if found}
    for seed, found in noisy.items():
        print(f"NOT  clean seed {100 + seed} ({PLANS[seed % len(PLANS)]}): {', '.join(sorted(found))}")
    print(f"FIGURE clean seeds that raise no warning: {seeds - len(noisy)} of {seeds}")
    return [f"clean seed {100 + seed}" for seed in noisy]


def _true_tables(config: SceneConfig, seed: int) -> dict[str, pa.Table]:
    shot = render_shot(config, seed % 3)
    item = clip_input(shot, NOISE, seed)
    hands = [_whole(row) for row in item.tables["hand_pose"].to_pylist()]
    found = [_found(row) for row in hands]
    boxes = {r["frame_index"]: r["bbox_px"] for r in item.tables["masks"].to_pylist() if r["role"] == "object"}
    for index, box in boxes.items():
        objects = {"role": "object", "track_id": TRACKS["object"], "label": "box", "box_px": box, "source": "sidecar"}
        found.append(detection_row(index, **objects, points_px=None, landmarks_m=None, owner=None))
    poses = [row | PINHOLE for row in item.tables["object_pose"].to_pylist()]
    made = {"hand_pose": hands, "detections": found, "object_pose": poses}
    empty = {stage: schema.empty(stage) for stage in operators.stages() if stage not in ("movement", "contacts", "mapping")}
    tables = {**empty, **item.tables, **{stage: schema.from_rows(stage, rows) for stage, rows in made.items() if rows}}
    smoothing = operators.load("fusion", "smoothing")
    return {**tables, "fusion": smoothing(smoothing.Settings(), 1).run(replace(item, tables=tables))}


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    """A pose of hands with the columns that depend on its joints; the wrist frame has the camera's axes."""
    joints_m = np.array(row["joints_m"])
    wrist = dict(zip(("x_m", "y_m", "z_m"), joints_m[0].tolist(), strict=True)) | {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0}
    return row | wrist | PINHOLE | {"joints_wrist_m": (joints_m - joints_m[0]).tolist()}


def _found(row: dict[str, Any]) -> dict[str, Any]:
    points = np.array(row["joints_px"])
    box = [*points.min(0), *np.ptp(points, axis=0)]
    hand = {"role": f"hand_{row['hand']}", "track_id": TRACKS[f"hand_{row['hand']}"], "owner": "wearer", "source": "tracked"}
    return detection_row(row["frame_index"], **hand, points_px=points, box_px=box, score=0.9)


if __name__ == "__main__":
    sys.exit(main())
