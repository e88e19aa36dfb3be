"""HaWoR's network against numbers that the published inference code gave for tensors seeded by their names (`hawor_tiny.json`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from egoworld_ops.operators.hand_pose._hawor_network import WINDOW, Network, Sizes, where
from egoworld_ops.operators.hand_pose._mano import Mano
from tests.egoworld_ops.operators import seeded

LIMIT = 1e-4
WINDOWS, FOCAL_PX, PRINCIPAL_PX = 2, 600.0, (330.0, 235.0)
KEPT = (0, 7, 15)
"""Frames of each window that the file has."""


pytestmark = pytest.mark.usefixtures("inference")


def network(sizes: Sizes = seeded.TINY_HAWOR) -> Network:
    return sizes.network(seeded.network(sizes), Mano(seeded.mano(), torch.device("cpu")))


def windows() -> tuple[torch.Tensor, torch.Tensor]:
    """Crops and boxes."""
    drawn = seeded.generator("hawor.boxes")
    centres = drawn.uniform(100, 540, (WINDOWS, WINDOW, 2)).astype(np.float32)
    sides = 200 * drawn.uniform(0.5, 1.5, (WINDOWS, WINDOW)).astype(np.float32)
    boxes = [
        [where(side, FOCAL_PX, tuple(at), PRINCIPAL_PX) for at, side in zip(*of, strict=True)] for of in zip(centres, sides, strict=True)
    ]
    crops = torch.from_numpy(seeded.crops(WINDOWS * WINDOW).astype(np.float32)).unflatten(0, (WINDOWS, WINDOW))
    return crops, torch.tensor(boxes, dtype=torch.float32)


def test_the_tiny_network_equals_the_published_code() -> None:
    want = json.loads(Path(__file__).with_name("hawor_tiny.json").read_text())
    found, off = network()(*windows()), {}
    for name in ("rotations", "betas", "camera"):
        ours = getattr(found, name).unflatten(0, (WINDOWS, WINDOW))[:, KEPT].numpy()
        assert ours.shape == np.shape(want[name])
        off[name] = float(np.abs(ours - want[name]).max())
    print(f"FIGURE hawor tiny: largest difference {max(off.values()):.1e} of {len(off)} outputs (limit {LIMIT}), {off}")
    assert max(off.values()) < LIMIT


def test_windows_do_not_see_each_other_and_frames_of_one_do() -> None:
    ours, (crops, boxes) = network(), windows()
    both = ours(crops, boxes).rotations.unflatten(0, (WINDOWS, WINDOW))
    alone = ours(crops[1:], boxes[1:]).rotations
    assert alone.numpy() == pytest.approx(both[1].numpy(), abs=1e-4)
    boxes[1, 3] += 1
    moved = ours(crops, boxes).rotations.unflatten(0, (WINDOWS, WINDOW))
    assert moved[0].numpy() == pytest.approx(both[0].numpy(), abs=1e-4)
    assert float((moved[1, 12] - both[1, 12]).abs().max()) > 1e-3


def test_the_published_sizes_have_the_names_of_hamer_and_those_of_both_modules() -> None:
    shapes = Sizes().shapes()
    assert len(shapes) == 503 + 2 * (4 + 6 * 12)
    assert shapes["st_module.l1.weight"] == (512, 1283)
    assert shapes["motion_module.trans.layers.5.self_attn.in_proj_weight"] == (3 * 384, 384)
