"""Depth by MoGe-2, a network published as ONNX: its points are right up to a shift along the axis, which the true focal length gives.

The file holds the network alone; what its authors' code does after it is done here (`moge/model/v2.py`: `infer`, with a known field of view): the
shift is that with which the points, projected with the true focal length, lie where they were seen; then the network's own factor makes metres of
them. The network takes the middle of the picture for its axis. Frames are looked at one by one: nothing is carried over time.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.depth._pictures import Pictures
from egoworld_ops.operators.depth._rows import FIT_ERROR_SHARE, Rows
from egoworld_ops.operators.onnx_network import OnnxNetwork, Shape
from egoworld_ops.types import Camera

_INPUTS: dict[str, Shape] = {"image": (1, 3, "height", "width")}
_OUTPUTS: dict[str, Shape | None] = {"points": (1, "height", "width", 3), "mask": (1, "height", "width"), "metric_scale": None}
_SEEN = 0.5
"""The network's mask above which a pixel has a depth (`infer`: `mask > 0.5`)."""
_SAMPLES = 64
"""Rows and columns of pixels that the shift is solved from, as the published code has it."""
_ROUNDS = 20
_FEWEST = 16
_MB = {"vitl": 1330, "vits": 150}
_PROCESS_MB = {"cpu": 1500, "cuda": 2500}


class Settings(BackendSettings):
    """Options of `[stages.depth.moge2]`."""

    model: Literal["vitl", "vits"] = "vitl"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` means CUDA if there is one; CUDA needs onnxruntime-gpu."""
    num_tokens: Annotated[int, Field(ge=1200, le=3600)] = 2500
    """Patches that the network divides the picture into; more are finer and slower. Its authors suggest 1200 to 2500, and trained up to 3600."""
    side_px: Annotated[int, Field(ge=56, le=2016)] = 640
    """Longer side of the picture that the network gets, and of the maps."""
    step_m: Annotated[float, Field(ge=1e-5, le=0.1)] = 0.0005
    """What depths are rounded to, before they are multiplied; 65535 steps are the farthest."""
    fit_error_share: Annotated[float, Field(ge=0, le=1)] = FIT_ERROR_SHARE
    """The clip's depths are multiplied by `scale`, which things of known size give, where its standard error is at most so large and they are more
    than two of them off; 0: never. Hands whose size the network of `hand_pose` assumes are known to 0.1 to 0.2."""


class Backend(Operator):
    """MoGe-2 (Wang et al., "MoGe-2: Accurate Monocular Geometry with Metric Scale and Sharp Details", 2025)."""

    version: ClassVar[str] = "5"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "opencv-python-headless", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 2.0
    """A compromise between a GPU and a CPU; it plans the first clip only."""
    handles_lenses: ClassVar[bool] = True

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the model.

        Raises:
            WeightsMissing, WeightsMismatch, WeightsUnreadable: the file is not there, or not the right one.
            SetupError: onnxruntime is not installed.
            BadSettings: CUDA is asked for and not there.
            NoDevice: there is a GPU, and onnxruntime cannot use it.
            OutOfMemory: memory ran out.
        """
        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        [name] = self.weights(options)
        self._network = OnnxNetwork(models.path(name), _INPUTS, _OUTPUTS, options.device, threads, "depth.moge2", name)

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """A guess: the file, and activations; nothing was measured."""
        return _PROCESS_MB[cls.device(settings)] + _MB[cast("Settings", settings).model]

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The ONNX file."""
        return (f"moge2_{cast('Settings', settings).model}",)

    def run(self, item: ClipInput) -> pa.Table:
        """Table `depth`: one row a frame.

        Raises:
            WeightsMismatch: the file is of another network.
            OutOfMemory: host or device memory ran out.
        """
        pictures = Pictures(item.camera, self._options.side_px)
        rows = Rows(item, "moge2", "network", pictures.camera, self._options.step_m, self._options.fit_error_share)
        tokens = {"num_tokens": np.array(self._options.num_tokens, np.int64)} if "num_tokens" in self._network.shapes else {}
        for frame in item.frames():
            image = (pictures.of(frame.rgb).astype(np.float32) / 255).transpose(2, 0, 1)[None]
            points, mask, factor = self._network(image=np.ascontiguousarray(image), **tokens)
            seen = (mask[0] > _SEEN) & ~pictures.unseen & np.isfinite(points[0]).all(-1)
            rows.add(
                frame.index, frame.timestamp_s, _depth(points[0].astype(np.float64), seen, pictures.camera, float(factor.reshape(-1)[0]))
            )
        return rows.table()


def _depth(points: np.ndarray, seen: np.ndarray, camera: Camera, metres: float) -> np.ndarray | Reason:
    """(h, w) float32 metres of the network's points (h, w, 3), NaN where it sees none; `metres` is its own factor."""
    shift = _shift(points, seen, camera)
    if shift is None or not np.isfinite(metres) or metres <= 0:
        return Reason("no_depth", "the network sees nothing that it could say the depth of")
    z = (points[..., 2] + shift) * metres
    return np.where(seen & (z > 0), z, np.nan).astype(np.float32)


def _shift(points: np.ndarray, seen: np.ndarray, camera: Camera) -> float | None:
    """By which z must grow so that f * xy / (z + shift) is where each point was seen: least squares, by Gauss and Newton.

    It begins at the solution of f * xy = uv * (z + shift), which is linear. `uv` is about the middle of the picture, in pixels.
    """
    height, width = seen.shape
    rows, columns = ((np.arange(_SAMPLES) + 0.5) * side / _SAMPLES for side in (height, width))
    at = np.ix_(rows.astype(int), columns.astype(int))
    v, u = np.mgrid[0:height, 0:width].astype(np.float64)
    uv = np.stack([u - (width - 1) / 2, v - (height - 1) / 2], -1)[at][seen[at]]
    xyz = points[at][seen[at]]
    if len(xyz) < _FEWEST:
        return None
    flat, z = xyz[:, :2] * [camera.fx_px, camera.fy_px], xyz[:, 2:]
    shift = float((uv * (flat - uv * z)).sum() / (uv**2).sum())
    for _ in range(_ROUNDS):
        ahead = np.maximum(z + shift, 1e-3)
        left, slope = flat / ahead - uv, -flat / ahead**2
        step = float((slope * left).sum() / (slope**2).sum())
        shift -= step
        if abs(step) < 1e-9:
            break
    return shift if np.isfinite(shift) else None
