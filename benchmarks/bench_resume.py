"""Planning 100,000 finished clips, of which none is left to do; and linking a clip against computing it.

    python -m benchmarks.bench_resume

The lake of the scan has 33,334 videos of three clips, as 10 TB of short videos have, with real files (hard links) for the stage `masks` and what it
reads. Beside it, the time that reading every clip's Parquet footer would take, measured on some. Linking is measured on the example scene: every
stage but `mapping` in a run whose retargeting differs. Exits with 1 above a limit.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from egoworld_assets.chain import configuration, pipeline, planning
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops.contract import schema
from egoworld_ops.files.tables import make_provenance, provenance_at, write_table
from egoworld_ops.lake import lake, memo
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import register
from egoworld_ops.raw.intake import update
from egoworld_ops.settings import Settings, load_settings
from gpu_workers.inline import InlinePool

ROOT = Path(__file__).resolve().parents[1]
N_VIDEOS, CLIPS_A_VIDEO = 33_334, 3
STAGE = "masks"
FOOTERS = 3000
MOST_LINKS = 30_000
LIMIT_S = 10.0
LIMIT_RATIO = 100.0


def settings_for(folder: Path, **change: object) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": folder / "lake", "raw": folder / "raw", **change})


class _Template:
    """A table that is linked again and again; a fresh one before the file system's limit of links."""

    def __init__(self, folder: Path, name: str, run: Run) -> None:
        self._folder, self._name, self._run = folder, name, run
        self._links = 0

    def link(self, target: Path) -> None:
        source = self._folder / f"{self._name}-{self._links // MOST_LINKS}.parquet"
        if self._links % MOST_LINKS == 0:
            write_table(source, self._name, schema.empty(self._name), make_provenance("digest", {}, 0, 0.0, self._run.run_id))
        os.link(source, target)
        self._links += 1


def fill(settings: Settings, run: Run) -> list[str]:
    """Register videos whose clips all have results, and plan them once; returns their ids."""
    planner_tables = (STAGE, "detections")
    settings.raw.mkdir()
    beside = (*lake.VIDEO_TABLES, "states")
    templates = {name: _Template(settings.lake, name, run) for name in (*planner_tables, *beside)}
    ids = [f"video-{i:012x}" for i in range(N_VIDEOS)]
    rows = [
        {
            "path": str(settings.raw / f"{v}.mp4"),
            "video_id": v,
            "status": "registered",
            "sha256": v,
            "bytes": 1,
            "mtime_ns": 1,
        }
        for v in ids
    ]
    update(run.lake, rows)
    for video_id in ids:
        (settings.raw / f"{video_id}.mp4").write_bytes(b"x")
        for n in range(CLIPS_A_VIDEO):
            clip = run.clip_folder(video_id, f"f{n}")
            clip.mkdir(parents=True)
            for name in planner_tables:
                templates[name].link(clip / f"{name}.parquet")
        for name in beside:
            templates[name].link(run.video_table(name, video_id))
    planner = planning.Planner(run, STAGE, settings)
    for video_id in ids:
        planner.remember(video_id, [memo.Remembered(f"f{n}", 0) for n in range(CLIPS_A_VIDEO)])
    return ids


def scan_seconds(run: Run, settings: Settings, ids: list[str]) -> float:
    """Seconds to plan a stage over all videos; all clips must be found done."""
    started = time.perf_counter()
    planner = planning.Planner(run, STAGE, settings)
    states = Counter(planned.state for v in ids for planned in planner.plan(v) if isinstance(planned, StageResult))
    taken_s = time.perf_counter() - started
    if states != {"done": N_VIDEOS * CLIPS_A_VIDEO}:
        raise RuntimeError(f"not all clips are done: {states}")
    return taken_s


def footer_seconds(run: Run, ids: list[str]) -> float:
    """Seconds that reading the footer of every clip's table would take, from some of them."""
    paths = [run.clip_table(STAGE, v, f"f{n}") for v in ids[: FOOTERS // CLIPS_A_VIDEO] for n in range(CLIPS_A_VIDEO)]
    started = time.perf_counter()
    for path in paths:
        provenance_at(path)
    return (time.perf_counter() - started) / len(paths) * N_VIDEOS * CLIPS_A_VIDEO


def linking(folder: Path) -> float:
    """How many times faster linking a clip is than computing it, over all stages but the one that differs."""
    first = settings_for(folder)
    [video_id] = register.register(first.lake, [ROOT / "examples" / "synthetic" / "kitchen.mp4"]).video_ids
    other = first.model_copy(
        update={"stages": {**first.stages, "mapping": first.stages["mapping"].model_copy(update={"dex": {"scaling": 1.5}})}}
    )
    pool = InlinePool(first.pool.threads)
    computed: dict[str, float] = defaultdict(float)
    for stage, result in pipeline.process(configuration.open_run(first), [video_id], first, pool):
        computed[stage] += result.seconds
    run, linked_s, n = configuration.open_run(other), 0.0, 0
    for stage in (s for s in computed if s not in (pipeline.MANIFEST, "mapping")):
        if stage == "detections":
            for result in pipeline.results(run, pipeline.MANIFEST, [video_id], other, pool):
                pipeline.store(run, pipeline.MANIFEST, result)
        started = time.perf_counter()
        for result in pipeline.results(run, stage, [video_id], other, pool):
            if result.state != "linked":
                raise RuntimeError(f"{stage} was {result.state}, not linked")
            pipeline.store(run, stage, result)
            n += 1
        linked_s += time.perf_counter() - started
    computed_s = sum(s for stage, s in computed.items() if stage not in (pipeline.MANIFEST, "mapping"))
    print(f"linking {n} results {linked_s:.3f} s, computing them {computed_s:.1f} s")
    return computed_s / linked_s


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as name:
        settings = settings_for(Path(name))
        run = configuration.open_run(settings)
        ids = fill(settings, run)
        seconds = min(scan_seconds(run, settings, ids) for _ in range(2))
        footers = footer_seconds(run, ids)
    print(
        f"FIGURE resume scan of {N_VIDEOS * CLIPS_A_VIDEO:,} clips: {seconds:.1f} s (limit {LIMIT_S:.0f} s); reading their footers: {footers:.1f} s"
    )
    with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as name:
        ratio = linking(Path(name))
    print(f"FIGURE linking a clip: {ratio:.0f} x faster than computing it (limit {LIMIT_RATIO:.0f})")
    return 0 if seconds <= LIMIT_S and ratio >= LIMIT_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
