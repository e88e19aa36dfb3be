"""The networks at their published sizes against numbers of the published code: `make models-full`. HaMeR takes 3.5 GB of memory and a minute.

Not part of `make test`, which compares small networks of the same kind.
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
from tests.egoworld_ops.operators.test_hamer_network import LIMIT, differences


def test_hamer(shared_data: Path) -> None:
    """670,409,946 numbers, seeded by their names; two crops."""
    began = time.monotonic()
    with torch.inference_mode():
        off = differences(Sizes(), shared_data / "goldens" / "hamer_full.npz")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"FIGURE hamer full: largest difference {max(off.values()):.1e} (limit {LIMIT}), {time.monotonic() - began:.0f} s, {peak_mb:.0f} MB, {off}"
    )
    assert max(off.values()) < LIMIT


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
