"""Measures the figures of `_sam2_needs`: memory of SAM 2's image encoder by shapes alone, and peak memory on this CPU.

    python -m benchmarks.bench_sam2_needs            # the tiny model, a minute
    python -m benchmarks.bench_sam2_needs --models tiny small base_plus large --sizes 256 512 1024

The encoder's tensors are on a CUDA device that need not exist: torch runs its shape functions only, and every storage is counted
from its birth to its end. Exits with 1 where an estimate is below what was measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH = 1080, 1920
BOXES = ((100, 100, 500, 500), (900, 300, 1300, 800))
MICRO_BATCHES = (1, 4)
SEED = 3


@contextmanager
def as_if_cuda() -> Iterator[Any]:
    """CUDA tensors without memory behind them. Yields torch's dispatch mode that counts the bytes they would take."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counting(TorchDispatchMode):
        live_bytes = peak_bytes = 0

        def __init__(self) -> None:
            super().__init__()
            self._known: dict[int, int] = {}

        def _ended(self, key: int) -> None:
            self.live_bytes -= self._known.pop(key)

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            for storage in (leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)):
                if storage._cdata not in self._known:
                    self._known[storage._cdata] = storage.nbytes()
                    self.live_bytes += storage.nbytes()
                    weakref.finalize(storage, self._ended, storage._cdata)
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            return out

    # autocast asks for a device and what it can do; shape functions need none
    before = torch.cuda.amp.common.amp_definitely_not_available, torch.cuda.is_bf16_supported
    torch.cuda.amp.common.amp_definitely_not_available, torch.cuda.is_bf16_supported = lambda: False, lambda *_: True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield Counting
    finally:
        torch.cuda.amp.common.amp_definitely_not_available, torch.cuda.is_bf16_supported = before


def encoder_mb(model: str, precision: str) -> float:
    """Peak memory of the encoder's tensors per additional frame in a micro-batch at 1024 px, MB."""
    import torch

    from egoworld_ops.operators.masks._sam2_model import build

    predictor = build(model, 1024, 4, True, torch.device("meta"), SEED)
    peaks = {}
    with as_if_cuda() as counting:
        predictor = predictor.to_empty(device="cuda")
        predictor.image_encoder.neck.position_encoding.cache.clear()
        for n_frames in (1, 4, 8):  # the first run fills the caches of positions, which stay
            with torch.inference_mode(), counting() as counted, torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
                predictor.forward_image(torch.empty(n_frames, 3, 1024, 1024, device="cuda"))
            peaks[n_frames] = counted.peak_bytes / 1e6
    return (peaks[8] - peaks[4]) / 4


def track_mb(precision: str) -> float:
    """Peak memory of tracking per additional track in one pass at 1024 px, MB: each has four prompted frames and sixteen others in its memory."""
    import torch

    from egoworld_ops.operators.masks._sam2_model import build

    predictor, peaks = build("tiny", 1024, 4, True, torch.device("meta"), SEED), {}
    with as_if_cuda() as counting:
        predictor = predictor.to_empty(device="cuda")
        predictor.image_encoder.neck.position_encoding.cache.clear()
        for module in predictor.modules():
            if hasattr(module, "freqs_cis"):
                module.freqs_cis = torch.empty_like(module.freqs_cis, device="cuda")
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            for n_tracks in (4, 8):
                state = predictor.start(100, HEIGHT, WIDTH, n_tracks)
                state["constants"]["maskmem_pos_enc"] = [torch.empty(1, 64, 64, 64, device="cuda")]
                memories = [_memory(state["constants"]["maskmem_pos_enc"]) for _ in range(n_tracks)]
                predictor.encode(state, {20: torch.empty(3, 1024, 1024, device="cuda")})
                with counting() as counted:
                    predictor._track_together(state, memories, 20)
                peaks[n_tracks] = counted.peak_bytes / 1e6
    return (peaks[8] - peaks[4]) / 4


def _memory(places: list[Any]) -> dict[str, dict[int, Any]]:
    """A track's outputs in 20 frames."""
    import torch

    def output() -> dict[str, Any]:
        features = torch.empty(1, 64, 64, 64, dtype=torch.bfloat16, device="cuda")
        return {"maskmem_features": features, "maskmem_pos_enc": places, "obj_ptr": torch.empty(1, 256, device="cuda")}

    return {"cond_frame_outputs": {t: output() for t in range(4)}, "non_cond_frame_outputs": {t: output() for t in range(4, 20)}}


def track(model: str, image_size: int, micro_batch: int) -> None:
    """Track two boxes through two micro-batches of 1080p in this process, and print its peak memory and the seconds, as JSON."""
    import torch

    from egoworld_ops.operators.masks._sam2_model import build
    from egoworld_ops.operators.masks._sam2_prompts import Prompt
    from egoworld_ops.operators.masks._sam2_stream import preprocess

    torch.set_num_threads(2)
    predictor = build(model, image_size, 4, True, torch.device("cpu"), SEED)
    state = predictor.start(100, HEIGHT, WIDTH)
    rng = np.random.default_rng(0)
    prompts = [Prompt(i, "object", None, np.array(box, np.float32), np.empty((0, 2), np.float32)) for i, box in enumerate(BOXES)]
    encode_s = 0.0
    for start in range(0, 2 * micro_batch, micro_batch):
        positions = range(start, start + micro_batch)
        images = {p: preprocess(rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), image_size) for p in positions}
        began = time.perf_counter()
        predictor.encode(state, images)
        encode_s = (time.perf_counter() - began) / micro_batch
        for position in positions:
            predictor.step(state, position, prompts if position == 0 else [])
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak_mb": int(peak.split()[1]) * 1024 / 1e6, "encode_s": encode_s}))


def main() -> int:
    from egoworld_ops.operators.masks._sam2_needs import ENCODER_MB, TRACK_MB, memory_mb

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--track", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.track:
        track(given.track[0], int(given.track[1]), int(given.track[2]))
        return 0
    warnings.simplefilter("ignore")
    missed = False
    for precision in ENCODER_MB:
        counted_mb = track_mb(precision)
        missed |= counted_mb > TRACK_MB
        print(f"FIGURE sam2 tracks in one pass, {precision}: {counted_mb:.0f} MB a track more at 1024 px by shapes (table {TRACK_MB})")
    for model in given.models:
        for precision, table in ENCODER_MB.items():
            counted_mb = encoder_mb(model, precision)
            missed |= counted_mb > table[model]
            print(f"FIGURE sam2 encoder, {model}, {precision}: {counted_mb:.0f} MB a frame at 1024 px by shapes (table {table[model]})")
        for size, micro_batch in ((s, b) for s in given.sizes for b in MICRO_BATCHES):
            command = [sys.executable, "-m", "benchmarks.bench_sam2_needs", "--track", model, str(size), str(micro_batch)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            estimate_mb = memory_mb(model, size, micro_batch, 1, "cpu", "float32")
            missed |= found["peak_mb"] > estimate_mb
            print(
                f"FIGURE sam2 peak memory, {model} at {size} px, micro-batch {micro_batch}, CPU: {found['peak_mb']:.0f} MB "
                f"(limit: the estimate, {estimate_mb} MB), encoding {found['encode_s']:.3f} s a frame"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
