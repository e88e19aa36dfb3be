"""The broker is killed again and again under running clients, which start the next one themselves."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.place import CREDENTIALS, socket_path
from tests import brokers
from tests.gpu_workers.chaos import tools

_CLIENTS = 2
_MARK = "CHAOS_OF_EGOWORLD"
_MOST_LIFE_S = 1.2
_ORPHANS_END_WITHIN_S = 15.0


def run(size: int, seed: int) -> str:
    """`size` brokers that serve are killed, each at a random time of its life; then the same orders go through a pool that nobody disturbs.

    What an order computes is named by its key alone, so payloads must be equal byte for byte; in the undisturbed run it only takes less time.
    """
    random, began, before = Random(f"brokers {seed}"), time.monotonic(), tools.zombies()
    with tempfile.TemporaryDirectory(prefix="egoworld-chaos-") as root, pytest.MonkeyPatch.context() as environment:
        environment.setenv(_MARK, root)
        settings = PoolSettings(folder=Path(root, "p"), start=True, workers=2, idle_exit_s=60, lost_after_s=tools.STUCK_S)
        going = True
        streams = [tools.Stream(settings, f"client {i}", _orders(f"{i}", seed, lambda: going)) for i in range(_CLIENTS)]
        try:
            killed, busy, slowest_s = _kill(settings, size, random, streams)
        finally:
            going = False
            try:
                for stream in streams:
                    stream.settle().only("done")
            finally:
                brokers.stop(settings.folder)
        mark = f"{_MARK}={root}"
        tools.wait_for(lambda: not tools.marked(mark), _ORPHANS_END_WITHIN_S, f"processes left: {tools.marked(mark)}")
    tools.wait_for(lambda: not tools.zombies() - before, _ORPHANS_END_WITHIN_S, "zombies stay")
    with brokers.broker("--workers", "2") as quiet:
        for stream in streams:
            calm = tools.Stream(quiet, "calm", [_order(key, 0.0) for key in stream.given]).settle()
            stream.same_as(calm)
    n = sum(len(s.given) for s in streams)
    return (
        f"{killed} brokers killed ({busy} with workers at work) over {n} clips of {_CLIENTS} clients: each answered once, payloads equal to an "
        f"undisturbed run's; the last process ended {slowest_s:.2f} s after its broker, 0 orphans, 0 zombies; {time.monotonic() - began:.0f} s"
    )


def _kill(settings: PoolSettings, size: int, random: Random, streams: Sequence[tools.Stream]) -> tuple[int, int, float]:
    """How many were killed, how many of them had workers, and the slowest end of a worker after its broker."""
    killed = busy = 0
    slowest_s = 0.0
    while killed < size:
        broker = _serving(settings.folder, streams)
        time.sleep(random.uniform(0, _MOST_LIFE_S))
        workers = tools.holding(tools.family(broker.pid))
        assert not broker.gone(), f"a broker ended by itself:\n{_log(settings.folder)}"
        os.kill(broker.pid, signal.SIGKILL)
        assert broker.gone(_ORPHANS_END_WITHIN_S), "SIGKILL did not end the broker"
        died = time.monotonic()
        for worker in workers:
            assert worker.gone(_ORPHANS_END_WITHIN_S), f"process {worker.pid}, of a worker, has outlived its broker"
            worker.close()
        slowest_s = max(slowest_s, time.monotonic() - died) if workers else slowest_s
        broker.close()
        killed, busy = killed + 1, busy + bool(workers)
    return killed, busy, slowest_s


def _log(folder: Path) -> str:
    """What the brokers of a folder, and those who could not become one, said last."""
    return "\n".join((folder / name).read_text("utf-8", "replace")[-4000:] for name in ("broker.log", "broker.out"))


def _serving(folder: Path, streams: Sequence[tools.Stream]) -> tools.Process:
    """The broker that accepts connections; waits for one. It must also bear a connection that is closed at once."""
    found: list[tools.Process] = []

    def serves() -> bool:
        for stream in streams:
            stream.check()
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(socket_path(folder)))
            except OSError:
                return False
            pid = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[0]
        # a worker that was being started when its broker was killed has the broker's socket until its own program runs
        found.extend(broker for broker in tools.holding([pid]) if not broker.gone())
        return bool(found)

    tools.wait_for(serves, tools.STUCK_S, "no broker serves")
    return found[-1]


def _orders(name: str, seed: int, going: Callable[[], bool]) -> Iterator[client.Order]:
    random, number = Random(f"orders {name} {seed}"), 0
    while going():
        number += 1
        yield _order(f"{name}-{number}", random.uniform(0, 0.02))


def _order(key: str, seconds: float) -> client.Order:
    """By its key, one in eight has a large payload, and one in 20 leaves a child process behind."""
    number = int(key.rpartition("-")[2])
    child = {"fault": "fork"} if number % 20 == 10 else {}
    return tools.order(key, seconds, bytes=300_000 if number % 8 == 0 else 100, **child)
