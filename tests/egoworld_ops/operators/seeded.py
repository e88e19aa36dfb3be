"""Networks and a hand model whose numbers follow from their names, as `shared/data/goldens/RECIPE.txt` has them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from egoworld_ops.operators.hand_pose import _hawor_network, _wilor_network
from egoworld_ops.operators.hand_pose._hamer_network import Sizes
from egoworld_ops.operators.hand_pose._mano import PARENTS
from egoworld_ops.operators.hand_pose._mesh_model import Sizes as AnySizes

TINY = Sizes(width=96, depth=3, heads=4, head_width=80, head_depth=2, head_heads=2, head_dim=16, head_hidden=64)
TINY_HAWOR = _hawor_network.Sizes(TINY, features_width=32, features_depth=2, poses_width=24, poses_depth=2)
TINY_WILOR = _wilor_network.Sizes(width=96, depth=3, heads=4)


def generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")))


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """(shape) float32."""
    n = generator(name).standard_normal(shape, dtype=np.float32)
    last = name.rpartition(".")[2]
    if last in ("pos_embed", "pos_embedding"):
        return np.float32(0.1) * n
    if last == "init_cam":
        return np.array([[4, 0, 0]], np.float32)
    if last == "init_betas":
        return np.float32(0.3) * n
    if last == "init_hand_pose":
        return np.tile(np.array([1, 0, 0, 0, 1, 0], np.float32), 16) + np.float32(0.1) * n
    if last in ("running_mean", "running_var"):
        return np.float32(0.1) * n if last == "running_mean" else 1 + np.float32(0.1) * np.abs(n)
    if len(shape) == 1:
        return 1 + np.float32(0.1) * n if last == "weight" else np.float32(0.05) * n
    return n / np.sqrt(np.float32(np.prod(shape[1:])))


def network(sizes: AnySizes) -> dict[str, torch.Tensor]:
    """The tensors of a network."""
    return {name: torch.from_numpy(tensor(name, shape)) for name, shape in sizes.shapes().items()}


def crops(n: int) -> np.ndarray:
    """(n, 256, 256, 3) uint8 squares of 8 x 8 pixels in random colours."""
    small = [generator(f"crop.{i}").integers(0, 256, (32, 32, 3)).astype(np.uint8) for i in range(n)]
    return np.stack([s.repeat(8, 0).repeat(8, 1) for s in small])


def mano(side: str = "RIGHT") -> Mapping[str, np.ndarray]:
    """A model of MANO's structure: blobs about 16 joints of a schematic hand."""

    def normal(name: str, *shape: int) -> np.ndarray:
        return generator(f"mano.{side}.{name}").standard_normal(shape)

    places = np.zeros((16, 3))
    for first, z in ((1, 0.03), (4, 0.01), (7, -0.03), (10, -0.01), (13, 0.045)):
        x = (0.03, 0.06, 0.09) if first == 13 else (0.085, 0.115, 0.145)
        places[first : first + 3] = [(along * (-1 if side == "LEFT" else 1), 0, z) for along in x]
    owner = np.arange(778) % 16
    weights = 0.05 * np.abs(normal("weights", 778, 16))
    weights[np.arange(778), owner] += 1
    regressor = np.zeros((16, 778))
    for joint in range(16):
        regressor[joint, np.flatnonzero(owner == joint)[:12]] = 1 / 12
    template = places[owner] + 0.008 * normal("v_template", 778, 3)
    return {
        "v_template": template,
        "shapedirs": 0.003 * normal("shapedirs", 778, 3, 10),
        "posedirs": 0.001 * normal("posedirs", 778, 3, 135),
        "J_regressor": regressor,
        "J": regressor @ template,
        "weights": weights / weights.sum(1, keepdims=True),
        "f": generator(f"mano.{side}.f").integers(0, 778, (1538, 3)).astype(np.uint32),
        "kintree_table": np.array([[4294967295, *PARENTS[1:]], range(16)], np.uint32),
        "hands_mean": 0.1 * normal("hands_mean", 45),
        "hands_components": np.eye(45),
    }
