"""The devices of this host as slots of the broker: its GPUs, and shares of its processors and memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from egoworld_ops.errors import SetupError
from gpu_workers.broker.model import SlotSpec
from gpu_workers.gpus import Gpu, GpuError, Nvml, Reading

log = logging.getLogger(__name__)
CORES_PER_WORKER = 4
"""Operators on the processor gain little from more threads."""
_MEMORY_SHARE = 0.8
"""Of the host's memory, what all workers together may hold."""
_READ_EVERY_S = 5.0
_STUCK_S = 20.0


class Hardware:
    """What the host has and how much of it is in use.

    Args:
        workers: CPU workers on a host without GPUs, GPUs in use on one with; None for what the host has.
        worker_memory_mb: host memory that one worker may hold; None for a fair share.
    """

    def __init__(self, workers: int | None, worker_memory_mb: int | None = None) -> None:
        self._worker_memory_mb = worker_memory_mb
        self._nvml = Nvml()
        self._reader = ThreadPoolExecutor(1, "nvml")
        self._readings: dict[str, Reading] = {}
        self._last_read = 0.0
        self._gpus: dict[str, Gpu] = {}
        try:
            found, lost = self._nvml.discover()
        except SetupError as error:
            log.error("no GPU is used: %s", error)
            found, lost = [], []
        self._gpus = {f"gpu{gpu.index}": gpu for gpu in found}
        for gpu in lost:
            log.error("GPU %d is not used: %s", gpu.index, gpu.reason)
        cores = len(os.sched_getaffinity(0))
        self._cpu_workers = max(1, cores // CORES_PER_WORKER)
        self._gpu_workers = len(self._gpus)
        self._cores = cores
        if workers is not None:
            self.scale(workers)

    def scale(self, workers: int) -> None:
        """Use so many GPUs, or, on a host without, so many CPU workers; at least one."""
        if self._gpus:
            self._gpu_workers = min(max(1, workers), len(self._gpus))
        else:
            self._cpu_workers = max(1, workers)

    def slots(self) -> tuple[SlotSpec, ...]:
        """The slots in use."""
        gpus = [SlotSpec(name, "cuda", gpu.memory_mb or 0) for name, gpu in list(self._gpus.items())[: self._gpu_workers]]
        return (*gpus, *(SlotSpec(f"cpu{i}", "cpu", self.memory_limit_mb()) for i in range(self._cpu_workers)))

    def threads(self, slot: str) -> int:
        """How many threads a worker of a slot may use."""
        return max(1, self._cores // (self._cpu_workers + (self._gpu_workers if self._gpus else 0)))

    def variables(self, slot: str) -> Mapping[str, str]:
        """What a worker of a slot must have in its environment, so that it sees its own GPU and no other."""
        gpu = self._gpus.get(slot)
        return {"CUDA_VISIBLE_DEVICES": gpu.uuid if gpu else ""}

    def memory_limit_mb(self) -> int:
        """Host memory that one worker may hold."""
        if self._worker_memory_mb is not None:
            return self._worker_memory_mb
        total_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000
        return int(_MEMORY_SHARE * total_mb / (self._cpu_workers + self._gpu_workers))

    async def sick(self) -> list[tuple[str, str]]:
        """GPUs that are out of order, and why. Reads them every few seconds, in a thread: a call of the driver may hang."""
        loop = asyncio.get_running_loop()
        if not self._gpus or loop.time() < self._last_read + _READ_EVERY_S:
            return []
        self._last_read = loop.time()
        found = []
        for name, gpu in self._gpus.items():
            try:
                self._readings[name] = await asyncio.wait_for(loop.run_in_executor(self._reader, self._nvml.read, gpu), _STUCK_S)
            except GpuError as error:
                found.append((name, error.reason))
            except TimeoutError:
                found.append((name, f"NVML has not answered for {_STUCK_S:.0f} s"))
                self._reader = ThreadPoolExecutor(1, "nvml")  # the old thread waits in the driver and may never return
        return found

    def readings(self) -> dict[str, dict[str, Any]]:
        """The last readings of each GPU: utilisation (0 to 1), memory, temperature."""
        return {
            name: {"name": gpu.name, "uuid": gpu.uuid, "memory_mb": gpu.memory_mb}
            | (
                {"utilisation": r.utilisation, "memory_used_mb": r.memory_used_mb, "temperature_c": r.temperature_c}
                if (r := self._readings.get(name))
                else {}
            )
            for name, gpu in self._gpus.items()
        }
