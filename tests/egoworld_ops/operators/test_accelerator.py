"""Which device a network gets, and what is said where there is none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from egoworld_ops.errors import BadSettings, NoDevice
from egoworld_ops.operators import accelerator

CPU = torch.device("cpu")
pick = partial(accelerator.pick_device, operator="masks.sam2")


@pytest.mark.parametrize(
    ("node", "visible", "want"),
    [
        ("nvidia0", None, "cuda"),
        ("nvidia3", "GPU-1f2e", "cuda"),
        ("nvidia0", "", "cpu"),
        ("nvidia0", "-1", "cpu"),
        ("nvidiactl", None, "cpu"),
    ],
)
def test_auto_is_cuda_where_a_gpu_shows(node: str, visible: str | None, want: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / node).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert accelerator.auto_device(tmp_path) == want


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    assert pick("auto") == CPU
    with pytest.raises(BadSettings, match=r"stages\.masks\.sam2\.device.*CUDA"):
        pick("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_gpu_that_torch_cannot_use_is_no_silent_reason_to_compute_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "auto_device", lambda: "cuda")
    with pytest.raises(NoDevice, match=r"torch .* cannot use it.*`cpu`"):
        pick("auto")
    assert pick("cpu") == CPU


def test_float32_keeps_all_of_its_bits() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pick("cpu")
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, False)
