"""What it costs to watch: the timeline and the costs of a run, the views that people ask for, and a scrape of the platform's metrics.

    python -m benchmarks.bench_watching

A lake of BENCH_WATCHING_VIDEOS videos (100) of three clips with rows in every table. Views are compared with
plain counts over the tables they read.
"""

from __future__ import annotations

import os
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from egoworld_assets.monitoring.serving import served
from egoworld_ops.lake import judging, latest, timeline
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query import asked, catalog
from egoworld_ops.report import costs, gantt
from egoworld_ops.settings import load_settings
from gpu_workers.broker import events
from tests.gpu_workers.host import Host
from tests.lakes import write_video

N_VIDEOS = int(os.environ.get("BENCH_WATCHING_VIDEOS", "100"))
BY_CLIP = ("clip_quality", "good_clips", "problems", "stage_seconds")
"""Views of which all files are read; the others read those of one video."""


def best_s(work: Callable[[], Any], times: int = 3) -> float:
    """Seconds of this process's processors, all its threads together: what others do on the machine counts little."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as scratch:
        run = Lake(Path(scratch) / "lake").open_run({}, "20260101_0000", dict)
        videos = [write_video(run, f"v{i}", n_frames=80) for i in range(N_VIDEOS)]
        for folder in run.path.glob("video_id=*/clip_id=*"):
            run.write_meta(folder.parent.name.removeprefix("video_id="), folder.name.removeprefix("clip_id="))
        latest.use(run)
        judging.of_run(run, {})
        of_timeline(run)
        of_views(run, videos[0])
        of_scrapes(Path(scratch))
    of_broker()


def of_timeline(run: Any) -> None:
    works = list(timeline.of_run(run))
    read_s = best_s(lambda: list(timeline.of_run(run)))
    shown_s = best_s(lambda: (list(gantt.lines(works, run.run_id)), costs.by_stage(works, run.run_id)))
    clips = len({(w.video_id, w.clip_id) for w in works if w.clip_id})
    took = f"{1e3 * read_s / clips:.2f} ms a clip to read, {1e3 * shown_s / clips:.3f} ms to draw"
    print(f"FIGURE timeline: {took} ({clips} clips, {len(works)} results)")


def of_views(run: Any, video_id: str) -> None:
    written_s = best_s(lambda: ((run.lake.root / catalog.FILE_NAME).unlink(missing_ok=True), catalog.write_catalog(run.lake)))
    print(f"FIGURE catalog: {written_s:.2f} s to write all views")
    with duckdb.connect(str(run.lake.root / catalog.FILE_NAME), read_only=True) as lake:
        for view in asked.VIEWS:
            where = "" if view.name in BY_CLIP else f" WHERE video_id = '{video_id}'"
            tables = [name for name in view.reads if name != asked.BOUNDS]
            plain_s = best_s(
                lambda tables=tables, where=where: [lake.execute(f"SELECT count(*) FROM {t}{where}").fetchall() for t in tables]
            )
            asked_s = best_s(
                lambda view=view, where=where: lake.execute(f"SELECT count(*) FROM (SELECT * FROM {view.name}{where})").fetchall()
            )
            of = "one video" if where else "all videos"
            print(f"FIGURE view {view.name}: {asked_s:.2f} s, {asked_s / plain_s:.1f} x counting {', '.join(tables)} ({of})")


def of_scrapes(folder: Path) -> None:
    settings = load_settings("laptop").model_copy(update={"lake": folder / "lake", "raw": folder / "raw"})
    with served(settings, 0, 1.0, 600.0) as address:
        started = time.perf_counter()
        while b"egoworld_run_read_ratio 1.0" not in scrape(address):
            time.sleep(0.1)
        first_s = time.perf_counter() - started
        print(
            f"FIGURE metrics: {first_s:.1f} s until all is read, then {best_s(lambda: scrape(address), 10):.3f} s a scrape ({N_VIDEOS} videos)"
        )


def scrape(address: str) -> bytes:
    with urllib.request.urlopen(address) as answer:
        said: bytes = answer.read()
        return said


def of_broker() -> None:
    """What the state machine takes a clip, its timing included."""
    host, n = Host(), 2000
    host.submit("0")
    worker = host.ready()
    host.finish("0")
    host.ack("0")

    def clips() -> None:
        for _ in range(1, n):
            host.now += 1.0
            host.submit(f"{host.now}")
            host.finish(f"{host.now}")
            host.ack(f"{host.now}")

    host.feed(events.Tick())
    assert worker
    print(f"FIGURE broker: {1e6 * best_s(clips) / n:.0f} us of decisions a clip")


if __name__ == "__main__":
    main()
