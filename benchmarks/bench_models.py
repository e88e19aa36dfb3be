"""Time and memory of each backend that has random weights, over a clip of 1,000 frames of 320 x 240 with two hands and a thing.

    python -m benchmarks.bench_models [STAGE.BACKEND ...]

Small networks: the times say nothing of the published ones. What is shown is that memory does not grow with the clip beyond the table that it
makes: resident memory at frame 200 and at the last one. The thing, which FoundationPose looks for, is there in the first 100 frames. Each runs in a
process of its own, on one thread.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FRAMES, SETTLED, WITH_A_THING = 1000, 200, 100


def resident_mb() -> float:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measure(name: str) -> None:
    """Print a line of one backend."""
    from egoworld_ops.execution.executor import Executor
    from tests.gpu_workers import killed_models

    seen: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        task = killed_models.task(name, Path(folder), FRAMES, WITH_A_THING)
        executor = Executor(1)
        prepared = executor.prepare(task)
        began = time.monotonic()
        table = executor.compute(prepared, lambda index: seen.setdefault(index, (time.monotonic(), resident_mb())) and None)
    (settled_s, settled_mb), (_, last_mb) = seen[SETTLED], seen[FRAMES - 1]
    per_frame_ms = 1e3 * (time.monotonic() - settled_s) / (FRAMES - SETTLED)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"FIGURE {name}, random weights: {last_mb - settled_mb:+.1f} MB from frame {SETTLED} to {FRAMES}, table {table.nbytes / 1e6:.1f} MB, "
        f"peak {peak_mb:.0f} MB, {per_frame_ms:.0f} ms a frame, {time.monotonic() - began:.0f} s",
        flush=True,
    )


def main() -> int:
    from tests.gpu_workers import killed_models

    if sys.argv[1:2] == ["--alone"]:
        measure(sys.argv[2])
        return 0
    names = sys.argv[1:] or list(killed_models.OPTIONS)
    return max(subprocess.run([sys.executable, "-m", __spec__.name, "--alone", name], check=False).returncode for name in names)


if __name__ == "__main__":
    sys.exit(main())
