"""What the run lengths of masks cost between two frames of a tracker, while its device waits.

    python -m benchmarks.bench_mask_rows

Masks of a hand of a sixth of the picture's height, in pictures of four sizes: median of `ROUNDS`, on one thread; and what four such masks are of
the time that SAM 2.1 large takes for a frame by its authors' figure (24.2 frames a second).
"""

from __future__ import annotations

import time

import numpy as np

from egoworld_ops.operators.masks._pixels import pixel_columns

SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
ROUNDS = 101
MASKS = 4
FRAME_MS = 1e3 / 24.2


def hand(width: int, height: int) -> np.ndarray:
    """(H, W) bool, an ellipse with a ragged edge."""
    v, u = np.mgrid[0:height, 0:width]
    about = np.hypot((u - 0.6 * width) / 1.2, v - 0.7 * height)
    return np.asarray(about * (1 + 0.1 * np.sin(0.3 * u) * np.sin(0.2 * v)) < height / 12)


def median_ms(mask: np.ndarray) -> float:
    """Of the columns of one mask."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        pixel_columns(mask)
        taken.append(time.perf_counter() - began)
    return 1e3 * float(np.median(taken))


def main() -> None:
    """Print a line a size."""
    for width, height in SIZES:
        took_ms = median_ms(hand(width, height))
        share = MASKS * took_ms / FRAME_MS
        print(
            f"FIGURE run lengths {width}x{height}: {took_ms:.2f} ms a mask; of {MASKS} masks {100 * share:.1f} % of a frame of SAM 2.1 large"
        )


if __name__ == "__main__":
    main()
