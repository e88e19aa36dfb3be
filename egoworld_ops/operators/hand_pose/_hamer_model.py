"""HaMeR made ready: its checkpoint and MANO's file read and checked, or random numbers in their place; and what it says of a batch of crops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from egoworld_ops.files.checkpoints import read_checkpoint
from egoworld_ops.operators.hand_pose._hamer_network import Network, Sizes
from egoworld_ops.operators.hand_pose._mano import PARENTS, SHAPES, Mano
from egoworld_ops.operators.tensors import check

_NOT_OURS = ("discriminator.", "mano.", "initialized")
"""Parts of the published checkpoint that only training needs, or that are read from MANO's own file."""
PUBLISHED = Sizes()
_SMALL = Sizes(width=96, depth=2, heads=4, head_width=80, head_depth=1, head_heads=2, head_dim=16, head_hidden=64)
_ROOTS_M = {1: (-0.09, 0.025), 4: (-0.09, 0.002), 7: (-0.08, -0.035), 10: (-0.085, -0.018), 13: (-0.025, 0.035)}
"""Of the random hand's fingers, x and z, by their first joint."""
_BONE_M = 0.03


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
        precision: Literal["float32", "bfloat16"],
    ) -> None:
        on_device = {name: torch.from_numpy(tensors[name]).to(device, torch.float32) for name in sizes.shapes()}
        self._network, self._mano = Network(on_device, sizes), Mano(mano, device)
        self._device, self._reduced = device, precision == "bfloat16"

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> Hands:
        """Of crops (N, 256, 256, 3) float32 RGB, 0 to 255, each of a right hand or the mirror image of a left one."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
            found = self._network(torch.from_numpy(crops).to(self._device))
        joints, vertices = self._mano(found.rotations, found.betas)
        return Hands(*(t.cpu().numpy().astype(np.float64) for t in (found.rotations, found.betas, found.camera, joints, vertices)))


def load(checkpoint: Path, mano: Path, device: torch.device, precision: Literal["float32", "bfloat16"], sizes: Sizes = PUBLISHED) -> Model:
    """The network of a checkpoint and the hand of MANO's file.

    Raises:
        WeightsMissing, WeightsUnreadable: a file is not there, cut off or damaged.
        WeightsMismatch: a file is of another network or version.
    """
    arrays = {name: array for name, array in read_checkpoint(mano).items() if name in SHAPES}
    check(mano, arrays, SHAPES, "MANO's right hand", "egoworld models register mano_right MANO_RIGHT.pkl")
    tensors = {name: array for name, array in read_checkpoint(checkpoint).items() if not name.startswith(_NOT_OURS)}
    check(checkpoint, tensors, sizes.shapes(), "HaMeR", "egoworld models fetch hamer")
    return Model(tensors, arrays, sizes, device, precision)


def random(seed: int, device: torch.device, precision: Literal["float32", "bfloat16"]) -> Model:
    """A small network of random numbers, and a hand of blobs: it runs like the published one, and its hands mean nothing."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in _SMALL.shapes().items():
        spread = 0.02 if len(shape) == 1 else 1 / np.sqrt(np.prod(shape[1:]))
        tensors[name] = rng.normal(float(len(shape) == 1 and name.endswith("weight")), spread, shape).astype(np.float32)
    tensors["mano_head.init_hand_pose"] = np.tile(np.array([1, 0, 0, 0, 1, 0], np.float32), (1, len(PARENTS)))
    tensors["mano_head.init_cam"] = np.array([[4, 0, 0]], np.float32)
    for decoder in ("decpose", "deccam"):
        tensors[f"mano_head.{decoder}.weight"] *= 0.1
    return Model(tensors, _blobs(rng), _SMALL, device, precision)


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
