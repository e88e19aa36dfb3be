"""HaMeR's network (Pavlakos et al., "Reconstructing Hands in 3D with Transformers", CVPR 2024): a ViT-H and a decoder of one token.

Written as functions of a checkpoint's tensors, by the names they have in the published one; sizes are data, so that a small network of the same
kind can be tested. It is inference only: dropout is left out. Facts are those of github.com/geopavlakos/hamer, commit 3a01849 (MIT); no code of it
is in here. Compared with it number by number in `tests/egoworld_ops/operators/test_hamer_network.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

CROP_PX = 256
FOCAL_PX = 5000.0
"""Of the camera that the network was trained with, in pixels of the crop: nearly parallel rays."""
_PATCH_PX = 16
_ROWS, _COLUMNS = 16, 12
_SIDE_MARGIN_PX = 32
"""Columns cut off at both sides: the network sees 256 x 192 pixels."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_N_ROTATIONS, _N_BETAS = 16, 10
_BACKBONE_EPS, _HEAD_EPS = 1e-6, 1e-5
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
        d, w = self.width, self.head_width
        inner = self.head_heads * self.head_dim
        found: dict[str, tuple[int, ...]] = {"backbone.pos_embed": (1, _ROWS * _COLUMNS + 1, d)}
        found |= _affine("backbone.patch_embed.proj", d, 3, _PATCH_PX, _PATCH_PX)
        for block in (f"backbone.blocks.{i}" for i in range(self.depth)):
            found |= _affine(f"{block}.norm1", d) | _affine(f"{block}.attn.qkv", 3 * d, d) | _affine(f"{block}.attn.proj", d, d)
            found |= _affine(f"{block}.norm2", d) | _affine(f"{block}.mlp.fc1", 4 * d, d) | _affine(f"{block}.mlp.fc2", d, 4 * d)
        found |= _affine("backbone.last_norm", d)
        found |= {f"{_HEAD}.transformer.pos_embedding": (1, 1, w)} | _affine(f"{_HEAD}.transformer.to_token_embedding", w, 1)
        for own, cross, feed in ([f"{_LAYERS}.{i}.{j}" for j in range(3)] for i in range(self.head_depth)):
            found |= _affine(f"{own}.norm", w) | _affine(f"{cross}.norm", w) | _affine(f"{feed}.norm", w)
            found |= {f"{own}.fn.to_qkv.weight": (3 * inner, w), f"{cross}.fn.to_q.weight": (inner, w)}
            found |= {f"{cross}.fn.to_kv.weight": (2 * inner, d)}
            found |= _affine(f"{own}.fn.to_out.0", w, inner) | _affine(f"{cross}.fn.to_out.0", w, inner)
            found |= _affine(f"{feed}.fn.net.0", self.head_hidden, w) | _affine(f"{feed}.fn.net.3", w, self.head_hidden)
        for decoder, mean, n in (
            ("decpose", "init_hand_pose", 6 * _N_ROTATIONS),
            ("decshape", "init_betas", _N_BETAS),
            ("deccam", "init_cam", 3),
        ):
            found |= _affine(f"{_HEAD}.{decoder}", n, w) | {f"{_HEAD}.{mean}": (1, n)}
        return found


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the network says of N right hands, float32.

    Args:
        rotations: (N, 16, 3, 3) of MANO's joints, the first of the whole hand in the frame of its crop, the others against their parents; relative
            to the flat hand (`flat_hand_mean = true`).
        betas: (N, 10) MANO's shape.
        camera: (N, 3) scale s and shift tx, ty, metres: the hand's origin is at (tx, ty, 2 * FOCAL_PX / (CROP_PX * s)) before a camera of
            FOCAL_PX that looks at the middle of the crop.
    """

    rotations: Tensor
    betas: Tensor
    camera: Tensor


class Network:
    """The network with given tensors, on their device.

    Args:
        tensors: as `Sizes.shapes` has them.
        sizes: of the network.
    """

    def __init__(self, tensors: Mapping[str, Tensor], sizes: Sizes) -> None:
        self._tensors, self._sizes = dict(tensors), sizes

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._tensors["backbone.pos_embed"].device

    def __call__(self, crops: Tensor) -> Estimate:
        """Of crops (N, 256, 256, 3) RGB, 0 to 255, each of a right hand or the mirror image of a left one."""
        return self.head(self.backbone(self.normalised(crops)))

    def normalised(self, crops: Tensor) -> Tensor:
        """(N, 3, 256, 192) float32 what the first layer sees of crops (N, 256, 256, 3): ImageNet's mean and deviation taken out."""
        mean, std = (torch.tensor(v, device=crops.device) * 255 for v in (_MEAN, _STD))
        inner = crops[:, :, _SIDE_MARGIN_PX:-_SIDE_MARGIN_PX].to(torch.float32)
        return ((inner - mean) / std).permute(0, 3, 1, 2).contiguous()

    def backbone(self, images: Tensor) -> Tensor:
        """(N, 192, width) a feature for each patch, row by row."""
        place = self._tensors["backbone.pos_embed"]
        weight, bias = (self._tensors[f"backbone.patch_embed.proj.{part}"] for part in ("weight", "bias"))
        x = functional.conv2d(images, weight, bias, stride=_PATCH_PX, padding=2).flatten(2).transpose(1, 2)
        x = x + place[:, 1:] + place[:, :1]
        for block in (f"backbone.blocks.{i}" for i in range(self._sizes.depth)):
            q, k, v = self._linear(f"{block}.attn.qkv", self._norm(f"{block}.norm1", x, _BACKBONE_EPS)).chunk(3, -1)
            x = x + self._linear(f"{block}.attn.proj", _attention(q, k, v, self._sizes.heads))
            wide = functional.gelu(self._linear(f"{block}.mlp.fc1", self._norm(f"{block}.norm2", x, _BACKBONE_EPS)))
            x = x + self._linear(f"{block}.mlp.fc2", wide)
        return self._norm("backbone.last_norm", x, _BACKBONE_EPS)

    def token(self, features: Tensor) -> Tensor:
        """(N, head_width) what the decoder's one token has gathered from features (N, 192, width). It starts as zero: its embedding is a bias."""
        start = self._tensors[f"{_HEAD}.transformer.to_token_embedding.bias"] + self._tensors[f"{_HEAD}.transformer.pos_embedding"]
        x = start.expand(len(features), 1, -1)
        for own, cross, feed in ([f"{_LAYERS}.{i}.{j}" for j in range(3)] for i in range(self._sizes.head_depth)):
            q, k, v = self._linear(f"{own}.fn.to_qkv", self._norm(f"{own}.norm", x, _HEAD_EPS)).chunk(3, -1)
            x = x + self._linear(f"{own}.fn.to_out.0", _attention(q, k, v, self._sizes.head_heads))
            q = self._linear(f"{cross}.fn.to_q", self._norm(f"{cross}.norm", x, _HEAD_EPS))
            k, v = self._linear(f"{cross}.fn.to_kv", features).chunk(2, -1)
            x = x + self._linear(f"{cross}.fn.to_out.0", _attention(q, k, v, self._sizes.head_heads))
            wide = functional.gelu(self._linear(f"{feed}.fn.net.0", self._norm(f"{feed}.norm", x, _HEAD_EPS)))
            x = x + self._linear(f"{feed}.fn.net.3", wide)
        return x[:, 0]

    def head(self, features: Tensor) -> Estimate:
        """What features (N, 192, width) say of the hands."""
        token = self.token(features)
        six, betas, camera = (
            (self._linear(f"{_HEAD}.{decoder}", token) + self._tensors[f"{_HEAD}.{mean}"]).to(torch.float32)
            for decoder, mean in (("decpose", "init_hand_pose"), ("decshape", "init_betas"), ("deccam", "init_cam"))
        )
        return Estimate(rotations_of(six.unflatten(-1, (_N_ROTATIONS, 6))), betas, camera)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._tensors[f"{name}.weight"], self._tensors.get(f"{name}.bias"))

    def _norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, eps)


def rotations_of(six: Tensor) -> Tensor:
    """(..., 3, 3) rotations by six numbers (..., 6) each: two columns, made orthonormal, and their cross product (Zhou et al., 2019)."""
    first, second = six[..., :3], six[..., 3:]
    x = functional.normalize(first, dim=-1)
    y = functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def _affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(N, Q, width) of queries (N, Q, width) over keys and values (N, K, width)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
