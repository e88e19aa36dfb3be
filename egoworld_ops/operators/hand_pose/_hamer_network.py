"""HaMeR's network (Pavlakos et al., "Reconstructing Hands in 3D with Transformers", CVPR 2024): a ViT-H (`_vit.py`) and a decoder of one token.

Facts are those of github.com/geopavlakos/hamer, commit 3a01849 (MIT); no code of it is in here. Compared with it number by number in
`tests/egoworld_ops/operators/test_hamer_network.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from egoworld_ops.operators.hand_pose import _vit
from egoworld_ops.operators.hand_pose._mano import Mano
from egoworld_ops.operators.hand_pose._vit import N_BETAS, N_ROTATIONS, Estimate, Vit, affine, attention, rotations_of

_EPS = 1e-5
_HEAD, _LAYERS = "mano_head", "mano_head.transformer.transformer.layers"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a network; the defaults are those of the published one.

    Args:
        width, depth, heads: of the ViT.
        head_width, head_depth, head_heads, head_dim, head_hidden: of the decoder; `head_dim` is the width of one attention head.
    """

    width: int = 1280
    depth: int = 32
    heads: int = 16
    head_width: int = 1024
    head_depth: int = 6
    head_heads: int = 8
    head_dim: int = 64
    head_hidden: int = 1024

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the network, by its name in the checkpoint."""
        w, inner = self.head_width, self.head_heads * self.head_dim
        found = _vit.shapes(self.width, self.depth)
        found |= {f"{_HEAD}.transformer.pos_embedding": (1, 1, w)} | affine(f"{_HEAD}.transformer.to_token_embedding", w, 1)
        for own, cross, feed in ([f"{_LAYERS}.{i}.{j}" for j in range(3)] for i in range(self.head_depth)):
            found |= affine(f"{own}.norm", w) | affine(f"{cross}.norm", w) | affine(f"{feed}.norm", w)
            found |= {f"{own}.fn.to_qkv.weight": (3 * inner, w), f"{cross}.fn.to_q.weight": (inner, w)}
            found |= {f"{cross}.fn.to_kv.weight": (2 * inner, self.width)}
            found |= affine(f"{own}.fn.to_out.0", w, inner) | affine(f"{cross}.fn.to_out.0", w, inner)
            found |= affine(f"{feed}.fn.net.0", self.head_hidden, w) | affine(f"{feed}.fn.net.3", w, self.head_hidden)
        for decoder, mean, n in (
            ("decpose", "init_hand_pose", 6 * N_ROTATIONS),
            ("decshape", "init_betas", N_BETAS),
            ("deccam", "init_cam", 3),
        ):
            found |= affine(f"{_HEAD}.{decoder}", n, w) | {f"{_HEAD}.{mean}": (1, n)}
        return found

    def network(self, tensors: Mapping[str, Tensor], mano: Mano) -> Network:
        """The network with these tensors, as `shapes` has them, on their device. It does not look at the hand's surface."""
        return Network(tensors, self)


class Network(Vit):
    """The network with given tensors, on their device.

    Args:
        tensors: as `Sizes.shapes` has them.
        sizes: of the network.
    """

    def __init__(self, tensors: Mapping[str, Tensor], sizes: Sizes) -> None:
        super().__init__(tensors, sizes.depth, sizes.heads)
        self._sizes = sizes

    def __call__(self, crops: Tensor) -> Estimate:
        """Of crops (N, 256, 256, 3) RGB, 0 to 255, each of a right hand or the mirror image of a left one."""
        return self.head(self.backbone(self.normalised(crops)))

    def backbone(self, images: Tensor) -> Tensor:
        """(N, 192, width) a feature for each patch, row by row."""
        return self.transformed(self.patches(images))

    def token(self, features: Tensor) -> Tensor:
        """(N, head_width) what the decoder's one token has gathered from features (N, 192, width). It starts as zero: its embedding is a bias."""
        start = self.tensors[f"{_HEAD}.transformer.to_token_embedding.bias"] + self.tensors[f"{_HEAD}.transformer.pos_embedding"]
        x = start.expand(len(features), 1, -1)
        for own, cross, feed in ([f"{_LAYERS}.{i}.{j}" for j in range(3)] for i in range(self._sizes.head_depth)):
            q, k, v = self.linear(f"{own}.fn.to_qkv", self.norm(f"{own}.norm", x, _EPS)).chunk(3, -1)
            x = x + self.linear(f"{own}.fn.to_out.0", attention(q, k, v, self._sizes.head_heads))
            q = self.linear(f"{cross}.fn.to_q", self.norm(f"{cross}.norm", x, _EPS))
            k, v = self.linear(f"{cross}.fn.to_kv", features).chunk(2, -1)
            x = x + self.linear(f"{cross}.fn.to_out.0", attention(q, k, v, self._sizes.head_heads))
            wide = functional.gelu(self.linear(f"{feed}.fn.net.0", self.norm(f"{feed}.norm", x, _EPS)))
            x = x + self.linear(f"{feed}.fn.net.3", wide)
        return x[:, 0]

    def head(self, features: Tensor) -> Estimate:
        """What features (N, 192, width) say of the hands."""
        six, betas, camera = self.read(features)
        return Estimate(rotations_of(six.unflatten(-1, (N_ROTATIONS, 6))), betas, camera)

    def read(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Six numbers of each rotation (N, 96), shape (N, 10) and camera (N, 3), float32, of features (N, 192, width)."""
        token = self.token(features)
        six, betas, camera = (
            (self.linear(f"{_HEAD}.{decoder}", token) + self.tensors[f"{_HEAD}.{mean}"]).to(torch.float32)
            for decoder, mean in (("decpose", "init_hand_pose"), ("decshape", "init_betas"), ("deccam", "init_cam"))
        )
        return six, betas, camera
