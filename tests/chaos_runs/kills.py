"""kill -9 at random points of Dagster runs: finished results are kept, the next run makes the others, and no orphans are left."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.chaos_runs import world
from tests.chaos_runs.dagster_runs import Place, Starter, place, starter

CLIPS = 4
_CUTS = (18, 36, 54)
_MOST_KILLS_A_ROUND = 12
"""Then a run is let through."""
_HANGS_S = 600.0


def run(size: int, seed: int) -> str:
    """`size` kills, over as many lakes as it takes: each is run until it ends by itself, then compared with an undisturbed one."""
    random, began, killed_in, rounds, longest = Random(f"kills {seed}"), time.monotonic(), Counter[str](), 0, 0
    with world.scratch() as root, starter() as starting:
        world.make_video(root / "raw", "four", _CUTS, 72)
        length_s, calm = _undisturbed(root, starting)
        while (left := size - killed_in.total()) > 0:
            where = place(root / f"round {rounds}", root / "raw")
            hit, length_s = _until_it_ends(where, starting, random, length_s, min(left, _MOST_KILLS_A_ROUND))
            killed_in += hit
            rounds, longest = rounds + 1, max(longest, hit.total())
            _is_as_undisturbed(where, calm)
            print(f"kills: {killed_in.total()} of {size}, {rounds} lakes as undisturbed", flush=True)
    stages = ", ".join(f"{n} in {stage}" for stage, n in sorted(killed_in.items()))
    return (
        f"{killed_in.total()} kills, each of a living run ({stages}), in {rounds} lakes, at most {longest} one after the other, "
        f"drawn over the length of a run, lastly {length_s:.1f} s: {rounds} of {rounds} end as the undisturbed one, "
        f"{CLIPS} clips in each stage, no temporary file, a rebuild of the ledger changes nothing; {time.monotonic() - began:.0f} s"
    )


def _undisturbed(root: Path, starting: Starter) -> tuple[float, world.Snapshot]:
    """How long a run takes, and its results."""
    where, began = place(root / "calm", root / "raw"), time.monotonic()
    assert starting.wait(starting.start(where)) == 0, where.log()
    length_s = time.monotonic() - began
    world.no_temporaries(where.root / "lake")
    calm = world.snapshot(where.run)
    world.ledger_agrees(where.settings, where.run, CLIPS)
    return length_s, calm


def _until_it_ends(where: Place, starting: Starter, random: Random, length_s: float, most: int) -> tuple[Counter[str], float]:
    """Start and kill until a run ends by itself; returns the stage that each kill hit, and how long the last run took."""
    hit: Counter[str] = Counter()
    while True:
        began = time.monotonic()
        pid = starting.start(where)
        status = starting.wait(pid, random.uniform(0, length_s) if hit.total() < most else _HANGS_S)
        assert status is not None or hit.total() < most, f"a run hangs\n{where.log()}"
        if status is None and (status := starting.kill(pid)) == -signal.SIGKILL:
            hit[_stage(where.log())] += 1
            continue
        assert status == 0, f"a run ended with {status}\n{where.log()}"
        return hit, time.monotonic() - began


def _stage(log: str) -> str:
    started = re.findall(r"^  (\w+) \.\.\.$", log, re.MULTILINE)
    return started[-1] if started else "start"


def _is_as_undisturbed(where: Place, calm: world.Snapshot) -> None:
    found, run = world.snapshot(where.run), where.run
    world.same(calm, found, where.root.name)
    clips = {path.parent.name for path in run.path.glob("video_id=*/clip_id=*/*.parquet")}
    assert len(clips) == CLIPS, clips
    world.metas_say_what_files_say(run)
    world.no_temporaries(where.root / "lake")
    world.catalog_answers(run.lake)
    world.ledger_agrees(where.settings, run, CLIPS)
    world.forget(where.root)
