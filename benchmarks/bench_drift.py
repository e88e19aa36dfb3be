"""Drifts planted in the metrics of a thousand videos, from video 500 on: which are told, what they name first, and what clean runs raise.

    python -m benchmarks.bench_drift [--clips 60] [--seeds 20]

Videos are drawn at random from rendered clips of one shot (truth with noise as `bench_planted_faults` makes it), each measured as it is and with
each fault in its tables (`tests/planted.py`). Reference and current run have a thousand videos each; none is planted in a clean one. A fault is told
where a metric meant for it has drifted and the first video named for it is at most ten from the first bad one. Exits with 1 where one is missed, or a
clean run raises anything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.bench_planted_faults import FRAMES, PLANS, _true_tables
from egoworld_ops.contract.quality import DriftSettings
from egoworld_ops.query.drift import Metrics, Report, Values, compare
from egoworld_ops.synthetic import SceneConfig
from tests.planted import FAULTS, Known, measured, with_fault

VIDEOS, FIRST_BAD, WITHIN = 1000, 500, 10
FIRST_SEED = 500
PLANTED = {
    "a quarter of the masks not there": 1.0,
    "masks gives nothing": 0.25,
    "hands swapped in hand_pose": 1.0,
    "focal length doubled": 1.0,
    "hand_pose shifted by 3 frames": 1.0,
    "jitter of 8 mm added to joints": 1.0,
    "hand_pose gives zeros": 1.0,
}
"""Faults, and the share of the videos from the first bad one on that have it."""
Pool = list[dict[tuple[str, str], float | None]]


def main() -> int:
    """Print a line for each fault, and one for the clean runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=20)
    wanted = parser.parse_args()
    faults = [fault for fault in FAULTS if fault.name in PLANTED]
    with tempfile.TemporaryDirectory() as folder:
        pools: dict[str, Pool] = {"": []} | {fault.name: [] for fault in faults}
        for seed in range(wanted.clips):
            config = SceneConfig(seed=FIRST_SEED + seed, width=160, height=120, frames_per_shot=FRAMES, plan=PLANS[seed % len(PLANS)])
            clip = Known(_true_tables(config, seed), 0, FRAMES)
            pools[""].append(_metrics(clip, Path(folder)))
            for fault in faults:
                pools[fault.name].append(_metrics(with_fault(clip, fault, seed), Path(folder)))
    clean = [_compared(pools, "", 0.0, seed) for seed in range(wanted.seeds)]
    quiet = sum(not report.drifted for report in clean)
    for report in clean:
        for drift in report.drifted:
            print(f"NOT  clean: {drift.stage}.{drift.metric} since {drift.since}, share {drift.share:.2f}, psi {drift.psi:.2f}")
    print(f"FIGURE clean runs of {VIDEOS} videos that raise no drift: {quiet} of {wanted.seeds}")
    missed = quiet < wanted.seeds
    for fault in faults:
        reports = [_compared(pools, fault.name, PLANTED[fault.name], seed) for seed in range(wanted.seeds)]
        named = [_off(report, fault.warns) for report in reports]
        told = sum(off is not None and off <= WITHIN for off in named)
        others = sorted({f"{d.stage}.{d.metric}" for report in reports for d in report.drifted} - fault.warns)
        missed |= told < wanted.seeds
        print(
            f"FIGURE {fault.name}, in {PLANTED[fault.name]:.0%} of the videos since {FIRST_BAD}: told in {told} of {wanted.seeds}", end=""
        )
        print(
            f", first video off by {max((off for off in named if off is not None), default=-1)} at most; beside it {', '.join(others) or 'nothing'}"
        )
    return int(missed)


def _metrics(clip: Known, folder: Path) -> dict[tuple[str, str], float | None]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return {(stage, name): value for stage, values in measured([clip], Path(place)).items() for name, value in values.items()}


def _compared(pools: dict[str, Pool], fault: str, share: float, seed: int) -> Report:
    """A run of videos drawn from the pool, of which some have the fault from the first bad one on, against a clean run."""
    rng = np.random.default_rng(seed)
    n = len(pools[""])
    reference = [pools[""][i] for i in rng.integers(n, size=VIDEOS)]
    bad = (np.arange(VIDEOS) >= FIRST_BAD) & (rng.random(VIDEOS) < share)
    current = [pools[fault if is_bad else ""][i] for i, is_bad in zip(rng.integers(n, size=VIDEOS), bad.tolist(), strict=True)]
    return compare(_by_metric(reference), _by_metric(current), DriftSettings())


def _by_metric(videos: Pool) -> Metrics:
    names = [f"v{i:04d}" for i in range(len(videos))]
    keys = sorted({key for video in videos for key in video})
    return {key: Values(names, np.array([np.nan if (value := video.get(key)) is None else value for video in videos])) for key in keys}


def _off(report: Report, meant: frozenset[str]) -> int | None:
    """By how many videos the first that is named for a metric meant for the fault is off, of the metric that names it best; None where none is."""
    named = [int(drift.since[1:]) for drift in report.drifted if f"{drift.stage}.{drift.metric}" in meant]
    return min((abs(since - FIRST_BAD) for since in named), default=None)


if __name__ == "__main__":
    sys.exit(main())
