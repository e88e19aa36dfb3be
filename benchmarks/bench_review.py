"""The review page over a lake of 100,000 clips: the first paint of each list in a real Chromium, turning pages, and the server's memory.

    python -m benchmarks.bench_review

33,334 videos of three clips, as 10 TB of short videos have, with states, failures and metrics of each, and verdicts on one clip in nine; results of
two stages are hard links. The server is the command `egoworld review` with a cold index: pages are measured at once, while it reads the lake, and
after. Exits with 1 above a limit.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_resume import _Template
from egoworld_assets.chain import configuration
from egoworld_ops import operators
from egoworld_ops.contract import quality, schema
from egoworld_ops.files.tables import PROVENANCE_KEY
from egoworld_ops.lake import measured, pointer, verdicts
from egoworld_ops.lake.lake import Run
from egoworld_ops.settings import Settings, load_settings
from egoworld_ops.verdict_words import VERDICT_WORDS
from tests.chromium import Browser

N_VIDEOS = int(os.environ.get("BENCH_REVIEW_VIDEOS", "33334"))
CLIPS_A_VIDEO = 3
LINKED = ("hand_pose", "masks")
PAINT_S, TURN_S = 1.0, 0.2
METRIC = "hand_pose.reprojection_share_median"


def settings_for(folder: Path) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": folder / "lake", "raw": folder / "raw"})


def fill(run: Run) -> None:
    """Videos with states of every stage, one clip in a hundred failed, and metrics that differ from video to video."""
    rng = random.Random(0)
    templates = {name: _Template(run.lake.root, name, run) for name in LINKED}
    states, clips, videos = _shapes()
    for i in range(N_VIDEOS):
        video_id = f"video-{i:012x}"
        folder = run.video_folder(video_id)
        for n in range(CLIPS_A_VIDEO):
            (clip := run.clip_folder(video_id, f"f{n}")).mkdir(parents=True)
            for name, template in templates.items():
                template.link(clip / f"{name}.parquet")
        failed = ["failed" if rng.random() < 0.001 else state for state in states["state"].to_pylist()]
        _write(folder, "states", states.set_column(states.schema.get_field_index("state"), "state", pa.array(failed)), video_id)
        _write(folder, "clips", clips, video_id)
        _write(folder, "videos", videos, video_id)
        notes = {}
        for stage in LINKED:
            files = [run.clip_table(stage, video_id, f"f{n}") for n in range(CLIPS_A_VIDEO)]
            values = {m.name: rng.random() for m in quality.metrics(stage)}
            said = {"metrics": values, "odd": [], "values": "", "assumed": False}
            notes[stage] = {"of": measured.digest_of(stage, files), "measured": said}
        (folder / measured.FILE_NAME).write_text(json.dumps(notes))


def judge(run: Run) -> None:
    """Verdicts on one clip in nine."""
    rng, videos = random.Random(1), [f"video-{i:012x}" for i in range(0, N_VIDEOS, 3)]
    verdicts.add(run.lake, [verdicts.new(run, (video_id, "f0"), rng.choice(VERDICT_WORDS), "", "ann") for video_id in videos])


def _shapes() -> tuple[pa.Table, pa.Table, pa.Table]:
    """Tables `states`, `clips` and `videos` of a video; all have these but for the name."""
    one = {"video_id": "", "digest": "d" * 64, "rows": 100, "error_class": None, "dead_letter": None, "state": "done"}
    keys = [("", "manifest"), *((f"f{n}", stage) for n in range(CLIPS_A_VIDEO) for stage in operators.stages())]
    states = schema.from_rows("states", [one | {"clip_id": clip_id, "stage": stage} for clip_id, stage in keys])
    from tests.lakes import video_row

    clips = []
    for n in range(CLIPS_A_VIDEO):
        span = {"frame_start": 60 * n, "frame_end": 60 * n + 60, "own_start": 60 * n, "own_end": 60 * n + 60}
        times = {"start_s": 2.0 * n, "end_s": 2.0 * n + 2, "overlap_s": 0.0, "scene_index": n, "cut_score": None}
        clips.append({"video_id": "", "clip_id": f"f{n}", **span, **times, "method": "adaptive", "fallback_reason": None})
    return states, schema.from_rows("clips", clips), schema.from_rows("videos", [video_row("v-0", "0" * 64, 180)])


def _write(folder: Path, name: str, rows: pa.Table, video_id: str) -> None:
    field = rows.schema.field("video_id")
    ids = pa.array([video_id] * len(rows)).cast(field.type)
    named = rows.set_column(rows.schema.get_field_index("video_id"), field, ids)
    pq.write_table(named.replace_schema_metadata({PROVENANCE_KEY: b"{}"}), folder / f"{name}.parquet")


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command over that lake, and the address it says."""
    environment = os.environ | {"EGOWORLD_LAKE": str(settings.lake)}
    code = "from egoworld_assets.cli.main import main; main()"
    server = subprocess.Popen([sys.executable, "-c", code, "review", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(found for line in server.stdout if (found := re.search(r"http://\S+", line)))[0]
        yield server, address
    finally:
        server.terminate()
        server.wait()


def rss_mb(server: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def fetch_s(address: str) -> float:
    started = time.perf_counter()
    with urllib.request.urlopen(address, timeout=60) as answer:
        answer.read()
    return time.perf_counter() - started


def whole(address: str) -> bool:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return b"Reading the run" not in answer.read()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as name:
        settings = settings_for(Path(name))
        run = configuration.open_run(settings)
        started = time.perf_counter()
        fill(run)
        judge(run)
        pointer.write(run.lake.root, pointer.Pointer(run.run_id))
        shutil.rmtree(run.path / "_contract", ignore_errors=True)
        print(f"lake of {N_VIDEOS * CLIPS_A_VIDEO:,} clips made in {time.perf_counter() - started:.0f} s", flush=True)
        return measure(settings, run)


def measure(settings: Settings, run: Run) -> int:
    ok = True
    with serving(settings) as (server, address), Browser() as browser:
        clips = f"{address}run/{run.run_id}/clips"
        pages = [address, f"{address}run/{run.run_id}", clips, f"{clips}?metric={METRIC}"]
        began_s = time.perf_counter()
        for page in pages:
            paint_s = browser.first_paint_s(page)
            ok &= paint_s <= PAINT_S
            print(f"FIGURE review, index cold, first paint of {page.partition('/run/')[2] or 'home'}: {paint_s:.2f} s (limit {PAINT_S:g})")
        while not whole(pages[1]):
            time.sleep(0.5)
        print(f"FIGURE review, run gone through in {time.perf_counter() - began_s:.0f} s; server {rss_mb(server):.0f} MB", flush=True)
        for page in pages:
            paint_s = statistics.median(browser.first_paint_s(page) for _ in range(3))
            ok &= paint_s <= PAINT_S
            print(f"FIGURE review, first paint of {page.partition('/run/')[2] or 'home'}: {paint_s:.2f} s (limit {PAINT_S:g})")
        before_mb = rss_mb(server)
        for what, query in (
            ("by name", "?"),
            ("worst first", f"?metric={METRIC}&"),
            ("of one stage and state", "?stage=masks&state=done&"),
            ("worst first of those that nobody judged", f"?metric={METRIC}&verdict=none&"),
        ):
            turns = [fetch_s(f"{clips}{query}page={n}") for n in [*range(1, 31), *range(1700, 1731)]]
            ok &= (p95_s := statistics.quantiles(turns, n=20)[-1]) <= TURN_S
            print(f"FIGURE review, turning a page, {what}: median {statistics.median(turns):.3f} s, p95 {p95_s:.3f} s (limit {TURN_S:g})")
        turns = [fetch_s(f"{address}run/{run.run_id}/verdicts?page={n}") for n in range(1, 31)]
        print(
            f"FIGURE review, a page of verdicts: median {statistics.median(turns):.3f} s, p95 {statistics.quantiles(turns, n=20)[-1]:.3f} s"
        )
        for _ in range(200):
            fetch_s(f"{clips}?metric={METRIC}&page={random.randrange(1, 2000)}")
        print(f"FIGURE review, server before and after 400 pages: {before_mb:.0f} MB, {rss_mb(server):.0f} MB")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
