"""Memory and time of the masks backend `sam2` over a long clip, beside the package's own predictor on the same input.

    python benchmarks/bench_sam2_memory.py --frames 400 --image-size 256

Each of the two runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 480, 640
SETTLED = 100
"""From this frame on memory must be flat."""
SEED = 3
BOXES = {10: (60, 120, 160, 220), 11: (400, 300, 500, 400)}
"""Corners of two objects in the first frame, px."""


def picture(index: int) -> np.ndarray:
    """Two squares that move over a noisy ground, (HEIGHT, WIDTH, 3) uint8."""
    rgb = np.random.default_rng(index).integers(60, 110, (HEIGHT, WIDTH, 3), np.uint8)
    shift = index % 200
    rgb[120:220, 60 + shift : 160 + shift] = (220, 160, 130)
    rgb[300:400, 400 - shift : 500 - shift] = (30, 60, 220)
    return rgb


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def ours(n_frames: int, image_size: int, micro_batch: int) -> Iterator[None]:
    """The streaming predictor: pictures are made as they are asked for."""
    import torch

    from egoworld_ops.operators.masks._sam2_model import build
    from egoworld_ops.operators.masks._sam2_prompts import Prompt
    from egoworld_ops.operators.masks._sam2_stream import preprocess

    predictor = build("tiny", image_size, 4, False, torch.device("cpu"), SEED)
    state = predictor.start(n_frames, HEIGHT, WIDTH)
    prompts = [Prompt(i, "object", None, np.array(box, np.float32), np.empty((0, 2), np.float32)) for i, box in BOXES.items()]
    for index in range(n_frames):
        if index % micro_batch == 0:
            positions = range(index, min(index + micro_batch, n_frames))
            predictor.encode(state, {p: preprocess(picture(p), image_size) for p in positions})
        predictor.step(state, index, prompts if index % 50 == 0 else [])
        yield


def package(n_frames: int, image_size: int, micro_batch: int) -> Iterator[None]:
    """The package's predictor: all pictures are files first, and then one tensor."""
    import torch
    from hydra import initialize_config_module
    from PIL import Image

    initialize_config_module("sam2")
    from sam2.build_sam import build_sam2_video_predictor

    overrides = [f"++model.image_size={image_size}"]
    torch.manual_seed(SEED)
    predictor = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu", hydra_overrides_extra=overrides)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(n_frames):
            Image.fromarray(picture(index)).save(Path(folder) / f"{index}.jpg")
        state = predictor.init_state(folder)
    for at in range(0, n_frames, 50):
        for track_id, box in BOXES.items():
            predictor.add_new_points_or_box(state, at, track_id, box=np.array(box, np.float32))
    for _ in predictor.propagate_in_video(state):
        yield


def measure(which: str, n_frames: int, image_size: int, micro_batch: int, threads: int) -> None:
    """Print resident memory after each frame and the seconds of the tracking alone, as JSON."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    sizes_mb, start_s = [], 0.0
    for _ in {"ours": ours, "package": package}[which](n_frames, image_size, micro_batch):
        sizes_mb.append(resident_mb())
        start_s = start_s or time.perf_counter()
    print(json.dumps({"mb": sizes_mb, "s_per_frame": (time.perf_counter() - start_s) / (n_frames - 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=4, help="of ours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("ours", "package"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.frames <= 2 * SETTLED:
        parser.error(f"--frames: want more than {2 * SETTLED}")
    if given.only:
        measure(given.only, given.frames, given.image_size, given.micro_batch, given.threads)
        return
    runs = {}
    for which in ("ours", "package"):
        command = [sys.executable, __file__, "--only", which, "--frames", str(given.frames), "--image-size", str(given.image_size)]
        command += ["--threads", str(given.threads), "--micro-batch", str(given.micro_batch)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        run = runs[which] = json.loads(done.stdout)
        run["growth_mb"] = float(np.median(run["mb"][-20:]) - np.median(run["mb"][SETTLED - 20 : SETTLED]))
    mine, theirs = runs["ours"], runs["package"]
    span = f"frame {SETTLED} to {given.frames}, tiny at {given.image_size} px, 2 objects prompted every 50 frames, micro-batch {given.micro_batch}"
    print(f"FIGURE sam2 memory growth: {mine['growth_mb']:+.1f} MB from {span} (the package's own {theirs['growth_mb']:+.1f} MB)")
    print(f"FIGURE sam2 peak memory: {max(mine['mb']):.0f} MB, {max(mine['mb']) / max(theirs['mb']):.2f} x the package's own")
    ratio = mine["s_per_frame"] / theirs["s_per_frame"]
    print(f"FIGURE sam2 time: {mine['s_per_frame']:.3f} s a frame, {ratio:.2f} x the package's own tracking (which decodes beforehand)")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
