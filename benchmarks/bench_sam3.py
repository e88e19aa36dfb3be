"""Memory and time of SAM 3, streamed, over a long clip; beside the package's own session on the same input.

    python -m benchmarks.bench_sam3 --frames 1000
    python -m benchmarks.bench_sam3 --full 4     # a network of the published size, 3.4 GB; some minutes on a CPU

All networks are of random numbers: what is shown is that the state stays as it is, and what it costs. Each part runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egoworld_ops.operators.detections._sam3_session import Phrase, Sam3

SETTLED = 100
"""From this frame on the state must not grow."""
SEED = 3
RECONDITIONED = {"recondition_every_nth_frame": 4, "high_conf_thresh": 0.3, "high_iou_thresh": 0.05}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def state_bytes(session: object) -> int:
    from tests.egoworld_ops.operators.test_sam3_session import size_bytes

    return size_bytes(session, set())


def ours(model: Sam3, phrases: list[Phrase], n_frames: int) -> Iterator[int]:
    from egoworld_ops.operators.detections._sam3_session import Stream
    from tests.egoworld_ops.operators.test_sam3_session import images

    stream = Stream(model, phrases, n_frames)
    for image in images(n_frames):
        stream.step(image)
        yield state_bytes([stream.session, stream._held])


def package(model: Sam3, phrases: list[Phrase], n_frames: int) -> Iterator[int]:
    """The package's session, given one frame after the other."""
    import torch
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

    from tests.egoworld_ops.operators.test_sam3_session import images

    session = Sam3VideoInferenceSession(dtype=torch.float32)
    for phrase in phrases:
        number = session.add_prompt(phrase.text)
        session.prompt_input_ids[number], session.prompt_attention_masks[number] = phrase.tokens, phrase.attended
    for index, image in enumerate(images(n_frames)):
        session.add_new_frame(image, index)
        model(inference_session=session, frame_idx=index)
        yield state_bytes(session)


def measure(part: str, n_frames: int) -> dict[str, float]:
    import torch

    from egoworld_ops.operators.detections import _sam3_model, _sam3_random
    from egoworld_ops.operators.detections._hub_model import quiet

    torch.set_num_threads(1)
    limits = _sam3_model.Limits(0.3, 0.25, 0.3, 5)
    model = _sam3_random.random(SEED, limits, torch.device("cpu"), torch.float32, **RECONDITIONED)
    phrases = _sam3_random.phrases(["hand", "cup"])
    sizes, began = [], time.monotonic()
    with quiet():
        for size in {"ours": ours, "package": package}[part](model, phrases, n_frames):
            sizes.append(size)
            if len(sizes) == SETTLED:
                settled_mb = resident_mb()
    return {
        "settled_kb": max(sizes[SETTLED // 2 : SETTLED]) / 1e3,
        "last_kb": max(sizes[-SETTLED // 2 :]) / 1e3,
        "resident_settled_mb": settled_mb,
        "resident_last_mb": resident_mb(),
        "ms_per_frame": 1e3 * (time.monotonic() - began) / n_frames,
    }


def measure_full(n_frames: int) -> dict[str, float]:
    """A network of the published size in float32: the time of a frame, the process's largest size."""
    import resource

    import numpy as np
    import torch
    from transformers import Sam3VideoConfig

    from egoworld_ops.operators.detections import _sam3_model, _sam3_random
    from egoworld_ops.operators.detections._hub_model import quiet
    from egoworld_ops.operators.detections._sam3_session import Sam3, Stream

    torch.set_num_threads(2)
    config = Sam3VideoConfig(max_num_objects=2, score_threshold_detection=0.0, new_det_thresh=0.0)
    model = Sam3(config).eval()
    stream = Stream(model, _sam3_random.phrases(["hand"]), n_frames)
    rng = np.random.default_rng(0)
    began = time.monotonic()
    with quiet():
        for _ in range(n_frames):
            stream.step(_sam3_model.preprocess(rng.integers(0, 256, (480, 640, 3), np.uint8), config.image_size))
    objects = len(stream.session.obj_ids)
    return {
        "objects": objects,
        "s_per_frame": (time.monotonic() - began) / n_frames,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "state_mb_per_object": state_bytes(stream.session.output_dict_per_obj) / 1e6 / max(objects, 1),
        "parameters_m": sum(p.numel() for p in model.parameters()) / 1e6,
    }


def apart(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "benchmarks.bench_sam3", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--full", type=int, default=0, help="frames through a network of the published size")
    parser.add_argument("--part", choices=("ours", "package", "full"))
    options = parser.parse_args()
    if options.part:
        print(json.dumps(measure_full(options.frames) if options.part == "full" else measure(options.part, options.frames)))
        return 0
    if options.full:
        found = apart("--part", "full", "--frames", str(options.full))
        print(
            "FIGURE sam3 at its published size, random numbers, CPU: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        )
        return 0
    found = {
        part: apart("--part", part, "--frames", str(n)) for part, n in (("ours", options.frames), ("package", min(options.frames, 200)))
    }
    for part, said in found.items():
        print(f"FIGURE sam3 small, {part}: " + ", ".join(f"{name} {value:.1f}" for name, value in said.items()))
    return int(found["ours"]["last_kb"] > found["ours"]["settled_kb"])


if __name__ == "__main__":
    sys.exit(main())
