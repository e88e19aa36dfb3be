"""Two processes run the same videos at the same time."""

from __future__ import annotations

import re
import time
from collections import Counter

from egoworld_ops import operators
from tests.chaos_runs import world
from tests.chaos_runs.dagster_runs import place, starter

_CLIPS = {"a": 3, "b": 2}


def run(size: int, seed: int) -> str:
    """`size` times two Dagster runs at once, over two videos, in every other round from both ends: the ledger shares the clips."""
    began, each = time.monotonic(), [Counter[str](), Counter[str]()]
    with world.scratch() as root, starter() as starting:
        for name, clips in _CLIPS.items():
            world.make_video(root / "raw", name, tuple(range(18, 18 * clips, 18)), 18 * clips)
        calm = place(root / "calm", root / "raw")
        assert starting.wait(starting.start(calm)) == 0, calm.log()
        wanted, clips = world.snapshot(calm.run), sum(_CLIPS.values())
        for number in range(size):
            where = place(root / f"round {number}", root / "raw")
            pids = [starting.start(where, "log 0"), starting.start(where, "log 1", backwards=number % 2 == 0)]
            statuses = [starting.wait(pid) for pid in pids]
            assert statuses == [0, 0], where.log("log 0") + where.log("log 1")
            computed = [_computed(where.log(log)) for log in ("log 0", "log 1")]
            total = sum(computed, Counter())
            assert total == dict.fromkeys(operators.stages(), clips), f"computed: {computed}"
            each = [a + b for a, b in zip(each, computed, strict=True)]
            world.same(wanted, world.snapshot(where.run), where.root.name)
            world.metas_say_what_files_say(where.run)
            world.no_temporaries(where.root / "lake")
            world.ledger_agrees(where.settings, where.run, clips)
            world.forget(where.root)
    shares = " + ".join(str(counted.total()) for counted in each)
    return (
        f"{size} times two runs at once, of {len(_CLIPS)} videos with {clips} clips in {len(operators.stages())} stages: both end well, "
        f"{shares} = {sum(counted.total() for counted in each)} clips computed, each once; outputs as undisturbed, no temporary file; "
        f"{time.monotonic() - began:.0f} s"
    )


def _computed(log: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for stage, clips in re.findall(r"^  (\w+) .* (\d+) clips computed", log, re.MULTILINE):
        found[stage] += int(clips)
    return found
