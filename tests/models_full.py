"""The networks at their published sizes against numbers of the published code, and a worker killed at each backend that has random weights:
`make models-full`. HaMeR takes 3.5 GB of memory and a minute.

Not part of `make test`, which compares small networks of the same kind, and kills a worker at one of them. WiLoR is not here: its published code
gave numbers for a small network alone (`wilor_tiny.json`).
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
import torch

from egoworld_ops.operators.hand_pose._hamer_network import Sizes
from tests.egoworld_ops.operators.foundationpose_networks import WIDTH, Layout
from tests.egoworld_ops.operators.test_foundationpose_networks import exported, layout_differences
from tests.egoworld_ops.operators.test_hamer_network import LIMIT
from tests.egoworld_ops.operators.test_hamer_network import differences as hamer_differences
from tests.egoworld_ops.operators.test_masks_sam2 import make
from tests.egoworld_ops.operators.test_masks_sam2_compiled import MICRO_BATCH, differences, scene
from tests.gpu_workers import killed_models


def test_hamer(shared_data: Path) -> None:
    """670,409,946 numbers, seeded by their names; two crops."""
    began = time.monotonic()
    with torch.inference_mode():
        off = hamer_differences(Sizes(), shared_data / "goldens" / "hamer_full.npz")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"FIGURE hamer full: largest difference {max(off.values()):.1e} (limit {LIMIT}), {time.monotonic() - began:.0f} s, {peak_mb:.0f} MB, {off}"
    )
    assert max(off.values()) < LIMIT


def test_sam2_compiled() -> None:
    """Inductor's kernels for the image encoder of SAM 2.1 tiny, at 256 px."""
    operators = {name: make(image_size=256, micro_batch=MICRO_BATCH, compile=name == "compiled") for name in ("as it is", "compiled")}
    off, taken = differences(operators["compiled"], scene(), image_size=256), {}
    for name, operator in operators.items():
        began = time.monotonic()
        operator.run(scene())
        taken[name] = time.monotonic() - began
    print(f"FIGURE sam2 compiled: least IoU of masks {1 - off:.6f} (limit 0.999), {taken['as it is'] / taken['compiled']:.2f} x as fast")
    assert off <= 1e-3


@pytest.mark.parametrize("layout", ["library", "isaac"])
def test_foundationpose(layout: Layout, tmp_path: Path) -> None:
    """ONNX files of the published sizes, made of networks that `make test` compares with the published code."""
    began, made = time.monotonic(), exported(tmp_path, layout, WIDTH)
    off = layout_differences(made, WIDTH, (3,))
    sizes = [path.stat().st_size for path in made]
    print(
        f"FIGURE foundationpose full {layout}: largest difference {off:.1e} (limit {LIMIT}), {time.monotonic() - began:.0f} s, {sizes} bytes"
    )
    assert off < LIMIT


@pytest.mark.parametrize("name", killed_models.OPTIONS)
def test_a_worker_that_is_killed_at_a_model_loses_no_clip(name: str, tmp_path: Path) -> None:
    print(f"FIGURE {killed_models.check(name, tmp_path)}")
