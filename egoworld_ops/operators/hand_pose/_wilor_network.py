"""WiLoR's network (Potamias et al., "WiLoR: End-to-end 3D Hand Localization and Reconstruction in-the-wild", CVPR 2025).

The image network of HaMeR (`_vit.py`) with 18 tokens more, of which a first hand is read; then features of finer maps, gathered where that hand's
surface projects to, correct it. Facts are those of github.com/rolpotamias/WiLoR, commit 174e747; no code of it is in here. Compared with numbers
of the published network in `tests/egoworld_ops/operators/test_wilor_network.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from egoworld_ops.operators.hand_pose import _vit
from egoworld_ops.operators.hand_pose._mano import Mano
from egoworld_ops.operators.hand_pose._vit import COLUMNS, FOCAL_PX, N_BETAS, N_ROTATIONS, ROWS, Estimate, Vit, affine, rotations_of

_MAPS = "refine_net.deconv"
_BRANCHES: tuple[tuple[tuple[str, str], ...], ...] = (
    ((f"{_MAPS}.deconv.1.0", f"{_MAPS}.deconv.1.1"), (f"{_MAPS}.deconv.1.3", f"{_MAPS}.deconv.1.4")),
    ((f"{_MAPS}.deconv.0.0", f"{_MAPS}.deconv.0.1"),),
    (),
)
"""The maps, finest first: the deconvolutions that lead to each from the coarsest, and their normalisations."""
_PARTS = (("pose", "init_hand_pose", 6), ("shape", "init_betas", N_BETAS), ("cam", "init_cam", 3))
"""What is read of the tokens: names of its layers, its mean, and how many numbers a token stands for."""
_DECONVOLVED_PX = 4
_EPS, _LEAST = 1e-5, 1e-9


@dataclass(frozen=True, slots=True)
class Sizes:
    """Width, depth and heads of a ViT; the defaults are those of the published one."""

    width: int = 1280
    depth: int = 32
    heads: int = 16

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the network, by its name in the checkpoint."""
        d = self.width
        found = _vit.shapes(d, self.depth) | affine(f"{_MAPS}.first_conv.0", d // 2, d, 1, 1)
        for branch in _BRANCHES:
            for i, (layer, norm) in enumerate(branch):
                wide, narrow = d >> (i + 1), d >> (i + 2)
                found[f"{layer}.weight"] = (wide, narrow, _DECONVOLVED_PX, _DECONVOLVED_PX)
                found |= {f"{norm}.{name}": (narrow,) for name in ("weight", "bias", "running_mean", "running_var")}
        gathered = sum(d >> (len(branch) + 1) for branch in _BRANCHES)
        for part, mean, n in _PARTS:
            total = n * N_ROTATIONS if part == "pose" else n
            found |= affine(f"backbone.{part}_emb", d, n) | affine(f"backbone.dec{part}", n, d) | {f"backbone.{mean}": (1, total)}
            found |= affine(f"refine_net.dec_{part}", total, gathered)
        return found

    def network(self, tensors: Mapping[str, Tensor], mano: Mano) -> Network:
        """The network with these tensors, as `shapes` has them, and MANO's model of a right hand, on their device."""
        return Network(tensors, self, mano)


class Network(Vit):
    """The network with given tensors, on their device.

    Args:
        tensors: as `Sizes.shapes` has them.
        sizes: of the network.
        mano: the model of a right hand, on the same device.
    """

    def __init__(self, tensors: Mapping[str, Tensor], sizes: Sizes, mano: Mano) -> None:
        super().__init__(tensors, sizes.depth, sizes.heads)
        self._mano = mano

    def __call__(self, crops: Tensor) -> Estimate:
        """Of crops (N, 256, 256, 3) RGB, 0 to 255, each of a right hand or the mirror image of a left one."""
        return self.refined(*self.first(self.normalised(crops)))

    def first(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the tokens say, (N, 109): six numbers for each of 16 rotations, shape, camera; and the patches' features, (N, 192, width)."""
        means = [self.tensors[f"backbone.{mean}"].view(-1, n) for _, mean, n in _PARTS]
        tokens = [self.linear(f"backbone.{part}_emb", mean) for (part, _, _), mean in zip(_PARTS, means, strict=True)]
        x = self.patches(images)
        x = self.transformed(torch.cat([torch.cat(tokens).expand(len(x), -1, -1), x], 1))
        of_tokens, features = x[:, : -ROWS * COLUMNS], x[:, -ROWS * COLUMNS :]
        read = zip(_PARTS, means, of_tokens.split([len(mean) for mean in means], 1), strict=True)
        return torch.cat([(self.linear(f"backbone.dec{part}", x) + mean).flatten(1) for (part, _, _), mean, x in read], 1).float(), features

    def refined(self, said: Tensor, features: Tensor) -> Estimate:
        """The hands that `first` says, corrected by what is seen where their vertices project to."""
        hand = _estimate(said)
        with torch.autocast(said.device.type, enabled=False):
            _, vertices_m = self._mano(hand.rotations, hand.betas)
        seen = torch.cat([_gathered(at, vertices_m, hand.camera) for at in self._maps(features)], 1)
        return _estimate(said + torch.cat([self.linear(f"refine_net.dec_{part}", seen) for part, _, _ in _PARTS], 1))

    def _maps(self, features: Tensor) -> list[Tensor]:
        """Feature maps (N, channels, rows, columns) of 64 x 48, 32 x 24 and 16 x 12."""
        first = f"{_MAPS}.first_conv.0"
        coarse = functional.conv2d(
            features.transpose(1, 2).unflatten(-1, (ROWS, COLUMNS)), self.tensors[f"{first}.weight"], self.tensors[f"{first}.bias"]
        )
        return [self._deconvolved(coarse, branch).float() for branch in _BRANCHES]

    def _deconvolved(self, x: Tensor, branch: tuple[tuple[str, str], ...]) -> Tensor:
        for layer, norm in branch:
            mean, variance, weight, bias = (self.tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            x = functional.conv_transpose2d(x, self.tensors[f"{layer}.weight"], stride=2, padding=1)
            x = functional.relu(functional.batch_norm(x, mean, variance, weight, bias, eps=_EPS))
        return x


def _estimate(said: Tensor) -> Estimate:
    """Of the 109 numbers of each hand (N, 109)."""
    six, betas, camera = said.split([6 * N_ROTATIONS, N_BETAS, 3], 1)
    return Estimate(rotations_of(six.unflatten(-1, (N_ROTATIONS, 6))), betas, camera)


def _gathered(features: Tensor, vertices_m: Tensor, camera: Tensor) -> Tensor:
    """(N, channels) the largest of each feature over the places of all vertices (N, 778, 3) in a map (N, channels, rows, columns).

    The published code takes projections in parts of the crop, about its middle, for pixels of the map: whatever the hand, it looks at the first
    pixels of the upper left corner, and sees nothing beyond it. The network was trained like that, so that is kept.
    """
    rows, columns = features.shape[2:]
    depth = 2 * FOCAL_PX / (rows * camera[:, 0] + _LEAST)
    before = vertices_m + torch.stack([camera[:, 1], camera[:, 2], depth], 1)[:, None]
    places = FOCAL_PX / rows * before[..., :2] / before[..., 2:]
    grid = places / (torch.tensor([columns, rows], device=places.device) - 1) * 2 - 1
    return functional.grid_sample(features, grid[:, :, None], align_corners=True)[..., 0].amax(2)
