"""SAM 2's tracking of 1, 2, 4, 8 objects in one pass (`tracks_at_once`) beside one object after the other, on the same pictures.

    python -m benchmarks.bench_sam2_together
    python -m benchmarks.bench_sam2_together --image-size 512 --frames 12

Both take each frame in turn in one process, on one thread, with random weights. Seconds are the processor's, of tracking alone: the image encoder,
which all objects share, is not in them. Operations are those that torch dispatches for a frame, each of which a GPU launches by itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import Any

import numpy as np

HEIGHT, WIDTH = 240, 320
FULL = 17
"""From this frame on the memory of objects that are prompted in the first frame is full."""
SEED = 3


def boxes(n: int) -> list[Any]:
    """Prompts of n objects that lie side by side."""
    from egoworld_ops.operators.masks._sam2_prompts import Prompt

    corners = [np.array([10 + 20 * i, 20, 60 + 20 * i, 80 + 10 * i], np.float32) for i in range(n)]
    return [Prompt(10 + i, "object", None, box, np.empty((0, 2), np.float32)) for i, box in enumerate(corners)]


def measure(image_size: int, n_objects: int, n_frames: int) -> None:
    """Print a line of one number of objects."""
    import torch

    from egoworld_ops.operators.masks._sam2_model import build
    from egoworld_ops.operators.masks._sam2_stream import preprocess

    predictor = build("tiny", image_size, 4, False, torch.device("cpu"), SEED)
    states = {at_once: predictor.start(n_frames, HEIGHT, WIDTH, at_once) for at_once in {1, n_objects}}
    seconds: dict[int, list[float]] = {at_once: [] for at_once in states}
    rng, worst, largest = np.random.default_rng(0), 0.0, 0.0
    for index in range(n_frames):
        picture = preprocess(rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), image_size)
        logits = {}
        for at_once, state in states.items():
            predictor.encode(state, {index: picture})
            began = time.process_time()
            logits[at_once] = torch.stack([mask.logits for mask in predictor.step(state, index, boxes(n_objects) if index == 0 else [])])
            seconds[at_once].append(time.process_time() - began)
        worst = max(worst, float((logits[1] - logits[n_objects]).abs().max()))
        largest = max(largest, float(logits[1].max()))
    one, together = (statistics.median(seconds[at_once][FULL:]) for at_once in (1, n_objects))
    launched = {at_once: operations(predictor, state, n_frames, picture) for at_once, state in states.items()}
    print(
        f"FIGURE sam2 tiny at {image_size} px, {n_objects} objects in one pass: {together:.3f} s a frame, {one / together:.2f} x as fast as one by "
        f"one; {launched[n_objects]} operations in place of {launched[1]}; largest difference of a logit {worst:.1e} (of up to {largest:.1f})",
        flush=True,
    )


def operations(predictor: Any, state: dict[str, Any], position: int, picture: Any) -> int:
    """How many operations torch dispatches to track all objects into one frame more."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        counted = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.counted += 1
            return function(*args, **(kwargs or {}))

    predictor.encode(state, {position: picture})
    with Counting() as counting:
        predictor.step(state, position, [])
    return counting.counted


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4, 8])
    given = parser.parse_args()
    if given.frames <= FULL:
        parser.error(f"--frames: want more than {FULL}")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for n_objects in given.objects:
        measure(given.image_size, n_objects, given.frames)


if __name__ == "__main__":
    main()
