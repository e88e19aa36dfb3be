"""What a piece of work takes of the machine: seconds, memory of the host and of a GPU, and for how much of the time the GPUs compute."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gpu_workers.gpus import Gpu, GpuError, Nvml

MB = 1_000_000
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = "5"
"""Written to `clear_refs`, it makes the peak of the resident memory what is resident now (proc(5))."""
_EVERY_S = 0.25


@dataclass(slots=True)
class Used:
    """What work took.

    Args:
        seconds: of wall-clock time.
        host_mb: by which the resident memory of this process grew at its peak; None where the system does not tell.
        device_mb: at most allocated by torch on its GPU; None where it computed on none.
    """

    seconds: float = 0.0
    host_mb: float | None = None
    device_mb: float | None = None


@contextmanager
def used() -> Iterator[Used]:
    """What the body takes; filled in when it ends."""
    found = Used()
    gc.collect()
    before_mb = _start_of_peak()
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()  # type: ignore[union-attr]
    started = time.monotonic()
    try:
        yield found
    finally:
        found.seconds = time.monotonic() - started
        if before_mb is not None:
            found.host_mb = max(0.0, _status_mb("VmHWM") - before_mb)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            found.device_mb = torch.cuda.max_memory_allocated() / MB


def _start_of_peak() -> float | None:
    """Resident memory now, from which the peak counts; None where it cannot be told."""
    try:
        _CLEAR.write_text(_PEAK)
        return _status_mb("VmRSS")
    except (OSError, StopIteration):
        return None


def _status_mb(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / MB


@dataclass(slots=True)
class Duty:
    """How busy the GPUs were.

    Args:
        gpus: their names; empty where there are none.
        shares: for how much of the time each computed, as its driver samples it, 0 to 1; None where it has no such reading.
    """

    gpus: list[str] = field(default_factory=list)
    shares: list[float | None] = field(default_factory=list)


@contextmanager
def duty() -> Iterator[Duty]:
    """How busy the GPUs are while the body runs; filled in when it ends.

    Raises:
        SetupError: there is a driver, and NVML refuses to work with it.
    """
    found, nvml = Duty(), Nvml()
    gpus, _ = nvml.discover()
    seen: list[list[float]] = [[] for _ in gpus]
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(nvml, gpus, seen, ended), daemon=True)
    watch.start()
    try:
        yield found
    finally:
        ended.set()
        watch.join()
        nvml.close()
        found.gpus = [gpu.name for gpu in gpus]
        found.shares = [sum(shares) / len(shares) if shares else None for shares in seen]


def _watch(nvml: Nvml, gpus: list[Gpu], seen: list[list[float]], ended: threading.Event) -> None:
    while gpus and not ended.wait(_EVERY_S):
        for gpu, shares in zip(gpus, seen, strict=True):
            try:
                reading = nvml.read(gpu)
            except GpuError:
                continue
            if reading.utilisation is not None:
                shares.append(reading.utilisation)
