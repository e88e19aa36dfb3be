"""What FoundationPose takes on this machine's CPU at its published sizes: seconds and peak memory of a registration and of a frame followed.

    python -m benchmarks.bench_foundationpose                 # one round with 252 hypotheses and the score of all, some minutes
    python -m benchmarks.bench_foundationpose --frames 1000   # a thousand frames followed by random numbers instead: whether memory grows

The networks have random tensors and the published shapes, exported by the tests' own code; poses mean nothing, seconds and megabytes do.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from egoworld_ops.operators.object_pose._foundationpose import Estimator, Target, part_around
from egoworld_ops.operators.object_pose._foundationpose_networks import Published
from egoworld_ops.operators.object_pose._foundationpose_pairs import view_of
from egoworld_ops.operators.object_pose._renderer import Renderer
from egoworld_ops.vision.geometry import make_transform
from tests.egoworld_ops.operators.foundationpose_networks import NETWORKS, export, of_names
from tests.egoworld_ops.operators.painted import CAMERA, Still, draw, painted

THREADS, MICRO_BATCH, BETWEEN = 2, 42, 250
POSE = make_transform(np.eye(3), np.array([0.03, -0.02, 0.45]))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def target() -> Target:
    scene, mesh = draw(POSE), painted()
    part = part_around(CAMERA, scene.mask, 0.45, mesh.diameter_m)
    return Target(view_of(CAMERA, scene.rgb, scene.depth_m[part], part), scene.mask, np.zeros_like(scene.mask))


def registration() -> None:
    """One round of 252 hypotheses, and their score."""
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{kind}.onnx" for kind in NETWORKS}
        for kind, path in files.items():
            export(of_names(kind), kind, "library", path)
        mesh, seen, began_mb = painted(), target(), peak_mb()
        estimator = Estimator(
            Published(files["refine"], files["score"], "cpu", tensorrt=False, threads=THREADS), Renderer(mesh, "cpu"), mesh, MICRO_BATCH
        )
        loaded_mb, began = resident_mb(), time.monotonic()
        estimator.follow(seen.view, POSE, 2)
        followed_s, refined_mb, began = time.monotonic() - began, peak_mb(), time.monotonic()
        estimator.register(seen, 1)
        print(f"FIGURE foundationpose on {THREADS} cores: a frame followed (2 rounds) {followed_s:.2f} s", end="; ")
        print(f"252 hypotheses refined once and scored {time.monotonic() - began:.0f} s")
        print(f"FIGURE foundationpose memory: {loaded_mb:.0f} MB with networks loaded, peak {peak_mb():.0f} MB", end=" ")
        print(f"(peak before {began_mb:.0f} MB, which exporting took, and {refined_mb:.0f} MB after one pair)")


def following(frames: int) -> None:
    """Everything but the networks, frame after frame."""
    mesh, seen = painted(), target()
    estimator, T, held = Estimator(Still(), Renderer(mesh, "cpu"), mesh, MICRO_BATCH), POSE, []
    began = time.monotonic()
    for i in range(frames):
        T = estimator.follow(seen.view, T, 2)
        estimator.fit(seen, T)
        if i % BETWEEN == BETWEEN - 1:
            held.append(resident_mb())
    print(f"FIGURE foundationpose: all but the networks takes {1e3 * (time.monotonic() - began) / frames:.1f} ms a frame", end="; ")
    print(f"resident after every {BETWEEN} of {frames} frames: {[round(mb, 1) for mb in held]} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=0)
    frames = parser.parse_args().frames
    following(frames) if frames else registration()


if __name__ == "__main__":
    main()
