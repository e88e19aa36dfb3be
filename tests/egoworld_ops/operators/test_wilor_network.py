"""WiLoR's network against numbers that the published network code gave for tensors seeded by their names (`wilor_tiny.json`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from egoworld_ops.operators.hand_pose import _wilor_network
from egoworld_ops.operators.hand_pose._mano import Mano
from egoworld_ops.operators.hand_pose._wilor_network import Network, Sizes
from tests.egoworld_ops.operators import seeded

CPU = torch.device("cpu")
LIMIT = 1e-4
PUBLISHED_BYTES = 2_564_989_533
"""Of `wilor_final.ckpt`."""


pytestmark = pytest.mark.usefixtures("inference")


def network(sizes: Sizes = seeded.TINY_WILOR) -> Network:
    return sizes.network(seeded.network(sizes), Mano(seeded.mano(), CPU))


def test_the_tiny_network_equals_the_published_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last numbers, and on the way: the first hand's orientation, and what is gathered of the finest and of the coarsest map."""
    want = json.loads(Path(__file__).with_name("wilor_tiny.json").read_text())
    ours, seen = network(), []
    gathered = _wilor_network._gathered
    monkeypatch.setattr(_wilor_network, "_gathered", lambda *given: seen.append(gathered(*given)) or seen[-1])
    said, features = ours.first(ours.normalised(torch.from_numpy(seeded.crops(3))))
    found = ours.refined(said, features)
    joints_m, _ = Mano(seeded.mano(), CPU)(found.rotations, found.betas)
    got = {
        "first_global_rotation": _wilor_network._estimate(said).rotations[:, 0],
        "gathered_first8_last8": torch.cat([seen[0][:, :8], seen[-1][:, -8:]], 1),
        "betas": found.betas,
        "camera": found.camera,
        "joints_m": joints_m,
    }
    assert {name: list(value.shape) for name, value in got.items()} == {n: list(np.shape(v)) for n, v in want.items() if n != "about"}
    off = {name: float(np.abs(value.numpy() - want[name]).max()) for name, value in got.items()}
    print(f"FIGURE wilor tiny: largest difference {max(off.values()):.1e} of {len(off)} outputs (limit {LIMIT}), {off}")
    assert max(off.values()) < LIMIT


def test_the_tensors_fill_the_published_checkpoint() -> None:
    """Its size, less discriminator and MANO as HaMeR's has them (7.68 MB) and the list of what is in it (0.4 kB a tensor there)."""
    shapes = Sizes().shapes()
    left = PUBLISHED_BYTES - 4 * sum(int(np.prod(shape)) for shape in shapes.values()) - 7_682_224
    assert 0 < left < 500 * len(shapes)


def test_a_batch_of_eight_is_eight_batches_of_one() -> None:
    ours, crops = network(), torch.from_numpy(seeded.crops(8))
    together = ours(crops)
    for i in range(8):
        alone = ours(crops[i : i + 1])
        for name in ("rotations", "betas", "camera"):
            assert getattr(alone, name)[0].numpy() == pytest.approx(getattr(together, name)[i].numpy(), abs=1e-4), (name, i)
