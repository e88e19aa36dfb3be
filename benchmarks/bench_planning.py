"""The cost of planning: 4,000 clips with a fallback, a touched raw file and mesh, and a clip without a result in a lake of many runs.

    python -m benchmarks.bench_planning

Counts are of files that the interpreter opens. Times are ratios to planning the same clips in the simplest way: all of a video at once, with one
run in the lake. Nothing is decoded or computed. Exits with 1 above a limit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from egoworld_assets.chain.planning import Planner
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.lake.lake import Run
from egoworld_ops.settings import Settings
from egoworld_ops.video.sidecar import sidecar_path
from tests import finished
from tests.lakes import write_manifest
from tests.opens import opened

N_CLIPS, N_RUNS, N_TOUCHED, N_MISSING = 4000, 101, 500, 250
STAGE = "detections"
LIMIT_ONE_BY_ONE = 3.0
"""Planning clip by clip, as under a fallback, against planning the video at once."""
LIMIT_RUNS = 8.0
"""A missing clip with 101 runs in the lake that have the video, against one."""


def video(folder: Path, n_clips: int) -> tuple[Settings, Run, str]:
    settings = finished.settings_in(folder)
    return settings, *finished.registered_video(settings, n_frames=24 * n_clips, clip_s=1.0)


def planned(planner: Planner, video_id: str) -> list[str]:
    return [task.clip.clip_id for task in planner.plan(video_id) if isinstance(task, ClipTask)]


def seconds(run: Run, video_id: str, settings: Settings) -> tuple[float, list[str]]:
    started = time.perf_counter()
    clip_ids = planned(Planner(run, STAGE, settings), video_id)
    return time.perf_counter() - started, clip_ids


def under_fallback(folder: Path) -> float:
    """Ratio of planning clip by clip to planning at once; also that a whole stage under a fallback reads the manifest a few times."""
    settings, run, video_id = video(folder, N_CLIPS)
    at_once_s, clip_ids = seconds(run, video_id, settings)
    planner = Planner(run, STAGE, settings)
    started = time.perf_counter()
    with opened() as opens:
        again = [task for clip_id in clip_ids for task in planner.plan(video_id, clip_id)]
    one_by_one_s = time.perf_counter() - started
    if len(again) != len(clip_ids) or any(isinstance(task, StageResult) for task in again):
        raise RuntimeError("not every clip was planned again")
    manifest = sum(opens[str(run.video_table(name, video_id))] for name in ("videos", "clips"))
    ratio = one_by_one_s / at_once_s
    print(f"FIGURE {len(clip_ids)} clips planned one by one: {ratio:.2f} x as long as at once ({one_by_one_s:.1f} s)")
    print(f"FIGURE {len(clip_ids)} clips planned one by one: manifest read {manifest / 2:.0f} time(s)")
    return ratio


def touched(folder: Path) -> None:
    """Reads of a raw file and a mesh of 500 clips after a `touch`."""
    settings, run, video_id = video(folder, N_TOUCHED)
    raw, mesh = settings.raw / "v.mp4", settings.raw / "cup.obj"
    mesh.write_bytes(b"v 0 0 0\n")
    sidecar_path(raw).write_text(json.dumps({"objects": [{"label": "cup", "mesh": mesh.name}]}))
    for what in ("after a touch", "again"):
        if what == "after a touch":
            os.utime(raw, ns=(1, 1))
        with opened() as opens:
            n = len(planned(Planner(run, STAGE, settings), video_id))
        print(f"FIGURE {n} clips planned {what}: raw file read {opens[str(raw)]} time(s), mesh {opens[str(mesh)]}")
        if opens[str(raw)] + opens[str(mesh)] > (2 if what == "after a touch" else 0):
            raise RuntimeError("a file was read more than once")


def runs_in_the_lake(folder: Path) -> float:
    """Ratio of the costs of a missing clip."""
    settings, run, video_id = video(folder, N_MISSING)
    alone_s, _ = seconds(run, video_id, settings)
    for n in range(N_RUNS - 1):
        other = run.lake.open_run({"other": n}, f"20260101_{n:04d}", dict)
        write_manifest(other, "v", n_frames=24 * N_MISSING, clip_s=1.0)
    started = time.perf_counter()
    with opened() as opens:
        planned(Planner(run, STAGE, settings), video_id)
    among_s = time.perf_counter() - started
    reads = max(n for path, n in opens.items() if path.endswith("run.json"))
    print(
        f"FIGURE a missing clip among {N_RUNS} runs: {among_s / alone_s:.1f} x the cost with one; no run.json read more than {reads} time(s)"
    )
    return among_s / alone_s


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(n)) for n in range(4)]
        for place in places:
            place.mkdir()
        one_by_one = under_fallback(places[0])
        touched(places[1])
        among = runs_in_the_lake(places[2])
    return int(one_by_one > LIMIT_ONE_BY_ONE or among > LIMIT_RUNS)


if __name__ == "__main__":
    sys.exit(main())
