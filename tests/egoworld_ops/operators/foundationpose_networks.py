"""FoundationPose's refiner and scorer in torch, for tests: to be equal to the published code, and to make ONNX files of both publishers.

Names of tensors are those of NVlabs/FoundationPose at bf25183; the default width is the published one.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from tests.egoworld_ops.operators import seeded

WIDTH, HEADS, TOKENS, SIDE_PX = 512, 4, 400, 160
Kind = Literal["refine", "score"]
Layout = Literal["library", "isaac"]
NAMES: dict[Layout, tuple[tuple[str, str], dict[Kind, tuple[str, ...]]]] = {
    "library": (("inputA", "inputB"), {"refine": ("trans", "rot"), "score": ("score",)}),
    "isaac": (("input1", "input2"), {"refine": ("output1", "output2"), "score": ("output1",)}),
}
"""Inputs (rendered, observed) and outputs. The inference library's are (N, 6, 160, 160), Isaac ROS's (N, 160, 160, 6)."""


class Halved(nn.Module):
    """A convolution of stride 2, batch norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(before, after, kernel, 2, kernel // 2), nn.BatchNorm2d(after), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(inner)))


class Position(nn.Module):
    """Sine in even columns, cosine in odd ones (Vaswani et al., 2017)."""

    pe: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        turns = torch.arange(TOKENS)[:, None] * 10_000 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("pe", torch.stack([turns.sin(), turns.cos()], -1).reshape(1, TOKENS, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pe


def _of_one(width: int) -> nn.Sequential:
    return nn.Sequential(Halved(6, width // 8, 7), Halved(width // 8, width // 4, 3), Residual(width // 4), Residual(width // 4))


def _of_both(width: int) -> nn.Sequential:
    return nn.Sequential(Residual(width // 2), Residual(width // 2), Halved(width // 2, width, 3), Residual(width), Residual(width))


def _tokens(one: nn.Module, both: nn.Module, rendered: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """(N, 400, width), before the position is added."""
    return both(torch.cat(one(torch.cat([rendered, observed])).chunk(2), 1)).flatten(2).transpose(1, 2)


def _attended(layer: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """Self-attention of (B, T, width) by the tensors of a layer, in steps that are exported for every B and T."""
    q, k, v = (
        part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for part in nn.functional.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
    )
    seen = (q @ k.transpose(-1, -2) / layer.head_dim**0.5).softmax(-1) @ v
    return layer.out_proj(seen.transpose(1, 2).flatten(2))


class Refiner(nn.Module):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.encodeA, self.encodeAB, self.pos_embed = _of_one(width), _of_both(width), Position(width)
        self.trans_head, self.rot_head = (
            nn.Sequential(nn.TransformerEncoderLayer(width, HEADS, width, batch_first=True), nn.Linear(width, 3)) for _ in range(2)
        )

    def forward(self, rendered: torch.Tensor, observed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Two of (N, 3)."""
        tokens = self.pos_embed(_tokens(self.encodeA, self.encodeAB, rendered, observed))
        return self.trans_head(tokens).mean(1), self.rot_head(tokens).mean(1)


class Scorer(nn.Module):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.encoderA, self.encoderAB, self.pos_embed = _of_one(width), _of_both(width), Position(width)
        self.att, self.att_cross = (nn.MultiheadAttention(width, HEADS, batch_first=True) for _ in range(2))
        self.linear = nn.Linear(width, 1)

    def features(self, rendered: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """(N, width) of each pair alone."""
        tokens = self.pos_embed(_tokens(self.encoderA, self.encoderAB, rendered, observed))
        return _attended(self.att, tokens).mean(1)

    def forward(self, rendered: torch.Tensor, observed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, N): each pair is compared with all others."""
        return (self.linear(_attended(self.att_cross, self.features(rendered, observed)[None]))[..., 0],)


NETWORKS: dict[Kind, type[Refiner | Scorer]] = {"refine": Refiner, "score": Scorer}


class Laid(nn.Module):
    """A network with the pictures in the order that a publisher has them."""

    def __init__(self, network: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.network, self.last = network, layout == "isaac"

    def forward(self, rendered: torch.Tensor, observed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.last:
            rendered, observed = rendered.permute(0, 3, 1, 2), observed.permute(0, 3, 1, 2)
        return self.network(rendered, observed)


def of_names(kind: Kind, width: int = WIDTH) -> Refiner | Scorer:
    """A network whose numbers follow from the names of its tensors; positions and counts are as constructed."""
    network = NETWORKS[kind](width)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not name.endswith(("pos_embed.pe", "num_batches_tracked")):
                value.copy_(torch.from_numpy(seeded.tensor(f"{kind}.{name}", tuple(value.shape))))
    return network.eval()


def pictures(name: str, n: int = 4) -> torch.Tensor:
    """(n, 6, 160, 160) squares of 8 x 8 pixels: colours from 0 to 1, coordinates from -1 to 1."""
    g = seeded.generator(name)
    rgb = g.random((n, 3, 20, 20), dtype="float32")
    xyz = g.uniform(-1, 1, (n, 3, 20, 20)).astype("float32")
    both = torch.cat([torch.from_numpy(rgb), torch.from_numpy(xyz)], 1)
    return both.repeat_interleave(8, 2).repeat_interleave(8, 3)


def export(network: nn.Module, kind: Kind, layout: Layout, path: Path) -> None:
    """An ONNX file of any number of pairs, by torch's older exporter: the newer one fixes the number."""
    inputs, outputs = NAMES[layout]
    shape = (2, SIDE_PX, SIDE_PX, 6) if layout == "isaac" else (2, 6, SIDE_PX, SIDE_PX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is called deprecated, and its tracing guesses at what differs between inputs; tests compare
        torch.onnx.export(
            Laid(network, layout).eval(),
            (torch.zeros(shape), torch.zeros(shape)),
            path,
            input_names=inputs,
            output_names=outputs[kind],
            dynamic_axes={name: {0: "pairs"} for name in inputs} | {name: {int(kind == "score"): "pairs"} for name in outputs[kind]},
            dynamo=False,
        )
