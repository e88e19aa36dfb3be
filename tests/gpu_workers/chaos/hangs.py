"""Workers hang in every way, and each hang is detected in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from gpu_workers import client
from tests import brokers
from tests.gpu_workers.chaos import tools

_HANGS = ("stop", "spin", "hold the gil", "hang")
_WAYS = [(hang, where) for where in ("fault", "decode_fault") for hang in _HANGS]
_SLOTS = 2
_BASE_S = 1.0
_LATE_S = 0.5
_READING_S = 0.005


@dataclass
class _Seen:
    """Hung processes whose end is waited for, and how long after its deadline each ended.

    `stall_s` is how much longer than `_READING_S` it took at most from one reading to the next: what this machine, busy with other things, adds to
    any delay.
    """

    waiting: dict[str, tuple[tools.Process, float, str]] = field(default_factory=dict)
    late_s: dict[str, float] = field(default_factory=dict)
    of: dict[str, str] = field(default_factory=dict)
    stall_s: float = 0.0
    read_at: float = field(default_factory=time.monotonic)

    def read(self, diary: Path) -> None:
        """The diary says which task hangs since when; the end of the process is measured here, not taken from the broker."""
        now = time.monotonic()
        self.stall_s, self.read_at = max(self.stall_s, now - self.read_at - _READING_S), now
        for line in diary.read_text("ascii").splitlines():
            if line not in self.of:
                key, pid, since = line.split()
                self.of[line] = key
                if held := tools.holding([int(pid)]):
                    self.waiting[line] = (held[0], float(since) + _BASE_S, key)
                else:
                    self.late_s[line] = time.monotonic() - float(since) - _BASE_S
        for line, (process, deadline, _) in list(self.waiting.items()):
            if process.gone():
                self.late_s[line] = time.monotonic() - deadline
                process.close()
                del self.waiting[line]


def run(size: int, seed: int) -> str:
    """At least `size` hangs, by turns stopped, in an endless loop, with the GIL held in C, asleep; while computing and while decoding.

    The operators of hanging clips are never learned and their estimate is 0, so that the deadline is the base alone: it runs from the broker's
    hearing that a phase began, which the fault follows at once. Good clips run beside them all the time.
    """
    random, began = Random(f"hangs {seed}"), time.monotonic()
    n_hanging = -(-size // 2)  # each hangs at least twice before it is a dead letter
    with brokers.broker("--workers", str(_SLOTS), "--hang-base-s", str(_BASE_S)) as settings:
        diary = settings.folder.parent / "diary"
        diary.touch()
        going, seen = True, _Seen()
        good = tools.Stream(settings, "good", _good(random.random(), lambda: going))
        bad = tools.Stream(settings, "hanging", _hanging(n_hanging, random, diary))
        try:
            while bad.is_alive():
                seen.read(diary)
                waited_s = time.monotonic() - bad.last_answer
                assert waited_s < tools.STUCK_S, f"no hang has been dealt with for {waited_s:.0f} s"
                time.sleep(_READING_S)
        finally:
            going = False
        bad.settle().only("dead_letter")
        seen.read(diary)
        good.settle().only("done")
        tools.balanced(settings)
        counted = tools.counts(settings)["hangs"]
    worst = max(seen.late_s, key=lambda line: seen.late_s[line])
    ways = {key: _way(int(key.partition("-")[0])) for key in bad.given}
    n = len(seen.late_s)
    assert n >= size, f"{n} hangs happened, {size} were to"
    assert not seen.waiting, f"processes that hang are still there: {[key for _, _, key in seen.waiting.values()]}"
    late = f"{seen.late_s[worst]:.2f} s after its deadline, where the machine itself stalls for {seen.stall_s:.2f} s"
    assert seen.late_s[worst] <= _LATE_S + seen.stall_s, f"{ways[seen.of[worst]]} was seen {late}"
    assert 0 < counted <= n, f"the broker counts {counted} hangs, the diary {n}"
    each = ", ".join(f"{hang} {max(s for line, s in seen.late_s.items() if ways[seen.of[line]][0] == hang):.2f}" for hang in _HANGS)
    return (
        f"{n} hangs of {n_hanging} clips, each process ended at most {late} ({each}); all dead-lettered; "
        f"{len(good.given)} good clips beside them all done; {time.monotonic() - began:.0f} s"
    )


def _way(number: int) -> tuple[str, str]:
    return _WAYS[number % len(_WAYS)]


def _hanging(n: int, random: Random, diary: Path) -> Iterator[client.Order]:
    for number in range(n):
        hang, where = _way(number)
        order = tools.order(f"{number}-{hang.replace(' ', '-')}", decode_s=random.uniform(0, 0.02), diary=str(diary), **{where: hang})
        yield client.Order(tools.changed(order.submit, operator=f"hangs {number}", est_s=0.0), order.payload)


def _good(seed: float, going: Callable[[], bool]) -> Iterator[client.Order]:
    random, number = Random(seed), 0
    while going():
        number += 1
        options: dict[str, Any] = {"decode_s": random.uniform(0, 0.02)}
        yield tools.order(f"good-{number}", random.uniform(0, 0.05), **options)
