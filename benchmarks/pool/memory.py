"""Resident memory of the broker's process after a thousand tasks and after ten thousand: it must not grow with the number of tasks done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pool import runs
from benchmarks.pool.clips import Clip
from benchmarks.pool.figures import Figure, ratio_at_most
from gpu_workers import client

SLOTS = 2
FEW, MANY = 1_000, 10_000
LIMIT = 1.05
_SETTLE_S = 1.0


def figures() -> Iterator[Figure]:
    with runs.warm_pool(SLOTS) as settings:
        pid = client.status(settings)["pid"]
        runs.pooled(settings, _tasks(0, FEW))
        few_mb = _resident_mb(pid)
        runs.pooled(settings, _tasks(FEW, MANY))
        many_mb = _resident_mb(pid)
    yield ratio_at_most(f"broker memory after {MANY} tasks over after {FEW} ({many_mb:.1f} / {few_mb:.1f} MB)", many_mb / few_mb, LIMIT)


def _tasks(start: int, stop: int) -> list[Clip]:
    return [Clip(f"task {i}", result_bytes=1_000) for i in range(start, stop)]


def _resident_mb(pid: int) -> float:
    time.sleep(_SETTLE_S)
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
