"""A release of 1,000,000 rows against one plain `pyarrow` write of the same rows.

    python -m benchmarks.bench_release [--profile]

The run has clips of 30 s that overlap by 1 s, with both hands and an object in each frame, in all tables. The reference holds the very rows that
the release ends up with in memory, one table after the other, and writes each with `pq.write_table(rows, path, compression="zstd")`: no clip files
to read, no checksums, nothing durable. Both run in turns, the best of each counts. Exits with 1 below the limit.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops import operators
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.states import video_ids
from egoworld_ops.release import make, part, place
from egoworld_ops.release.plan import RunFiles
from egoworld_ops.release.rows import owned_rows
from egoworld_ops.release.settings import ReleaseSettings
from tests.lakes import FPS, write_video

N_ROWS = 1_000_000
LIMIT = 0.5
ROUNDS = 5
VIDEO_S, CLIP_S, OVERLAP_S = 120, 30.0, 1.0
ROWS_A_FRAME = 12
SETTINGS = ReleaseSettings()


def make_run(folder: Path, clip_s: float, overlap_s: float) -> Run:
    """A run with at least N_ROWS owned rows."""
    run = Lake(folder).open_run({}, "20260101_0000", dict)
    n_videos = -(-N_ROWS // (VIDEO_S * FPS * ROWS_A_FRAME))
    for n in range(n_videos):
        write_video(run, f"v{n}", VIDEO_S * FPS, clip_s, overlap_s)
    os.sync()
    return run


def owned(run: Run) -> dict[str, pa.Table]:
    """The rows of the run's stages as a release has them, by table, in memory."""
    files = RunFiles(run).sources(video_ids(run))
    return {stage: pa.concat_tables([owned_rows(f) for f in files[stage]]) for stage in operators.stages()}


def plain_s(tables: dict[str, pa.Table], folder: Path) -> float:
    """Seconds of plain writes."""
    folder.mkdir()
    started = time.perf_counter()
    for name, rows in tables.items():
        pq.write_table(rows, folder / f"{name}.parquet", compression="zstd")
    taken = time.perf_counter() - started
    shutil.rmtree(folder)
    os.sync()
    return taken


def release_s(run: Run) -> float:
    """Seconds of a release where there was none."""
    started = time.perf_counter()
    make.make_release(run, SETTINGS)
    return time.perf_counter() - started


def remove(run: Run) -> None:
    shutil.rmtree(place.folder(run), ignore_errors=True)
    os.sync()


def compare(folder: Path, clip_s: float, overlap_s: float) -> tuple[float, float, int]:
    """Seconds of the plain write and of the release, the best of each, and the rows of both."""
    run = make_run(folder / f"lake{clip_s}", clip_s, overlap_s)
    tables = owned(run)
    n_rows = sum(rows.num_rows for rows in tables.values())
    taken = []
    for _ in range(ROUNDS):
        plain = plain_s(tables, folder / "plain")
        remove(run)
        taken.append((plain, release_s(run)))
        print(f"plain write {taken[-1][0]:.2f} s, release {taken[-1][1]:.2f} s")
    manifest = place.read(run)
    assert manifest is not None
    assert sum(manifest.rows[stage] for stage in operators.stages()) == n_rows
    best_plain, best_release = (min(column) for column in zip(*taken, strict=True))
    return best_plain, best_release, n_rows


def profile(folder: Path) -> None:
    """Profile a release, with everything in one thread."""
    run = make_run(folder / "lake", CLIP_S, OVERLAP_S)
    part.ReadAhead = lambda items, most, size: items  # type: ignore[attr-defined, assignment]
    profiler = cProfile.Profile()
    files = RunFiles(run).sources(video_ids(run))
    profiler.enable()
    for table, some in files.items():
        part.write_part(folder / f"{table}.parquet", table, some, SETTINGS, run.run_id)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(12)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as name:
        if arguments.profile:
            profile(Path(name))
            return 0
        plain, ours, n_rows = compare(Path(name), CLIP_S, OVERLAP_S)
    ratio = plain / ours
    print(f"FIGURE release of {n_rows:,} rows: {ratio:.2f} x the speed of one plain pyarrow write of the same rows (limit {LIMIT})")
    return 0 if ratio >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
