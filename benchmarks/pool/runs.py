"""Clips run by a pool, and by processes without one: when each was computed, and how long it took in all."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

import pyarrow as pa

from benchmarks.pool.clips import RUNNER, Clip
from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from tests import brokers

NO_GPUS = {"CUDA_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True, slots=True)
class Span:
    """A clip was computed by `worker` from one time to another, s of the monotonic clock, as the worker's runner reports."""

    worker: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """All clips of a run, from the submission of the first to the last result taken."""

    spans: list[Span]
    from_s: float
    to_s: float

    @property
    def makespan_s(self) -> float:
        return self.to_s - self.from_s

    @property
    def slots(self) -> int:
        return len({span.worker for span in self.spans})

    def duty(self) -> float:
        """Share of the whole run in which the slots computed."""
        return self._busy(self.from_s, self.to_s)

    def steady_duty(self) -> float:
        """The same share in steady state: from when all slots compute for the first time until the first of them has finished its last clip."""
        of_worker: dict[str, list[Span]] = defaultdict(list)
        for span in self.spans:
            of_worker[span.worker].append(span)
        first_s = max(min(span.from_s for span in spans) for spans in of_worker.values())
        last_s = min(max(span.to_s for span in spans) for spans in of_worker.values())
        return self._busy(first_s, last_s)

    def _busy(self, from_s: float, to_s: float) -> float:
        computing_s = sum(max(0.0, min(span.to_s, to_s) - max(span.from_s, from_s)) for span in self.spans)
        return computing_s / (self.slots * (to_s - from_s))


@contextmanager
def warm_pool(slots: int) -> Iterator[PoolSettings]:
    """A new broker with that many workers, all of them started, so that loading models is not measured."""
    with brokers.broker("--workers", str(slots), environment=NO_GPUS) as settings:
        list(client.run(settings, "warm up", (Clip(f"warm up {i}", gpu_s=0.5).order() for i in range(slots))))
        ready = [worker["state"] for worker in client.status(settings)["workers"]]
        if ready != ["ready"] * slots:
            raise RuntimeError(f"want {slots} ready workers, got {ready}")
        yield settings


def pooled(settings: PoolSettings, *shares: Sequence[Clip]) -> Run:
    """Run clips through a pool: one client for each share, all at once."""
    spans: list[Span] = []
    failed: list[str] = []

    def work(name: str, share: Sequence[Clip]) -> None:
        for answer in client.run(settings, name, (clip.order() for clip in share)):
            if answer.result.outcome == "done":
                spans.append(_span(answer))
            else:
                failed.append(f"{answer.result.key}: {answer.result.reason}")

    clients = [threading.Thread(target=work, args=(f"client {i}", share)) for i, share in enumerate(shares)]
    started = time.monotonic()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    ended = time.monotonic()
    if failed or len(spans) != sum(len(share) for share in shares):
        raise RuntimeError(f"{len(spans)} clips done, failed: {failed[:3]}")
    return Run(spans, started, ended)


def _span(answer: client.Answer) -> Span:
    [row] = pa.ipc.open_stream(answer.payload).read_all().select(["from_s", "to_s"]).to_pylist()
    return Span(answer.result.worker, row["from_s"], row["to_s"])


def serial(slots: int, clips: Sequence[Clip]) -> Run:
    """Run clips without a pool: every slot is a process that has its share from the start, decodes a clip, computes it, and takes the next."""
    spans = []
    with ExitStack() as closing:
        started = [closing.enter_context(_Process(clips[i::slots])) for i in range(slots)]
        from_s = time.monotonic()
        for process in started:
            process.go()
        for i, process in enumerate(started):
            spans += [Span(f"process {i}", *times) for times in process.computed()]
        to_s = time.monotonic()
    return Run(spans, from_s, to_s)


class _Process(subprocess.Popen[str]):
    """`simulated_gpu.py` as a program, waiting for its start."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        super().__init__([sys.executable, RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps([asdict(clip) for clip in clips]))
        self._hear()

    def go(self) -> None:
        self._say("go")

    def computed(self) -> list[tuple[float, float]]:
        times: list[tuple[float, float]] = json.loads(self._hear())
        return times

    def _say(self, line: str) -> None:
        assert isinstance(self.stdin, io.TextIOBase)
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def _hear(self) -> str:
        assert self.stdout
        return self.stdout.readline()
