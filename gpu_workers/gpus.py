"""What the broker process knows of NVIDIA GPUs: which there are, their readings, and which are out of order. Through NVML only.

Belongs here: what NVML says. Does not: CUDA itself (a context would take device memory for as long as the broker lives), and what
is done about a GPU that is out of order. `pynvml` is imported inside functions only, so that importing this module stays light.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from egoworld_ops.errors import SetupError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that answers.

    Args:
        index: NVML's order, that of nvidia-smi. CUDA_VISIBLE_DEVICES counts so only where CUDA_DEVICE_ORDER is PCI_BUS_ID (CUDA's own
            default puts the fastest first): to give a process this GPU and no other, put `uuid` there.
        uuid: "GPU-..."; stays the same when the host boots or GPUs are added.
        name: the product's name.
        memory_mb: device memory in MiB; None where the GPU has none of its own but shares the host's.
    """

    index: int
    uuid: str
    name: str
    memory_mb: int | None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A GPU that is there and cannot be used: NVML's message says why. `uuid` is None where the GPU did not even say that."""

    index: int
    uuid: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How a GPU is doing; None where the GPU or its driver has no such reading.

    Args:
        utilisation: share, 0 to 1, of the driver's last sample period (1/6 s to 1 s) in which something computed.
        memory_used_mb: device memory in use by anyone, the driver included, in MiB.
        temperature_c: degrees Celsius.
    """

    utilisation: float | None
    memory_used_mb: int | None
    temperature_c: int | None


class GpuError(Exception):
    """A GPU cannot be read: lost, or what nvidia-smi prints as "ERR!". Only a reset of the GPU or the host mends that."""

    def __init__(self, gpu: Gpu, reason: str) -> None:
        super().__init__(gpu, reason)
        self.gpu = gpu
        self.reason = reason

    def __str__(self) -> str:
        return f"GPU {self.gpu.index} ({self.gpu.name}, {self.gpu.uuid}): {self.reason}"


class Nvml:
    """NVML, opened at the first call and kept open until `close`. For one thread; a call may block for seconds when a GPU is sick.

    NVML lists the GPUs when it is opened: one that comes back later is seen after `close`.
    """

    def __init__(self) -> None:
        self._is_open = False

    def discover(self) -> tuple[list[Gpu], list[Unreachable]]:
        """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, in its order: those that answer, and those that do not.

        A GPU in the second list never hides one in the first. Both are empty on a host without NVIDIA's library or driver.

        Raises:
            SetupError: there is a driver, and NVML refuses to work with it.
        """
        import pynvml

        wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
        if wanted in ("", "-1"):  # where no GPU is wanted, an error of the driver does not matter
            return [], []
        try:
            self._open()
            count = pynvml.nvmlDeviceGetCount()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            return [], []
        except pynvml.NVMLError as error:
            cure = "See what nvidia-smi says; after an update of the driver restart the host; CUDA_VISIBLE_DEVICES=-1 does without GPUs"
            raise SetupError("the NVIDIA driver", f"NVML says: {error}", cure) from error
        visible = _visible([_query(index) for index in range(count)], wanted)
        return [it for it in visible if isinstance(it, Gpu)], [it for it in visible if isinstance(it, Unreachable)]

    def read(self, gpu: Gpu) -> Reading:
        """How `gpu` is doing now.

        Raises:
            GpuError: a reading failed, or `gpu` is no longer where it was discovered.
        """
        import pynvml

        try:
            self._open()
            # By index: a look-up by UUID asks every GPU on its way, and fails where any of them is lost.
            handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
            if (uuid := pynvml.nvmlDeviceGetUUID(handle)) != gpu.uuid:
                raise GpuError(gpu, f"its place was taken by {uuid}")
            percent = _supported(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            used_bytes = _supported(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used)
            # Deprecated for nvmlDeviceGetTemperatureV, which older drivers do not have.
            temperature_c = _supported(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        except pynvml.NVMLError as error:
            raise GpuError(gpu, str(error)) from error
        return Reading(None if percent is None else percent / 100, None if used_bytes is None else used_bytes // MIB, temperature_c)

    def close(self) -> None:
        """Let go of NVML; the next call opens it again. Harmless where it is not open."""
        import pynvml

        if self._is_open:
            self._is_open = False
            with contextlib.suppress(pynvml.NVMLError):  # it is gone either way
                pynvml.nvmlShutdown()

    def _open(self) -> None:
        import pynvml

        if not self._is_open:
            pynvml.nvmlInit()
            self._is_open = True


def _query(index: int) -> Gpu | Unreachable:
    import pynvml

    uuid: str | None = None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = str(pynvml.nvmlDeviceGetUUID(handle))
        name = pynvml.nvmlDeviceGetName(handle)
        total_bytes = _supported(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError as error:
        return Unreachable(index, uuid, str(error))
    return Gpu(index, uuid, name, total_bytes // MIB if total_bytes else None)  # some drivers say 0 for shared memory


def _supported(reading: Callable[[], Any]) -> Any:
    """The reading, or None where the GPU does not have it or the driver does not know the call."""
    import pynvml

    try:
        return reading()
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return None


def _visible(found: Sequence[Gpu | Unreachable], wanted: str | None) -> list[Gpu | Unreachable]:
    """Those of `found` that CUDA_VISIBLE_DEVICES=`wanted` names, as CUDA reads it: the first entry that names none, or several,
    ends the list (a MIG instance is such an entry), and a GPU named twice empties it."""
    if wanted is None:
        return list(found)
    chosen: list[Gpu | Unreachable] = []
    for entry in wanted.split(","):
        named = _named(found, entry.strip())
        if not named:
            break
        if any(it in chosen for it in named if it.uuid):
            return []
        chosen += [it for it in named if it not in chosen]
    return chosen


def _named(found: Sequence[Gpu | Unreachable], entry: str) -> list[Gpu | Unreachable]:
    if not entry.startswith("GPU-"):
        return [it for it in found if entry == str(it.index)]
    matches = [it for it in found if it.uuid and it.uuid.startswith(entry)]
    if matches:
        return matches if len(matches) == 1 else []
    # Nobody answers to it: it may be the UUID of a GPU too sick to say its own. Report that one, and read on.
    return [it for it in found if not it.uuid]
