"""FoundationPose's refiner and scorer as published: ONNX files, run by onnxruntime; or random numbers in their place.

Two publishers give the same networks with other names and another order of axes, and the file itself tells which: inputs (N, 6, 160, 160) or
(N, 160, 160, 6); in the order of their names the rendered picture and the observed one; the refiner's outputs in the order translation, rotation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from egoworld_ops.operators.onnx_network import OnnxNetwork

OPERATOR = "object_pose.foundationpose"
SIDE_PX, CHANNELS = 160, 6
"""Of a picture: its side, and red, green, blue, x, y, z."""
_GROUP = "foundationpose"


class Networks(Protocol):
    """What is asked of both networks. Pictures are (N, 160, 160, 6) float32: the colours 0 to 1, then coordinates, see `_pairs.py`."""

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each pair the translation (N, 3) in units of the coordinates, and the rotation (N, 3) before its tanh."""

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """(N,) how well the pairs agree, among each other: all hypotheses go in at once."""


class Published:
    """Both networks from their files.

    Args:
        refiner, scorer: ONNX files.
        device, tensorrt: settings, see `OnnxNetwork`.
        threads: of a CPU.

    Raises:
        WeightsMismatch: a file is of another network.
        EgoworldError: as `OnnxNetwork`.
    """

    def __init__(self, refiner: Path, scorer: Path, device: Literal["auto", "cpu", "cuda"], tensorrt: bool, threads: int) -> None:
        self._refiner = _Network(refiner, (3, 3), device, tensorrt, threads)
        self._scorer = _Network(scorer, (1,), device, tensorrt, threads)

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Networks` has it."""
        translation, rotation = self._refiner(rendered, observed)
        return translation, rotation

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """As `Networks` has it."""
        return self._scorer(rendered, observed)[0].reshape(-1)


class Random:
    """Random numbers from a seed in the networks' place: it runs like them, and what it says means nothing."""

    def __init__(self, seed: int) -> None:
        self._weights = np.random.default_rng(seed).normal(0, 0.02, (8 * 8 * 2 * CHANNELS, 7)).astype(np.float32)

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Networks` has it."""
        said = self._of(rendered, observed)
        return said[:, :3], said[:, 3:6]

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """As `Networks` has it."""
        return self._of(rendered, observed)[:, 6]

    def _of(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        some = np.concatenate([rendered, observed], -1)[:, ::20, ::20]
        return np.asarray(some.reshape(len(some), -1) @ self._weights)


class _Network:
    def __init__(self, path: Path, widths: tuple[int, ...], device: Literal["auto", "cpu", "cuda"], tensorrt: bool, threads: int) -> None:
        self._widths = widths
        self._network = network = OnnxNetwork(path, {}, {}, device, threads, OPERATOR, _GROUP, tensorrt)
        self._inputs, names = sorted(network.shapes), set(network.outputs)
        self._outputs = ["trans", "rot"] if names == {"trans", "rot"} else sorted(names)
        laid = [shape[1:] for shape in network.shapes.values() if len(shape) == 4 and not isinstance(shape[0], int)]
        self._channels_first = laid == [(CHANNELS, SIDE_PX, SIDE_PX)] * 2
        if len(self._outputs) != len(widths) or not (self._channels_first or laid == [(SIDE_PX, SIDE_PX, CHANNELS)] * 2):
            what = f"it has inputs {dict(network.shapes)} and outputs {sorted(names)}"
            want = f"want two inputs of any number of {CHANNELS} x {SIDE_PX} x {SIDE_PX} and {len(widths)} outputs"
            raise network.another(f"{what}; {want}")

    def __call__(self, rendered: np.ndarray, observed: np.ndarray) -> list[np.ndarray]:
        pictures = [rendered, observed]
        if self._channels_first:
            pictures = [np.ascontiguousarray(picture.transpose(0, 3, 1, 2)) for picture in pictures]
        said = dict(zip(self._network.outputs, self._network(**dict(zip(self._inputs, pictures, strict=True))), strict=True))
        for name, width in zip(self._outputs, self._widths, strict=True):
            if said[name].size != len(rendered) * width:
                raise self._network.another(f"of {len(rendered)} pairs its {name} is {said[name].shape}, want {width} numbers of each")
        return [said[name].reshape(len(rendered), width) for name, width in zip(self._outputs, self._widths, strict=True)]
