"""The memory that SAM 2 takes, for planning before anything is loaded. No import of torch belongs here."""

from __future__ import annotations

from typing import Literal

PARAMETERS_MB = {"tiny": 156, "small": 184, "base_plus": 323, "large": 898}
"""Per model, in float32."""
ENCODER_MB = {
    "float32": {"tiny": 290, "small": 290, "base_plus": 340, "large": 430},
    "bfloat16": {"tiny": 215, "small": 215, "base_plus": 220, "large": 280},
}
"""Maximum size of the image encoder's tensors per frame of a micro-batch at 1024 px: `benchmarks/bench_sam2_needs.py`."""

_CUDA_MB = 1000
"""CUDA's context, the workspaces of cuBLAS and cuDNN, and the overhead of torch's allocator: a guess, not measured on a GPU."""
_PROCESS_MB = 700
"""A process with torch and sam2 loaded."""
_TRACKS_MB = 500
"""Eight tracks in 1080p: their logits, several times over, and the memory the model attends to."""
TRACK_MB = 245
"""Maximum size of the tensors of each track more that goes through the network in the same pass, at 1024 px and with 20 frames in its memory, four of
them prompted: 205 in float32, 230 in bfloat16 (`benchmarks/bench_sam2_needs.py`)."""
_CPU_WASTE = 1.9
"""Ratio of resident memory to live tensors of the image encoder on a CPU, from the measurements below."""


def memory_mb(
    model: str,
    image_size: int,
    micro_batch: int,
    tracks_at_once: int,
    device: Literal["cpu", "cuda"],
    precision: Literal["float32", "bfloat16"],
) -> int:
    """Memory of the device that a worker with this model takes while it tracks a clip, MB. An estimate, meant to err upwards.

    Parameters are counted, and the activations of the image encoder come from torch's own shape functions for CUDA; they grow with the area
    of the image and the number of frames encoded at once. The rest is rough. On a CPU the sum was 1.1 to 1.5 times the peak that was measured
    with two tracks (`benchmarks/bench_sam2_needs.py`); on a GPU nothing was measured.

    Args:
        model: a key of `PARAMETERS_MB`.
        image_size: side of the square that frames are resized to, px.
        micro_batch: frames encoded at once.
        tracks_at_once: tracks that go through the rest of the network at once.
        device: whose memory is meant. A worker with a GPU also takes host memory, which is not included.
        precision: of the network. With bfloat16 autocast keeps copies of the weights, half their size.
    """
    weights = PARAMETERS_MB[model] * (1.5 if precision == "bfloat16" else 1)
    area = (image_size / 1024) ** 2
    tracks = area * TRACK_MB * (tracks_at_once - 1)
    if device == "cuda":
        return round(_CUDA_MB + weights + _TRACKS_MB + area * ENCODER_MB[precision][model] * micro_batch + tracks)
    return round(_PROCESS_MB + weights + _TRACKS_MB + _CPU_WASTE * (area * ENCODER_MB["float32"][model] * micro_batch + tracks))
