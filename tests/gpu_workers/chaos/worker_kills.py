"""Workers are killed from outside at random points, while clips that kill their worker themselves run among good ones."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from tests import brokers
from tests.gpu_workers.chaos import tools

_SLOTS = 3
_POISON_ONE_IN = 60
_MOST_PAUSE_S = 0.2
_STARTING = 0.1
_OWN_DEATHS = 3


def run(size: int, seed: int) -> str:
    """At least `size` workers die by a SIGKILL that is not theirs.

    A poison clip writes into a diary its next action and its process. So its own deaths are its lines in the diary, but those whose
    process was hit from outside as well: there it is not known who was first. The broker's log says how each worker died, and must agree.
    """
    random, began = Random(f"workers {seed}"), time.monotonic()
    with brokers.broker("--workers", str(_SLOTS)) as settings:
        diary, log, broker_pid = settings.folder.parent / "diary", settings.folder.parent / "log", client.status(settings)["pid"]
        diary.touch()
        going = True
        streams = [tools.Stream(settings, f"client {i}", _orders(f"{i}", seed, diary, lambda: going)) for i in range(2)]
        hit: set[int] = set()
        try:
            while _died(log)["sigkill"] < size:
                time.sleep(random.uniform(0, _MOST_PAUSE_S))
                if victim := _victim(settings, broker_pid, random):
                    hit.add(victim)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                for stream in streams:
                    stream.check()
                waited_s = time.monotonic() - max(s.last_answer for s in streams)
                assert waited_s < tools.STUCK_S, f"no client has got an answer for {waited_s:.0f} s"
        finally:
            going = False
        for stream in streams:
            stream.settle()
            stream.only("done", [key for key in stream.given if "poison" not in key])
            stream.only("dead_letter", [key for key in stream.given if "poison" in key])
        tools.balanced(settings)
        said, deaths = tools.counts(settings), _died(log)
        assert said["worker deaths"] == sum(deaths.values()), f"the broker counts {said['worker deaths']} deaths and its log has {deaths}"
        own, contested = _own_deaths(diary, hit)
        poison = [key for s in streams for key in s.given if "poison" in key]
        late = {key: own[key] for key in poison if own[key] > _OWN_DEATHS}
        assert not late, f"poison clips were found after more than {_OWN_DEATHS} deaths of their own: {late}"
        assert sum(own.values()) <= deaths["exit"] <= sum(own.values()) + contested, f"diary {own}, log {deaths}, contested {contested}"
        assert deaths["sigkill"] >= size > 0
        zombies = [pid for pid, state in tools.children(broker_pid).items() if state == "Z"]
        assert not zombies, f"dead workers were not reaped: {zombies}"
    n = sum(len(s.given) for s in streams)
    return (
        f"{deaths['sigkill']} workers killed from outside over {n} clips: 0 lost, 0 doubled, 0 falsely dead-lettered; "
        f"{len(poison)} of {len(poison)} poison clips found, each within {max(own.values(), default=0)} deaths of its own "
        f"({contested} deaths of poison clips contested: hit from outside as well); {time.monotonic() - began:.0f} s"
    )


def _orders(name: str, seed: int, diary: Path, going: Callable[[], bool]) -> Iterator[client.Order]:
    """Short clips without end; a few exit or crash, while decoding or computing."""
    random, number = Random(f"orders {name} {seed}"), 0
    while going():
        number += 1
        extra: dict[str, Any] = {"decode_s": random.uniform(0, 0.02), "bytes": random.choice((10, 100_000))}
        kind = "good"
        if number % _POISON_ONE_IN == _POISON_ONE_IN // 2:
            kind = "poison"
            extra |= {random.choice(("fault", "decode_fault")): random.choice(("exit", "segv")), "diary": str(diary)}
        yield tools.order(f"{name}-{kind}-{number}", random.uniform(0, 0.04), **extra)


def _victim(settings: PoolSettings, broker_pid: int, random: Random) -> int | None:
    """A worker: mostly one that has begun to work, sometimes one that is still starting."""
    ready = [worker["pid"] for worker in client.status(settings)["workers"] if worker["pid"]]
    if random.random() < _STARTING:
        ready = [pid for pid in tools.children(broker_pid) if pid not in ready]
    return random.choice(ready) if ready else None


def _died(log: Path) -> Counter[str]:
    """How workers died, by the broker's log."""
    return Counter(line.rpartition("(")[2].rstrip(")") for line in log.read_text("utf-8").splitlines() if " died (" in line)


def _own_deaths(diary: Path, hit: set[int]) -> tuple[Counter[str], int]:
    lines = [line.split() for line in diary.read_text("ascii").splitlines()]
    own = Counter(key for key, pid, _ in lines if int(pid) not in hit)
    return own, len(lines) - sum(own.values())
