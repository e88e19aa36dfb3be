"""Clips for simulated GPUs, as tasks and as orders to the broker."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_workers import client
from gpu_workers.wire import messages

RUNNER = Path(__file__).with_name("simulated_gpu.py")
DECODE_SHARE = 0.25
RESULT_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip; fields as `simulated_gpu.SimulatedGpu` reads them."""

    key: str
    gpu_s: float = 0.0
    decode_s: float = 0.0
    result_bytes: int = RESULT_BYTES
    decode_holds_gil: bool = False
    launch_s: float = 0.0

    def order(self) -> client.Order:
        """The clip as the broker gets it; the estimate is true."""
        submit = messages.Submit(
            self.key, "simulated", "cpu", sys.executable, f"{RUNNER}:SimulatedGpu", "simulated", 1, self.gpu_s, 0, self.key, 0
        )
        return client.Order(submit, json.dumps(asdict(self)).encode())


def spread(n: int, shortest_s: float = 0.05, longest_s: float = 0.5, seed: int = 7) -> list[Clip]:
    """Clips whose GPU times are log-uniform between two bounds; decoding takes a quarter of that."""
    draw = random.Random(seed)
    times = [math.exp(draw.uniform(math.log(shortest_s), math.log(longest_s))) for _ in range(n)]
    return [Clip(f"clip {i}", gpu_s, DECODE_SHARE * gpu_s) for i, gpu_s in enumerate(times)]


def ideal_s(clips: Sequence[Clip], slots: int) -> float:
    """The lower bound of any schedule: every slot busy to the end, after the shortest first decode, which cannot overlap with anything."""
    return sum(clip.gpu_s for clip in clips) / slots + min(clip.decode_s for clip in clips)
