"""The pool's duty cycle and makespan, against the lower bound of any schedule and against processes without a pool.

The pool, the same with three clients, and the naive processes work on the same clips, in turns on one machine; the best run of each counts.
Computing times are those that the runner itself reports with each result; the broker's own account (`spent_s` of its status) is printed beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from benchmarks.pool import clips, runs
from benchmarks.pool.figures import Figure, ratio_at_most, share_at_least
from egoworld_ops.settings import PoolSettings
from gpu_workers import client

SLOTS = 2
N_CLIPS = 200
ROUNDS = 2


def figures() -> Iterator[Figure]:
    work = clips.spread(N_CLIPS)
    one, three, naive, accounted = [], [], [], []
    for _ in range(ROUNDS):
        with runs.warm_pool(SLOTS) as settings:
            before = _spent_s(settings)
            one.append(runs.pooled(settings, work))
            accounted.append(_accounted(before, _spent_s(settings)))
            three.append(runs.pooled(settings, work[0::3], work[1::3], work[2::3]))
        naive.append(runs.serial(SLOTS, work))
        print(f"one client {one[-1].makespan_s:.2f} s, three {three[-1].makespan_s:.2f} s, naive {naive[-1].makespan_s:.2f} s", flush=True)
    one_s, three_s, naive_s = (min(run.makespan_s for run in rounds) for rounds in (one, three, naive))
    ideal_s = clips.ideal_s(work, SLOTS)
    what = f"duty cycle of {SLOTS} slots"
    yield share_at_least(f"{what}, whole run of {N_CLIPS} clips", max(run.duty() for run in one), 0.98)
    yield share_at_least(f"{what}, steady state", max(run.steady_duty() for run in one), 0.995)
    yield Figure(f"{what}, as the broker accounts it: {max(accounted):.2%}; of the naive processes: {max(run.duty() for run in naive):.2%}")
    yield ratio_at_most("makespan over naive serial", one_s / naive_s, 0.82)
    yield ratio_at_most("makespan over ideal (GPU seconds / slots + shortest decode)", one_s / ideal_s, 1.03)
    yield ratio_at_most("makespan of three clients over one client's", three_s / one_s, 1.03)


def _spent_s(settings: PoolSettings) -> list[dict[str, float]]:
    return [slot["spent_s"] for slot in client.status(settings)["slots"]]


def _accounted(before: list[dict[str, float]], after: list[dict[str, float]]) -> float:
    """Share of the time with clients in which slots computed, between two states."""
    spent_s = [{cause: now[cause] - then[cause] for cause in now} for then, now in zip(before, after, strict=True)]
    return fmean(slot["computing"] / sum(s for cause, s in slot.items() if cause != "idle") for slot in spent_s)
