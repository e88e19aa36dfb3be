"""The overhead of the broker: on short clips against processes that call the same runner directly, with empty tasks, and with large results."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.pool import clips, runs
from benchmarks.pool.clips import Clip
from benchmarks.pool.figures import Figure, share_at_most

SLOTS = 2
CLIP_S = 0.05
N_CLIPS = 400
N_EMPTY = 3000
N_LARGE = 100
LARGE_BYTES = 5_000_000
ROUNDS = 2


def figures() -> Iterator[Figure]:
    short = [Clip(f"clip {i}", CLIP_S) for i in range(N_CLIPS)]
    empty = [Clip(f"empty {i}", result_bytes=0) for i in range(N_EMPTY)]
    large = [Clip(f"large {i}", result_bytes=LARGE_BYTES) for i in range(N_LARGE)]
    rates = {}
    pooled_s, direct_s = [], []
    with runs.warm_pool(SLOTS) as settings:
        for _ in range(ROUNDS):
            pooled_s.append(runs.pooled(settings, short).makespan_s)
            direct_s.append(runs.serial(SLOTS, short).makespan_s)
            print(f"{N_CLIPS} clips: pool {pooled_s[-1]:.3f} s, direct {direct_s[-1]:.3f} s", flush=True)
        for name, work in (("empty tasks", empty), (f"results of {LARGE_BYTES // 1_000_000} MB", large)):
            rates[name] = len(work) / runs.pooled(settings, work).makespan_s
    overhead = (min(pooled_s) - min(direct_s)) / clips.ideal_s(short, SLOTS)
    yield share_at_most(f"broker overhead, {N_CLIPS} clips of {CLIP_S * 1e3:.0f} ms (extra over direct calls / ideal)", overhead, 0.01)
    for name, rate in rates.items():
        yield Figure(f"{name} through the broker: {rate:.0f} / s")
