"""Ten clients, each with more work than its share."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from random import Random
from typing import Any

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from tests import brokers
from tests.gpu_workers.chaos import tools

_CLIENTS = 10
_SLOTS = 2
_LEAST = 0.5
_TIMES_ITS_SHARE = 2.5
_MOST_TASK_S = 0.06
_SAMPLE_S = 0.02


@dataclass
class _Load:
    """The maximum values seen in the broker."""

    samples: int = 0
    in_all: int = 0
    of_one: int = 0
    window: int = 0

    def sample(self, settings: PoolSettings) -> None:
        said = client.status(settings)
        self.samples, self.window = self.samples + 1, said["window"]
        self.in_all = max(self.in_all, sum(said["queue"].values()) + said["in_flight"])
        self.of_one = max([self.of_one, *(_outstanding(known) for known in said["clients"])])


def run(size: int, seed: int) -> str:
    """Clients are watched for `size` seconds, from when all are there; each has two and a half times the work of its share of that time.

    A share is of the seconds that workers compute. Clips of one client are up to ten times as long as another's; half the clients come later.
    """
    random, began = Random(f"overload {seed}"), time.monotonic()
    lengths_s = [_MOST_TASK_S * (i + 1) / _CLIENTS for i in range(_CLIENTS)]
    random.shuffle(lengths_s)
    work_s = _TIMES_ITS_SHARE * size * _SLOTS / _CLIENTS
    load = _Load()
    with brokers.broker("--workers", str(_SLOTS)) as settings:
        streams = []
        for number, length_s in enumerate(lengths_s):
            if number == _CLIENTS // 2:
                _watch(settings, load, 0.5)
            orders = [tools.order(f"{number}-{i}", length_s) for i in range(math.ceil(work_s / length_s))]
            streams.append(tools.Stream(settings, f"client {number}", orders))
        tools.wait_for(lambda: len(client.status(settings)["clients"]) > _CLIENTS, tools.STUCK_S, "all clients are there")
        before = _used(streams)
        _watch(settings, load, size)
        after = _used(streams)
        early = [s.name for s in streams if len(s.taken) == len(s.given)]
        assert not early, f"{early} had no work left: they got {_TIMES_ITS_SHARE} times their share"
        for stream in streams:
            stream.settle().only("done")
        tools.balanced(settings)
    worked = {name: after[name] - before[name] for name in after}
    share, bound = sum(worked.values()) / _CLIENTS, load.window * _CLIENTS
    _check(worked, share, load, bound)
    return (
        f"{_CLIENTS} clients, {sum(len(s.given) for s in streams)} clips: at most {load.in_all} tasks in the broker, bound {bound}, at most "
        f"{load.of_one} of one client, window {load.window} ({load.samples} samples); the least got {min(worked.values()) / share:.2f} of its "
        f"share, the most {max(worked.values()) / share:.2f}; {time.monotonic() - began:.0f} s"
    )


def _watch(settings: PoolSettings, load: _Load, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        load.sample(settings)
        time.sleep(_SAMPLE_S)


def _check(worked: dict[str, float], share: float, load: _Load, bound: int) -> None:
    poor = {name: f"{seconds / share:.2f}" for name, seconds in worked.items() if seconds < _LEAST * share}
    assert not poor, f"clients got less than {_LEAST} of their share: {poor}"
    assert load.in_all <= bound, f"{load.in_all} tasks were in the broker, the windows of all clients are {bound}"
    assert load.of_one <= load.window, f"a client had {load.of_one} outstanding, its window is {load.window}"
    assert load.in_all > bound / 2, f"only {load.in_all} tasks were in the broker, of {bound}: that was no overload"


def _used(streams: list[tools.Stream]) -> dict[str, float]:
    """Seconds that workers have computed for each client, by its results."""
    return {s.name: sum(t.seconds for answers in list(s.taken.values()) for t in answers) for s in streams}


def _outstanding(known: dict[str, Any]) -> int:
    return int(known["waiting"] + known["running"] + known["not_taken"])
