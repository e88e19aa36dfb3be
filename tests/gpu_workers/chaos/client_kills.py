"""Client processes are killed with work queued, running and undelivered, beside clients that go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from random import Random
from typing import Any

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from tests import brokers
from tests.gpu_workers.chaos import tools

_SLOTS = 2
_VICTIMS = 3
_STEADY = 2
_MOST_PAUSE_S = 0.4
_FORGOTTEN_WITHIN_S = 15.0
_MOST_GROWTH_MB = 60.0
_LARGE_BYTES = 2_000_000


def run(size: int, seed: int) -> str:
    """`size` client processes that the broker knows are killed: half by SIGKILL, half by SIGTERM.

    Their tasks are of all kinds: short, of several seconds, with results of 2 MB.
    """
    random, began = Random(f"clients {seed}"), time.monotonic()
    with brokers.broker("--workers", str(_SLOTS)) as settings:
        broker_pid = client.status(settings)["pid"]
        going = True
        steady = [tools.Stream(settings, f"steady {i}", _orders(f"{i}", seed, lambda: going)) for i in range(_STEADY)]
        tools.wait_for(lambda: all(s.taken for s in steady), tools.STUCK_S, "the first answers")
        before_mb = tools.rss_mb(broker_pid)
        try:
            slowest_s = _kill(settings, size, random, steady)
        finally:
            going = False
        for stream in steady:
            stream.settle().only("done")
        said = client.status(settings)
        started, after_mb = tools.starts(said), tools.rss_mb(broker_pid)
        _check_end(settings, said, broker_pid)
        cancelled = tools.counts(settings)["cancelled"]
        assert started == _SLOTS, f"{_SLOTS} workers would do, {started} were started: they do not stay warm"
        assert after_mb < before_mb + _MOST_GROWTH_MB, f"the broker grew from {before_mb:.0f} to {after_mb:.0f} MB"
        for stream in steady:
            stream.same_as(tools.Stream(settings, "calm", [_order(key, 0.0) for key in stream.given]).settle())
    n, longest_s = sum(len(s.given) for s in steady), max(s.longest_wait_s for s in steady)
    return (
        f"{size} clients killed, {cancelled} tasks of theirs dropped, each client forgotten within {slowest_s:.2f} s; {n} clips of {_STEADY} others "
        f"all done, payloads equal to an undisturbed run's, longest wait {longest_s:.2f} s; {started} worker starts, "
        f"broker {before_mb:.0f} -> {after_mb:.0f} MB; {time.monotonic() - began:.0f} s"
    )


def _kill(settings: PoolSettings, size: int, random: Random, steady: list[tools.Stream]) -> float:
    """The longest time from a death until the broker's status names the client no more."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.gpu_workers.chaos.client_kills"])
    victims: dict[int, Any] = {}
    slowest_s, killed = 0.0, 0
    try:
        while killed < size:
            while len(victims) < _VICTIMS:
                process = context.Process(target=_endless, args=(settings, random.random()), daemon=True)
                process.start()
                victims[process.pid] = process
            time.sleep(random.uniform(0, _MOST_PAUSE_S))
            for stream in steady:
                stream.check()
            assert all(v.is_alive() for v in victims.values()), "a client that was not killed has ended"
            known = victims.keys() & _clients(settings)
            if not known:
                continue  # none has said hello yet: a kill now would test nothing
            victim = victims.pop(random.choice(sorted(known)))
            os.kill(victim.pid, signal.SIGKILL if killed % 2 else signal.SIGTERM)
            died = time.monotonic()
            tools.wait_for(lambda pid=victim.pid: pid not in _clients(settings), _FORGOTTEN_WITHIN_S, f"client {victim.pid} is still known")
            slowest_s, killed = max(slowest_s, time.monotonic() - died), killed + 1
            victim.join(_FORGOTTEN_WITHIN_S)
            assert victim.exitcode in (-signal.SIGKILL, -signal.SIGTERM), f"the victim was to die of a signal, not of {victim.exitcode}"
    finally:
        for victim in victims.values():
            victim.kill()
            victim.join()
    return slowest_s


def _clients(settings: PoolSettings) -> set[int]:
    return {known["pid"] for known in client.status(settings)["clients"]}


def _endless(settings: PoolSettings, seed: float) -> None:
    """A client that would go on for ever."""
    random = Random(seed)

    def orders() -> Iterator[client.Order]:
        while True:
            seconds = random.choice((0.0, 0.01, 0.05, 5.0))
            yield tools.order(f"victim-{random.random()}", seconds, bytes=random.choice((100, _LARGE_BYTES)))

    for _ in client.run(settings, "victim", orders()):
        time.sleep(random.choice((0.0, 0.05)))


def _check_end(settings: PoolSettings, said: dict[str, Any], broker_pid: int) -> None:
    """Nothing of the killed clients is left in the broker."""
    tools.wait_for(lambda: not client.status(settings)["in_flight"], _FORGOTTEN_WITHIN_S, "tasks of dead clients still run")
    tools.balanced(settings)
    pids = {worker["pid"] for worker in said["workers"]}
    others = {pid: state for pid, state in tools.children(broker_pid).items() if pid not in pids}
    assert not others, f"the broker has children that are no workers of its: {others}"


def _orders(name: str, seed: int, going: Callable[[], bool]) -> Iterator[client.Order]:
    random, number = Random(f"orders {name} {seed}"), 0
    while going():
        number += 1
        yield _order(f"{name}-{number}", random.uniform(0, 0.03))


def _order(key: str, seconds: float) -> client.Order:
    """One in eight has a large payload, by its key."""
    return tools.order(key, seconds, bytes=300_000 if int(key.rpartition("-")[2]) % 8 == 0 else 100)
