"""HaWoR's network (Zhang, Deng, Ma, Potamias, "HaWoR: World-Space Hand Motion Reconstruction from Egocentric Videos", CVPR 2025): HaMeR's, with
attention over the frames of a window, of each patch's features and of the poses, which also see where the box lies before the true camera.

Facts are those of the inference code in ego-vision 0.1.25 (Apache-2.0); no code of it is in here. Compared with it number by number in
`tests/egoworld_ops/operators/test_hawor_network.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from egoworld_ops.operators.hand_pose import _hamer_network
from egoworld_ops.operators.hand_pose._mano import Mano
from egoworld_ops.operators.hand_pose._vit import N_ROTATIONS, Estimate, affine, attention, rotations_of

WINDOW = 16
"""Frames that the network sees together."""
_BOX = 3
"""Numbers that say where a box lies."""
_SIX = 6 * N_ROTATIONS
_FEATURES, _POSES = "st_module", "motion_module"
_HEADS = 4
_HIDDEN = 1024
_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a network; the defaults are those of the published one.

    Args:
        hamer: of the parts that HaMeR has too.
        features_width, features_depth: of the attention of features over time.
        poses_width, poses_depth: of that of poses.
    """

    hamer: _hamer_network.Sizes = field(default_factory=_hamer_network.Sizes)
    features_width: int = 512
    features_depth: int = 6
    poses_width: int = 384
    poses_depth: int = 6

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the network, by its name in the checkpoint."""
        found, width = self.hamer.shapes(), self.hamer.width
        found |= _shapes_over_time(_FEATURES, width + _BOX, width, self.features_width, self.features_depth)
        return found | _shapes_over_time(_POSES, _SIX + _BOX, _SIX, self.poses_width, self.poses_depth)

    def network(self, tensors: Mapping[str, Tensor], mano: Mano) -> Network:
        """The network with these tensors, as `shapes` has them, on their device. It does not look at the hand's surface."""
        return Network(tensors, self)


class Network:
    """The network with given tensors, on their device.

    Args:
        tensors: as `Sizes.shapes` has them.
        sizes: of the network.
    """

    def __init__(self, tensors: Mapping[str, Tensor], sizes: Sizes) -> None:
        self._single, self._sizes = _hamer_network.Network(tensors, sizes.hamer), sizes

    def __call__(self, crops: Tensor, boxes: Tensor) -> Estimate:
        """Of windows of one hand each; the estimates of all frames of the first window come first.

        Args:
            crops: (W, 16, 256, 256, 3) RGB, 0 to 255, of right hands or the mirror images of left ones.
            boxes: (W, 16, 3) as `where` has them.
        """
        single, n = self._single, len(crops)
        features = single.backbone(single.normalised(crops.flatten(0, 1))).unflatten(0, (n, WINDOW))
        where = boxes[:, :, None].expand(-1, -1, features.shape[2], -1)
        by_patch = torch.cat([features, where.to(features.dtype)], -1).transpose(1, 2).flatten(0, 1)
        moved = self._over_time(_FEATURES, by_patch, self._sizes.features_depth).unflatten(0, (n, -1)).transpose(1, 2)
        six, betas, camera = single.read((features + moved).flatten(0, 1))
        poses = torch.cat([six.unflatten(0, (n, WINDOW)), boxes.to(six.dtype)], -1)
        six = self._over_time(_POSES, poses, self._sizes.poses_depth).flatten(0, 1).to(torch.float32)
        return Estimate(rotations_of(six.unflatten(-1, (N_ROTATIONS, 6))), betas, camera)

    def _over_time(self, part: str, x: Tensor, depth: int) -> Tensor:
        """(N, T, out) of sequences (N, T, in): encoder layers that normalise what each has added (Vaswani et al., 2017), with places in time."""
        linear, norm = self._single.linear, self._single.norm
        h = linear(f"{part}.l1", x)
        h = h + _places(h.shape[1], h.shape[2]).to(h)
        for layer in (f"{part}.trans.layers.{i}" for i in range(depth)):
            tensors = self._single.tensors
            weight, bias = tensors[f"{layer}.self_attn.in_proj_weight"], tensors[f"{layer}.self_attn.in_proj_bias"]
            q, k, v = functional.linear(h, weight, bias).chunk(3, -1)
            h = norm(f"{layer}.norm1", h + linear(f"{layer}.self_attn.out_proj", attention(q, k, v, _HEADS)), _EPS)
            h = norm(f"{layer}.norm2", h + linear(f"{layer}.linear2", functional.gelu(linear(f"{layer}.linear1", h))), _EPS)
        return linear(f"{part}.l2", h)


def where(side: float, focal: float, middle: tuple[float, float], principal: tuple[float, float]) -> tuple[float, float, float]:
    """What the network is told of a square box before a pinhole camera, which brings boxes of hands to about -1 to 1.

    Args:
        side, focal: of the box and the camera, in one unit, as are all.
        middle, principal: of the box, and the principal point.
    """
    x, y = ((m - p) / focal * 2.8 for m, p in zip(middle, principal, strict=True))
    return x, y, (side / focal - 0.24) / 0.06


def _shapes_over_time(part: str, n_in: int, n_out: int, width: int, depth: int) -> dict[str, tuple[int, ...]]:
    found = affine(f"{part}.l1", width, n_in) | affine(f"{part}.l2", n_out, width)
    for layer in (f"{part}.trans.layers.{i}" for i in range(depth)):
        found |= {f"{layer}.self_attn.in_proj_weight": (3 * width, width), f"{layer}.self_attn.in_proj_bias": (3 * width,)}
        found |= affine(f"{layer}.self_attn.out_proj", width, width) | affine(f"{layer}.norm1", width) | affine(f"{layer}.norm2", width)
        found |= affine(f"{layer}.linear1", _HIDDEN, width) | affine(f"{layer}.linear2", width, _HIDDEN)
    return found


def _places(n: int, width: int) -> Tensor:
    """(n, width) sine and cosine of each place, from fast to slow."""
    angle = torch.arange(n)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
