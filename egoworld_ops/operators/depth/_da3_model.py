"""DA3METRIC-LARGE made ready: its checkpoint read and checked, or random numbers in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from egoworld_ops.files.checkpoints import read_checkpoint
from egoworld_ops.operators.depth._da3_network import Network, Sizes
from egoworld_ops.operators.tensors import check

PUBLISHED = Sizes()
_SMALL = Sizes(width=48, depth=5, heads=4, side=5, taps=(0, 1, 3, 4), features=32, channels=(16, 24, 32, 40), hidden=8)


class Model:
    """The network on one device.

    Args:
        tensors: as `Sizes.shapes` has them.
        sizes: of the network.
        device: where it computes.
        precision: of the network (autocast).
    """

    def __init__(
        self, tensors: Mapping[str, np.ndarray], sizes: Sizes, device: torch.device, precision: Literal["float32", "bfloat16"]
    ) -> None:
        on_device = {name: torch.from_numpy(tensors[name]).to(device, torch.float32) for name in sizes.shapes()}
        self._network, self._device, self._reduced = Network(on_device, sizes), device, precision == "bfloat16"

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth as of a camera of 300 px, and sky, each (N, H, W) float32, of pictures (N, H, W, 3) uint8 RGB."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
            depth, sky = self._network(torch.from_numpy(pictures).to(self._device))
        return depth.cpu().numpy(), sky.cpu().numpy()


def load(checkpoint: Path, device: torch.device, precision: Literal["float32", "bfloat16"], sizes: Sizes = PUBLISHED) -> Model:
    """The network of a checkpoint.

    Raises:
        WeightsMissing, WeightsUnreadable: the file is not there, cut off or damaged.
        WeightsMismatch: it is of another network or version.
    """
    tensors = read_checkpoint(checkpoint)
    check(checkpoint, tensors, sizes.shapes(), "DA3METRIC-LARGE", "egoworld models fetch da3metric_large")
    return Model(tensors, sizes, device, precision)


def random(seed: int, device: torch.device, precision: Literal["float32", "bfloat16"]) -> Model:
    """A small network of random numbers: it runs like the published one, and its depths mean nothing."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in _SMALL.shapes().items():
        spread = 0.02 if len(shape) == 1 else 1 / np.sqrt(np.prod(shape[1:]))
        tensors[name] = rng.normal(float(len(shape) == 1 and name.endswith(("weight", "gamma"))), spread, shape).astype(np.float32)
    return Model(tensors, _SMALL, device, precision)
