"""How long the metrics of ten million rows take, against one plain DuckDB scan of the same columns of the same files.

    python -m benchmarks.bench_metrics [--rows 10000000] [--stages masks hand_pose ...]

A lake of random, valid rows in all tables (clips of 30 s, 30 frames a second) is made in a temporary folder: some videos, linked under many
names. Of each stage all that `egoworld_ops/lake/judging.py` computes from rows is measured, sixteen videos a query: metrics by clip and by video,
sketches, and why rows have no value; not footers, locks and the writing of `metrics.parquet`. The scan counts the values of the columns which
these read. Seconds are those of processors, so that other work on the machine counts little; both read what the system has in memory.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import duckdb

from egoworld_ops import operators
from egoworld_ops.contract import quality, schema
from egoworld_ops.contract.values import REASON
from egoworld_ops.lake import judging
from egoworld_ops.lake.lake import Lake, Run
from tests import lakes

MADE, CLIPS, CLIP_S = 2, 8, 30.0
AT_ONCE = 16


def main() -> int:
    """Print a line a stage, and the whole; ends with 1 where it takes more than twice the scan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--stages", nargs="*", default=list(operators.stages()))
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(":memory:") as connection:
        connection.execute("SET enable_progress_bar = false; SET threads = 1")  # threads that wait would count
        run = Lake(Path(folder) / "lake").open_run({}, "20260101_0000", dict)
        made = [lakes.write_video(run, f"made{n}", int(CLIPS * CLIP_S * lakes.FPS), CLIP_S, 0.0, seed=n) for n in range(MADE)]
        per_video = sum(_rows(connection, _files(run, stage, made[:1])) for stage in operators.stages())
        videos = _linked(run, made, -(-wanted.rows // per_video))
        print(f"{len(videos)} videos of {CLIPS} clips, {per_video * len(videos):,} rows in {len(operators.stages())} tables")
        print(f"{'stage':<14}{'rows':>12}{'scan s':>9}{'metrics s':>11}{'ratio':>8}")
        scans, metrics = zip(*(_stage(connection, run, stage, videos) for stage in wanted.stages), strict=True)
    ratio = sum(metrics) / sum(scans)
    print(f"{'all':<14}{'':>12}{sum(scans):>9.2f}{sum(metrics):>11.2f}{ratio:>8.2f}")
    print(f"FIGURE metrics of {per_video * len(videos):,} rows over one scan of the same columns: {ratio:.2f} x")
    return int(ratio > 2)


def _stage(connection: duckdb.DuckDBPyConnection, run: Run, stage: str, videos: Sequence[str]) -> tuple[float, float]:
    """Seconds of processors of the scan and of the metrics of a stage."""
    columns = _columns_read(stage)
    for table in columns:  # so that both find the files in memory
        _scan(connection, _files(run, table, videos[:AT_ONCE]), columns[table])
    scan_s = metrics_s = 0.0
    for part in (videos[at : at + AT_ONCE] for at in range(0, len(videos), AT_ONCE)):
        found = {video_id: _found(run, stage, video_id) for video_id in part}
        for table, names in columns.items():
            scan_s += _seconds(partial(_scan, connection, _files(run, table, part), names))
        metrics_s += _seconds(partial(_measure, connection, stage, found))
    n = _rows(connection, _files(run, stage, videos))
    print(f"{stage:<14}{n:>12,}{scan_s:>9.2f}{metrics_s:>11.2f}{metrics_s / scan_s:>8.2f}", flush=True)
    return scan_s, metrics_s


def _found(run: Run, stage: str, video_id: str) -> judging._Found:
    files = judging.files(run, stage, video_id)
    return judging._Found(files, judging.spans(list(files)), "")


def _measure(connection: duckdb.DuckDBPyConnection, stage: str, found: Mapping[str, judging._Found]) -> None:
    judging._numbers(connection, stage, found)
    quality.count_values(connection, stage, {video_id: of.whole for video_id, of in found.items()})


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _columns_read(stage: str) -> Mapping[str, list[str]]:
    """By table, the columns that the metrics of a stage read, those that tell clips and frames apart included."""
    said = " ".join(m.sql for m in quality.metrics(stage))
    tables = {stage, *(name for m in quality.metrics(stage) for name in m.beside)}
    words = set(re.findall(r"\w+", said)) | {REASON}
    found = {table: [c.name for c in schema.table(table).columns if c.name in words] for table in tables}
    found[stage] = list(dict.fromkeys([*found[stage], *quality.columns(stage)]))
    return {table: names or ["clip_id"] for table, names in found.items()}


def _scan(connection: duckdb.DuckDBPyConnection, files: Sequence[str], columns: Sequence[str]) -> None:
    counted = ", ".join(f"count({name})" for name in columns)
    connection.execute(f"SELECT {counted} FROM read_parquet($files, hive_partitioning = false)", {"files": list(files)}).fetchall()


def _rows(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> int:
    [(n,)] = connection.execute("SELECT count(*) FROM read_parquet($files, hive_partitioning = false)", {"files": list(files)}).fetchall()
    return int(n)


def _files(run: Run, stage: str, videos: Sequence[str]) -> list[str]:
    return [str(path) for video_id in videos for path in judging.files(run, stage, video_id)]


def _linked(run: Run, made: Sequence[str], n: int) -> list[str]:
    """Videos under many names: the folders of clips of those that were made."""
    return list(made) + [_link(run, made[at % len(made)], f"linked{at}") for at in range(n - len(made))]


def _link(run: Run, video_id: str, name: str) -> str:
    for path in run.video_folder(video_id).glob("clip_id=*/*.parquet"):
        target = run.video_folder(name) / path.relative_to(run.video_folder(video_id))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    return name


if __name__ == "__main__":
    sys.exit(main())
