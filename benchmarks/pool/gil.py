"""How much a decoder that holds the GIL slows the clip that is computed beside it: a GPU fed by many short launches, one slot.

The same clips with a decoder that releases it, in turns; the best of each. No limit: it shows why operators decode with libav.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.pool import runs
from benchmarks.pool.clips import Clip
from benchmarks.pool.figures import Figure

N_CLIPS = 12
GPU_S = 0.2
LAUNCH_S = 0.002
ROUNDS = 2


def figures() -> Iterator[Figure]:
    with runs.warm_pool(1) as settings:
        for decode_share in (0.25, 1.0):
            best = {}
            for holds in (False, True):
                work = [Clip(f"clip {i}", GPU_S, decode_share * GPU_S, 20_000, holds, LAUNCH_S) for i in range(N_CLIPS)]
                best[holds] = min(runs.pooled(settings, work).makespan_s for _ in range(ROUNDS))
            ratio = best[False] / best[True]
            yield Figure(
                f"throughput with a decoder that holds the GIL, decode / GPU {decode_share}: {ratio:.2f} x that of one that does not"
            )
