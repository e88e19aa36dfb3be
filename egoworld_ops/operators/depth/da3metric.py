"""Depth by DA3METRIC-LARGE, a network that counts in focal lengths: metres = what it says * focal length of the picture it saw / 300 px.

The focal length is the mean of both of the picture that goes in, at its size there; so half the focal length gives half the depth, and where it is
assumed the rows say `metric = false`. What the network takes for sky has no depth. Frames are looked at one by one: nothing is carried over time.

Torch is imported only where a model is built: reading settings or digests does not load it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.operators import accelerator
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.depth._pictures import Pictures
from egoworld_ops.operators.depth._rows import FIT_ERROR_SHARE, Rows
from egoworld_ops.types import Frame

CANONICAL_PX = 300.0
"""Focal length at which the network's numbers are metres (Depth Anything 3, `utils/alignment.py`: `apply_metric_scaling`)."""
SKY = 0.3
"""From this on a pixel is sky (`compute_sky_mask`)."""
_PATCH_PX = 14
_NETWORK_MB = 1337
"""334.17 million numbers of 32 bits."""
_PICTURE_MB = 700
"""Activations of a picture of 504 x 504."""
_PROCESS_MB = {"cpu": 700, "cuda": 1000}
_FULL_PX = 504


class Settings(BackendSettings):
    """Options of `[stages.depth.da3metric]`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` means CUDA if there is one; the pool decides which workers see one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network (autocast). It changes depths, so it is never chosen by the machine."""
    micro_batch: Annotated[int, Field(ge=1, le=64)] = 4
    """Frames computed at once; costs memory. It is an option, and so in the digest, since libraries choose their kernels by the size of the work."""
    side_px: Annotated[int, Field(ge=56, le=2016)] = _FULL_PX
    """Longer side of the picture that the network sees, and of the maps. Its authors have 504; its depth changes with it."""
    step_m: Annotated[float, Field(ge=1e-5, le=0.1)] = 0.0005
    """What depths are rounded to, before they are multiplied; 65535 steps are the farthest."""
    fit_error_share: Annotated[float, Field(ge=0, le=1)] = FIT_ERROR_SHARE
    """The clip's depths are multiplied by `scale`, which things of known size give, where its standard error is at most so large and they are more
    than two of them off; 0: never. Hands whose size the network of `hand_pose` assumes are known to 0.1 to 0.2."""
    random_weights_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """A small random network from this seed, to test the pipeline without weights. Rows then say `da3metric-random` and mean nothing."""


class Backend(Operator):
    """DA3METRIC-LARGE (Lin et al., "Depth Anything 3", 2025)."""

    version: ClassVar[str] = "4"
    packages: ClassVar[tuple[str, ...]] = ("torch", "opencv-python-headless", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 1.0
    """A compromise between a GPU and a CPU; it plans the first clip only."""
    handles_lenses: ClassVar[bool] = True

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the model.

        Raises:
            WeightsMissing, WeightsMismatch, WeightsUnreadable: the checkpoint is not there, or not the right one.
            BadSettings: CUDA is asked for and not there.
            NoDevice: there is a GPU, and torch cannot use it.
            OutOfMemory: memory ran out.
        """
        from egoworld_ops.operators.depth import _da3_model

        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        self.micro_batch = options.micro_batch
        device = accelerator.pick_device(options.device, "depth.da3metric")
        seed = options.random_weights_seed
        self._label = "da3metric" if seed is None else "da3metric-random"
        with _out_of_memory("the model"):
            self._model = (
                _da3_model.load(models.path("da3metric_large"), device, options.precision)
                if seed is None
                else _da3_model.random(seed, device, options.precision)
            )

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """An estimate. With bfloat16 autocast keeps copies of the weights, half their size."""
        options = cast("Settings", settings)
        if options.random_weights_seed is not None:
            return 0
        weights = _NETWORK_MB * (1.5 if options.precision == "bfloat16" else 1)
        picture = _PICTURE_MB * (options.side_px / _FULL_PX) ** 2
        return round(_PROCESS_MB[cls.device(options)] + weights + picture * options.micro_batch)

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The checkpoint; none with random weights."""
        return ("da3metric_large",) if cast("Settings", settings).random_weights_seed is None else ()

    def run(self, item: ClipInput) -> pa.Table:
        """Table `depth`: one row a frame.

        Raises:
            OutOfMemory: host or device memory ran out.
        """
        import torch

        torch.set_num_threads(self.threads)
        pictures = Pictures(item.camera, self._options.side_px, _PATCH_PX)
        focal_px = (pictures.camera.fx_px + pictures.camera.fy_px) / 2
        rows = Rows(item, self._label, "network", pictures.camera, self._options.step_m, self._options.fit_error_share)
        with _out_of_memory(f"clip {item.clip.clip_id} of {item.clip.video_id}"):
            for batch in self._batches(item):
                depth, sky = self._model(np.stack([pictures.of(frame.rgb) for frame in batch]))
                for frame, of_300_px, is_sky in zip(batch, depth, sky >= SKY, strict=True):
                    z_m = np.where(is_sky | pictures.unseen, np.nan, of_300_px * np.float32(focal_px / CANONICAL_PX))
                    rows.add(frame.index, frame.timestamp_s, z_m.astype(np.float32))
        return rows.table()

    def _batches(self, item: ClipInput) -> Iterator[Sequence[Frame]]:
        batch: list[Frame] = []
        for frame in item.frames():
            batch.append(frame)
            if len(batch) == self.micro_batch:
                yield batch
                batch = []
        if batch:
            yield batch


def _out_of_memory(culprit: str) -> AbstractContextManager[None]:
    return accelerator.out_of_memory(culprit, "DA3METRIC", "Free memory, or set a smaller micro_batch or side_px in stages.depth.da3metric")
