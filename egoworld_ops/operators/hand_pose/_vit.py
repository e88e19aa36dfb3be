"""The image network that HaMeR and WiLoR share, ViT-H as ViTPose has it (Xu et al., NeurIPS 2022), and what both say of a hand.

Written as functions of a checkpoint's tensors, by the names they have in the published ones; sizes are data, so that a small network of the same
kind can be tested. It is inference only: dropout is left out. Facts are those of github.com/geopavlakos/hamer, commit 3a01849 (MIT); no code of it
is in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

CROP_PX = 256
FOCAL_PX = 5000.0
"""Of the camera that the networks were trained with, in pixels of the crop: nearly parallel rays."""
ROWS, COLUMNS = 16, 12
"""Of the patches."""
N_ROTATIONS, N_BETAS = 16, 10
_PATCH_PX = 16
_SIDE_MARGIN_PX = 32
"""Columns cut off at both sides: the network sees 256 x 192 pixels."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a network says of N right hands, float32.

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


class Vit:
    """The image network with given tensors, on their device.

    Args:
        tensors: of the whole network; those of this part as `shapes` has them.
        depth, heads: of this part.
    """

    def __init__(self, tensors: Mapping[str, Tensor], depth: int, heads: int) -> None:
        self.tensors, self._depth, self._heads = dict(tensors), depth, heads

    def normalised(self, crops: Tensor) -> Tensor:
        """(N, 3, 256, 192) float32 what the first layer sees of crops (N, 256, 256, 3) RGB, 0 to 255: ImageNet's mean and deviation taken out."""
        mean, std = (torch.tensor(v, device=crops.device) * 255 for v in (_MEAN, _STD))
        inner = crops[:, :, _SIDE_MARGIN_PX:-_SIDE_MARGIN_PX].to(torch.float32)
        return ((inner - mean) / std).permute(0, 3, 1, 2).contiguous()

    def patches(self, images: Tensor) -> Tensor:
        """(N, 192, width) a token for each patch of normalised images, row by row, with its place."""
        place = self.tensors["backbone.pos_embed"]
        weight, bias = (self.tensors[f"backbone.patch_embed.proj.{part}"] for part in ("weight", "bias"))
        x = functional.conv2d(images, weight, bias, stride=_PATCH_PX, padding=2).flatten(2).transpose(1, 2)
        return x + place[:, 1:] + place[:, :1]

    def transformed(self, tokens: Tensor) -> Tensor:
        """(N, T, width) what tokens (N, T, width) have become after all blocks."""
        x = tokens
        for block in (f"backbone.blocks.{i}" for i in range(self._depth)):
            q, k, v = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, _EPS)).chunk(3, -1)
            x = x + self.linear(f"{block}.attn.proj", attention(q, k, v, self._heads))
            wide = functional.gelu(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, _EPS)))
            x = x + self.linear(f"{block}.mlp.fc2", wide)
        return self.norm("backbone.last_norm", x, _EPS)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """The affine layer of that name; without a bias where the checkpoint has none."""
        return functional.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        """The normalisation of that name over the last axis."""
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, eps)


def shapes(width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the image network, by its name in the checkpoint."""
    found: dict[str, tuple[int, ...]] = {"backbone.pos_embed": (1, ROWS * COLUMNS + 1, width)}
    found |= affine("backbone.patch_embed.proj", width, 3, _PATCH_PX, _PATCH_PX)
    for block in (f"backbone.blocks.{i}" for i in range(depth)):
        found |= (
            affine(f"{block}.norm1", width) | affine(f"{block}.attn.qkv", 3 * width, width) | affine(f"{block}.attn.proj", width, width)
        )
        found |= (
            affine(f"{block}.norm2", width) | affine(f"{block}.mlp.fc1", 4 * width, width) | affine(f"{block}.mlp.fc2", width, 4 * width)
        )
    return found | affine("backbone.last_norm", width)


def affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weight and the bias of a layer."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(N, Q, width) of queries (N, Q, width) over keys and values (N, K, width)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def rotations_of(six: Tensor) -> Tensor:
    """(..., 3, 3) rotations by six numbers (..., 6) each: two columns, made orthonormal, and their cross product (Zhou et al., 2019)."""
    first, second = six[..., :3], six[..., 3:]
    x = functional.normalize(first, dim=-1)
    y = functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)
