"""The network of DA3METRIC-LARGE (Lin et al., "Depth Anything 3", 2025): a ViT-L (DINOv2) and a DPT head for depth and sky.

Written as functions of a checkpoint's tensors, by the names they have in the published one; sizes are data, so that a small network of the same
kind can be tested. It is inference only. Facts are those of github.com/ByteDance-Seed/Depth-Anything-3 (Apache-2.0); no code of it is in here.
Compared with transformers' classes of the same architecture in `tests/egoworld_ops/operators/test_depth_da3metric.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PATCH_PX = 14
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VIT, _HEAD = "model.backbone.pretrained", "model.head"
_UPSAMPLED = (4, 2)
"""By which the first two maps are finer than the patches; the third is as they are, the last one half as fine."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a network; the defaults are those of the published one.

    Args:
        width, depth, heads: of the ViT.
        side: patches on each side of the picture that its place codes are for.
        taps: blocks after which the head looks.
        features, channels, hidden: of the head: everywhere, of each tapped map, and before the last layer.
        code_offset: added to the number of patches when the place codes are stretched, as DINOv2's code has it; 0: none.
        eps, last_eps: of the blocks' norms, and of that after them.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    side: int = 37
    taps: tuple[int, int, int, int] = (4, 11, 17, 23)
    features: int = 256
    channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    hidden: int = 32
    code_offset: float = 0.1
    eps: float = 1e-6
    last_eps: float = 1e-5

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the network, by its name in the checkpoint."""
        d, f = self.width, self.features
        found: dict[str, tuple[int, ...]] = {f"{_VIT}.cls_token": (1, 1, d), f"{_VIT}.pos_embed": (1, self.side**2 + 1, d)}
        found |= _affine(f"{_VIT}.patch_embed.proj", d, 3, PATCH_PX, PATCH_PX)
        for block in (f"{_VIT}.blocks.{i}" for i in range(self.depth)):
            found |= _affine(f"{block}.norm1", d) | _affine(f"{block}.attn.qkv", 3 * d, d) | _affine(f"{block}.attn.proj", d, d)
            found |= _affine(f"{block}.norm2", d) | _affine(f"{block}.mlp.fc1", 4 * d, d) | _affine(f"{block}.mlp.fc2", d, 4 * d)
            found |= {f"{block}.ls1.gamma": (d,), f"{block}.ls2.gamma": (d,)}
        found |= _affine(f"{_VIT}.norm", d)
        for i, channels in enumerate(self.channels):
            found |= _affine(f"{_HEAD}.projects.{i}", channels, d, 1, 1)
            found |= {f"{_HEAD}.scratch.layer{i + 1}_rn.weight": (f, channels, 3, 3)}
        for i, times in enumerate(_UPSAMPLED):
            found |= _affine(f"{_HEAD}.resize_layers.{i}", self.channels[i], self.channels[i], times, times)
        found |= _affine(f"{_HEAD}.resize_layers.3", self.channels[3], self.channels[3], 3, 3)
        for number in range(1, 5):
            block = f"{_HEAD}.scratch.refinenet{number}"
            for unit in ("resConfUnit2",) if number == 4 else ("resConfUnit1", "resConfUnit2"):
                found |= _affine(f"{block}.{unit}.conv1", f, f, 3, 3) | _affine(f"{block}.{unit}.conv2", f, f, 3, 3)
            found |= _affine(f"{block}.out_conv", f, f, 1, 1)
        found |= _affine(f"{_HEAD}.scratch.output_conv1", f // 2, f, 3, 3)
        for branch in ("output_conv2", "sky_output_conv2"):
            found |= _affine(f"{_HEAD}.scratch.{branch}.0", self.hidden, f // 2, 3, 3)
            found |= _affine(f"{_HEAD}.scratch.{branch}.2", 1, self.hidden, 1, 1)
        return found


class Network:
    """The network with given tensors, on their device.

    Args:
        tensors: as `Sizes.shapes` has them.
        sizes: of the network.
    """

    def __init__(self, tensors: Mapping[str, Tensor], sizes: Sizes) -> None:
        self._tensors, self._sizes = dict(tensors), sizes

    def __call__(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (N, H, W) as a camera of 300 px would have it, and how much of sky each pixel is (N, H, W), both float32.

        Args:
            pictures: (N, H, W, 3) uint8 RGB; H and W are multiples of 14.
        """
        mean, std = (torch.tensor(v, device=pictures.device) * 255 for v in (_MEAN, _STD))
        return self.head(self.backbone(((pictures.to(torch.float32) - mean) / std).permute(0, 3, 1, 2)))

    def backbone(self, images: Tensor) -> list[Tensor]:
        """Four maps (N, width, rows, columns) of the patches of normalised images (N, 3, H, W)."""
        x = self._conv(f"{_VIT}.patch_embed.proj", images, stride=PATCH_PX)
        rows, columns = x.shape[-2:]
        x = torch.cat([self._tensors[f"{_VIT}.cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self._codes(rows, columns)
        found = []
        for i in range(self._sizes.depth):
            block = f"{_VIT}.blocks.{i}"
            q, k, v = self._linear(f"{block}.attn.qkv", self._norm(f"{block}.norm1", x, self._sizes.eps)).chunk(3, -1)
            seen = self._linear(f"{block}.attn.proj", _attention(q, k, v, self._sizes.heads))
            x = x + self._tensors[f"{block}.ls1.gamma"] * seen
            wide = functional.gelu(self._linear(f"{block}.mlp.fc1", self._norm(f"{block}.norm2", x, self._sizes.eps)))
            x = x + self._tensors[f"{block}.ls2.gamma"] * self._linear(f"{block}.mlp.fc2", wide)
            if i in self._sizes.taps:
                patches = self._norm(f"{_VIT}.norm", x, self._sizes.last_eps)[:, 1:]
                found.append(patches.transpose(1, 2).unflatten(2, (rows, columns)))
        return found

    def head(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Depth and sky of four maps; see `__call__`."""
        size = [side * PATCH_PX for side in maps[0].shape[-2:]]
        levels = [self._conv(f"{_HEAD}.projects.{i}", level) for i, level in enumerate(maps)]
        for i, times in enumerate(_UPSAMPLED):
            weight, bias = (self._tensors[f"{_HEAD}.resize_layers.{i}.{part}"] for part in ("weight", "bias"))
            levels[i] = functional.conv_transpose2d(levels[i], weight, bias, stride=times)
        levels[3] = self._conv(f"{_HEAD}.resize_layers.3", levels[3], stride=2)
        levels = [self._conv(f"{_HEAD}.scratch.layer{i + 1}_rn", level) for i, level in enumerate(levels)]
        x = self._fused(4, levels[3], None, levels[2].shape[-2:])
        x = self._fused(3, x, levels[2], levels[1].shape[-2:])
        x = self._fused(2, x, levels[1], levels[0].shape[-2:])
        x = self._fused(1, x, levels[0], [2 * side for side in levels[0].shape[-2:]])
        x = _stretched(self._conv(f"{_HEAD}.scratch.output_conv1", x), size)
        depth, sky = (self._last(f"{_HEAD}.scratch.{branch}", x) for branch in ("output_conv2", "sky_output_conv2"))
        return torch.exp(depth), functional.relu(sky)

    def _codes(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows * columns, width) codes of places, stretched where the picture is not of the size they are for."""
        codes, side, offset = self._tensors[f"{_VIT}.pos_embed"], self._sizes.side, self._sizes.code_offset
        if (rows, columns) == (side, side):
            return codes
        square = codes[:, 1:].transpose(1, 2).unflatten(2, (side, side)).to(torch.float32)
        if offset:
            scales = ((rows + offset) / side, (columns + offset) / side)
            square = functional.interpolate(square, scale_factor=scales, mode="bicubic")
        else:
            square = functional.interpolate(square, (rows, columns), mode="bicubic")
        return torch.cat([codes[:, :1], square.flatten(2).transpose(1, 2).to(codes.dtype)], 1)

    def _fused(self, number: int, coarse: Tensor, fine: Tensor | None, size: list[int] | torch.Size) -> Tensor:
        block = f"{_HEAD}.scratch.refinenet{number}"
        x = coarse if fine is None else coarse + self._residual(f"{block}.resConfUnit1", fine)
        return self._conv(f"{block}.out_conv", _stretched(self._residual(f"{block}.resConfUnit2", x), size))

    def _residual(self, name: str, x: Tensor) -> Tensor:
        inner = self._conv(f"{name}.conv1", functional.relu(x))
        return x + self._conv(f"{name}.conv2", functional.relu(inner))

    def _last(self, name: str, x: Tensor) -> Tensor:
        return self._conv(f"{name}.2", functional.relu(self._conv(f"{name}.0", x)))[:, 0].to(torch.float32)

    def _conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """A convolution that keeps the size if its stride is 1; patches are cut without a margin."""
        weight = self._tensors[f"{name}.weight"]
        margin = 1 if weight.shape[-1] == 3 else 0
        return functional.conv2d(x, weight, self._tensors.get(f"{name}.bias"), stride, margin)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, eps)


def _affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """Weight and bias. Of a transposed convolution the first two sizes are equal, so that their order does not matter."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(N, T, width) of queries (N, T, width) over keys and values (N, T, width)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _stretched(x: Tensor, size: list[int] | torch.Size) -> Tensor:
    return functional.interpolate(x, list(size), mode="bilinear", align_corners=True)
