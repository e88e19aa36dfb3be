"""A network that makes a hand mesh of a crop, made ready: its checkpoint and MANO's file read and checked, or random numbers in their place; and what
it says of a batch of crops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from egoworld_ops.files.checkpoints import read_checkpoint
from egoworld_ops.operators.hand_pose import _hamer_network, _hawor_network, _wilor_network
from egoworld_ops.operators.hand_pose._mano import PARENTS, SHAPES, Mano
from egoworld_ops.operators.hand_pose._vit import Estimate
from egoworld_ops.operators.tensors import check

Precision = Literal["float32", "bfloat16"]
_NOT_OURS = ("discriminator.", "mano.", "initialized")
"""Parts of the published checkpoints that only training needs, or that are read from MANO's own file."""
_NOT_READ = ("num_batches_tracked", "pos_embedding.pe")
"""Counters of training, and codes of places, which are computed."""
_SMALL_STEPS = ("decpose.weight", "deccam.weight", "dec_pose.weight", "dec_cam.weight")
"""Layers whose random numbers are kept small, so that hands stay before the camera."""
_ABOUT_ONE = ("weight", "running_var")
"""What random numbers of one dimension are near 1 for."""
_ROOTS_M = {1: (-0.09, 0.025), 4: (-0.09, 0.002), 7: (-0.08, -0.035), 10: (-0.085, -0.018), 13: (-0.025, 0.035)}
"""Of the random hand's fingers, x and z, by their first joint."""
_BONE_M = 0.03


class Sizes(Protocol):
    """How large a network of some kind is."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of its tensors, by its name in the checkpoint."""

    def network(self, tensors: Mapping[str, Tensor], mano: Mano) -> Callable[..., Estimate]:
        """The network with these tensors and MANO's model on the same device; it takes crops (N, 256, 256, 3), or windows of them and of boxes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the networks.

    Args:
        name: of the network, for people.
        weights: its entry in the registry of weights.
        published, small: its sizes as published, and of one of random numbers.
    """

    name: str
    weights: str
    published: Sizes
    small: Sizes


HAMER = Kind(
    "HaMeR",
    "hamer",
    _hamer_network.Sizes(),
    _hamer_network.Sizes(width=96, depth=2, heads=4, head_width=80, head_depth=1, head_heads=2, head_dim=16, head_hidden=64),
)
_SMALL = _hamer_network.Sizes(width=64, depth=1, heads=4, head_width=80, head_depth=1, head_heads=2, head_dim=16, head_hidden=64)
HAWOR = Kind("HaWoR", "hawor", _hawor_network.Sizes(), _hawor_network.Sizes(_SMALL, 32, 1, 24, 1))
WILOR = Kind("WiLoR", "wilor", _wilor_network.Sizes(), _wilor_network.Sizes(width=64, depth=1, heads=4))


@dataclass(frozen=True, slots=True)
class Hands:
    """What the model says of N right hands, float64, in the frame of each crop.

    Args:
        rotations: (N, 16, 3, 3) of MANO's joints against the flat hand.
        betas: (N, 10) MANO's shape.
        camera: (N, 3) scale and shift, see `_weak_perspective.place`.
        joints_m: (N, 21, 3) in the contract's order, about the model's origin.
        vertices_m: (N, 778, 3).
    """

    rotations: np.ndarray
    betas: np.ndarray
    camera: np.ndarray
    joints_m: np.ndarray
    vertices_m: np.ndarray


class Model:
    """Network and hand model on one device.

    Args:
        tensors: the network's, as `Sizes.shapes` has them.
        mano: arrays of MANO's file for the right hand.
        sizes: of the network.
        device: where it computes.
        precision: of the network (autocast); MANO is computed in float32.
    """

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        mano: Mapping[str, np.ndarray],
        sizes: Sizes,
        device: torch.device,
        precision: Precision,
    ) -> None:
        on_device = {name: torch.from_numpy(tensors[name]).to(device, torch.float32) for name in sizes.shapes()}
        self._mano = Mano(mano, device)
        self._network = sizes.network(on_device, self._mano)
        self._device, self._reduced = device, precision == "bfloat16"

    @torch.inference_mode()
    def __call__(self, *given: np.ndarray) -> Hands:
        """Of what its network takes, float32: crops (N, 256, 256, 3) RGB, 0 to 255, each of a right hand or the mirror image of a left one; of HaWoR
        windows of crops, and their boxes.
        """
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
            found = self._network(*(torch.from_numpy(part).to(self._device) for part in given))
        joints, vertices = self._mano(found.rotations, found.betas)
        return Hands(*(t.cpu().numpy().astype(np.float64) for t in (found.rotations, found.betas, found.camera, joints, vertices)))


def load(kind: Kind, checkpoint: Path, mano: Path, device: torch.device, precision: Precision, sizes: Sizes | None = None) -> Model:
    """The network of a checkpoint and the hand of MANO's file; of the published sizes, if no others are given.

    Raises:
        WeightsMissing, WeightsUnreadable: a file is not there, cut off or damaged.
        WeightsMismatch: a file is of another network or version.
    """
    sizes = sizes or kind.published
    arrays = {name: array for name, array in read_checkpoint(mano).items() if name in SHAPES}
    check(mano, arrays, SHAPES, "MANO's right hand", "egoworld models register mano_right MANO_RIGHT.pkl")
    read = read_checkpoint(checkpoint).items()
    tensors = {name: array for name, array in read if not (name.startswith(_NOT_OURS) or name.endswith(_NOT_READ))}
    check(checkpoint, tensors, sizes.shapes(), kind.name, f"egoworld models fetch {kind.weights}")
    return Model(tensors, arrays, sizes, device, precision)


def random(kind: Kind, seed: int, device: torch.device, precision: Precision) -> Model:
    """A small network of random numbers, and a hand of blobs: it runs like the published one, and its hands mean nothing."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in kind.small.shapes().items():
        spread = 0.02 if len(shape) == 1 else 1 / np.sqrt(np.prod(shape[1:]))
        tensors[name] = rng.normal(float(len(shape) == 1 and name.endswith(_ABOUT_ONE)), spread, shape).astype(np.float32)
        if name.endswith(_SMALL_STEPS):
            tensors[name] *= 0.1
        elif name.endswith("init_hand_pose"):
            tensors[name] = np.tile(np.array([1, 0, 0, 0, 1, 0], np.float32), (1, len(PARENTS)))
        elif name.endswith("init_cam"):
            tensors[name] = np.array([[4, 0, 0]], np.float32)
    return Model(tensors, _blobs(rng), kind.small, device, precision)


def _blobs(rng: np.random.Generator) -> Mapping[str, np.ndarray]:
    places = np.zeros((len(PARENTS), 3))
    places[0] = (0.0, 0.0, 0.005)
    for first, (x, z) in _ROOTS_M.items():
        places[first : first + 3] = [(x - i * _BONE_M, 0.0, z) for i in range(3)]
    owner = np.arange(SHAPES["v_template"][0]) % len(places)
    weights = np.eye(len(places))[owner]
    return {
        "v_template": places[owner] + rng.normal(0, 0.004, SHAPES["v_template"]),
        "shapedirs": rng.normal(0, 0.001, SHAPES["shapedirs"]),
        "posedirs": rng.normal(0, 0.0003, SHAPES["posedirs"]),
        "J_regressor": weights.T / weights.sum(0)[:, None],
        "weights": weights,
    }
