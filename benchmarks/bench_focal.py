"""The focal length of a camera from its own motion, against the true one, and what is refused.

    python -m benchmarks.bench_focal [SEEDS]

Rooms of textured rectangles at 640x480, seeds 41, 42, ... (tests and thresholds were made with others), without hands, seen through pinhole cameras
of 50 to 110 degrees: a walk of half a metre, the same before plain walls, and a head that sways by 2 cm. `error` is that of the focal length,
`stated` its standard error. Then cameras that only turn, rest, or see nothing but plain surfaces, of the same fields of view: all must be refused.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import cv2
import numpy as np

from benchmarks.bench_camera import FRAMES, PATHS, taken
from egoworld_ops.operators.camera._focal import Estimate, estimate
from egoworld_ops.synthetic.room import render_room
from egoworld_ops.types import Camera, Frame
from egoworld_ops.video.sidecar import Sidecar

FIRST_SEED, FIELDS_DEG = 41, (50, 65, 80, 95, 110)
WALKED, REFUSED = ("walk", "sway", "half plain"), ("turn", "still", "plain")


def camera_of(deg: float) -> Camera:
    """A camera of 640x480 with this field of view across."""
    focal_px = 320 / np.tan(np.radians(deg) / 2)
    return Camera(focal_px, focal_px, 319.5, 239.5, 640, 480, "assumed_fov")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="?", type=int, default=1)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--paths", nargs="+", choices=(*WALKED, *REFUSED), default=(*WALKED, *REFUSED))
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    for name in asked.paths:
        (path, patches), ratios, refused, spent = PATHS[name], [], Counter[str](), time.process_time()
        for deg in FIELDS_DEG:
            for seed in range(asked.first, asked.first + asked.seeds):
                true = camera_of(deg)
                poses = [path(i / (FRAMES - 1)) for i in range(FRAMES)]
                frames = [Frame(i, i / 30, render_room(true, T, patches, seed, i)[0]) for i, T in enumerate(poses)]
                found = estimate(taken(camera_of(70), frames, Sidecar()))
                if isinstance(found, Estimate):
                    error = found.focal_px / true.fx_px - 1
                    ratios.append((error, found.error_share))
                    print(f"{name}, {deg} degrees, seed {seed}: error {error:+.2%}, stated {found.error_share:.2%}", flush=True)
                else:
                    refused[found.kind] += 1
        errors = np.array(ratios).reshape(-1, 2)
        said = f"refused {dict(refused)}"
        if len(errors):
            within = [f"within {k} stated: {np.mean(np.abs(errors[:, 0]) <= k * errors[:, 1]):.2f}" for k in (1, 2)]
            said += f"; error {np.sqrt((errors[:, 0] ** 2).mean()):.2%} rms, {np.abs(errors[:, 0]).max():.2%} at most, {', '.join(within)}"
        each = (time.process_time() - spent) / (len(FIELDS_DEG) * asked.seeds)
        print(
            f"FIGURE focal, {name}: found {len(errors)} of {len(errors) + sum(refused.values())}, {said}; {each:.1f} s of CPU", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
