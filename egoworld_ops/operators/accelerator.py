"""The device that a network in torch computes on, and what happens where its memory runs out. Importing this does not import torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from egoworld_ops.errors import BadSettings, NoDevice, OutOfMemory

if TYPE_CHECKING:
    import torch

_SIGNS_OF_EXHAUSTION = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED", "bad_alloc")
"""Phrases of RuntimeErrors when memory runs out: torch's own on a CPU, the driver's, those of cuBLAS and cuDNN, C++'s."""


def auto_device(nodes: Path = Path("/dev")) -> Literal["cpu", "cuda"]:
    """`cuda` where there is a device node of an NVIDIA GPU and CUDA_VISIBLE_DEVICES does not hide all of them, else `cpu`.

    Checked without importing torch, so that a task goes to a worker with a GPU, or to one without that sees none, and `auto` means the same in both.
    A host whose GPU is not a device node (WSL), or whose client must not see the GPUs of the pool, needs an explicit `cuda`.

    Args:
        nodes: folder of the device nodes.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return "cuda" if not hidden and any(nodes.glob("nvidia[0-9]*")) else "cpu"


def pick_device(name: str, operator: str) -> torch.device:
    """The device of a backend, `stage.backend`, by its setting `device`; `auto` means CUDA if there is one.

    From here on this process computes float32 with all of its bits: cuDNN otherwise rounds it to TF32, 10 bits of 23, on GPUs that have it, and the
    machine would choose the precision.

    Raises:
        BadSettings: CUDA is asked for and not there.
        NoDevice: `auto`, and there is a GPU that torch cannot use: a CPU in its place would silently be a hundred times slower.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        reason = "it is `cuda`, and this machine has no usable CUDA device"
        raise BadSettings(f"setting stages.{operator}.device", reason, "Set it to `auto` or `cpu`")
    if name == "auto" and not usable and auto_device() == "cuda":
        reason = f"this process sees an NVIDIA GPU, and torch {torch.__version__} cannot use it"
        raise NoDevice(f"stages.{operator}", reason, f"Install the torch that fits the driver, or set stages.{operator}.device to `cpu`")
    return torch.device("cuda" if usable and name != "cpu" else "cpu")


@contextmanager
def out_of_memory(culprit: str, network: str, cure: str) -> Iterator[None]:
    """Turn torch's and Python's errors of exhausted memory, while a network works on `culprit`, into OutOfMemory."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _exhausted(culprit, network, cure, error) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _SIGNS_OF_EXHAUSTION):
            raise
        raise _exhausted(culprit, network, cure, error) from error


def _exhausted(culprit: str, network: str, cure: str, error: BaseException) -> OutOfMemory:
    return OutOfMemory(culprit, f"memory ran out in {network}: {str(error) or type(error).__name__}", cure)
