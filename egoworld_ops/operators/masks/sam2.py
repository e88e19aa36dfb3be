"""Backend `sam2`: SAM 2.1 tracks hands and objects through the clip, prompted by the detections; a few frames in memory at a time.

A track is prompted at its first detection, by its box and, for a hand, some of its points. It is prompted again where it is detected and
its mask was empty in the frame before. Masks begin with a track's first detection, or with what the clip before hands on (`warm_start`): nothing
is tracked backwards.

Torch and the `sam2` package are imported only where a model is built: reading settings or digests does not load them.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.contract import schema
from egoworld_ops.operators import accelerator
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.masks import _sam2_needs as needs
from egoworld_ops.operators.masks._handover import Handed, Handover
from egoworld_ops.operators.masks._pixels import pixel_columns
from egoworld_ops.operators.masks._sam2_prompts import Prompt, prompts_by_frame
from egoworld_ops.operators.rows import common
from egoworld_ops.types import Frame, sampled_frames

if TYPE_CHECKING:
    import torch

    from egoworld_ops.operators.masks._sam2_stream import TrackedMask

_ROLES = ("hand_left", "hand_right", "object")


class Settings(BackendSettings):
    """Options of `[stages.masks.sam2]`."""

    model: Literal["tiny", "small", "base_plus", "large"] = "large"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` means CUDA if there is one; the pool decides which workers see one, see `Operator.device`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network (autocast). It changes masks, so it is never chosen by the machine: profiles for GPUs name bfloat16."""
    image_size: Annotated[int, Field(ge=128, le=2048, multiple_of=64)] = 1024
    """Side of the square that frames are resized to, px. The published weights were trained at 1024."""
    micro_batch: Annotated[int, Field(ge=1, le=256)] = 1
    """Frames whose features are computed at once; tracking goes on frame by frame. For GPUs, which a single frame does not fill; costs memory.

    It is an option, and so in the digest, since libraries choose their kernels by the size of the work, and another kernel may change the last
    bits of a logit: on two threads of a CPU 8 frames at once changed features by 1e-6, 2 to 4 did not. Where memory runs out it is halved for the
    rest of the worker's life, which the digest does not show: such masks may differ in those bits from masks of the same digest made with more
    memory.
    """
    tracks_at_once: Annotated[int, Field(ge=1, le=64)] = 1
    """Tracks that go through memory attention, mask decoder and memory encoder in one pass. For GPUs, which one track's small operations do not fill;
    costs memory, and may change the last bits of a logit as `micro_batch` does. Where memory runs out both are lowered."""
    compile: bool = False
    """Compile the image encoder (`torch.compile`) when a worker starts, which takes a minute or more; a batch that is not full is filled up.
    Compiled kernels change last bits, so it is part of the digest."""
    hand_joints: tuple[Annotated[int, Field(ge=0, le=20)], ...] = (2, 5, 9, 13, 17)
    """Which of a hand's 21 points prompt it beside its box: by default the knuckles, which are well inside the hand."""
    reprompt_lost: bool = True
    """Prompt a track again where it is detected and its mask was empty in the frame before."""
    warm_start: bool = False
    """Go on with the masks that the clip before has of frames that both have: they prompt its tracks, in place of boxes. See `_handover`."""
    max_prompt_frames: Annotated[int, Field(ge=2, le=64)] = 4
    """How many of a track's prompted frames it attends to, the newest ones; bounds memory where a track is often lost."""
    non_overlapping: bool = True
    """Give a pixel claimed by several tracks to the one with the highest logit. Each track's memory keeps its own full mask."""
    random_weights_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Random weights from this seed, to test the pipeline without a checkpoint. Rows then say `sam2-random` and mean nothing."""


class Backend(Operator):
    """SAM 2.1 by the `sam2` package. `score` is the probability that the track is visible in the frame (sigmoid of the object score), and of
    an object that was found automatically no higher than the confidence that there is one."""

    version: ClassVar[str] = "5"
    packages: ClassVar[tuple[str, ...]] = ("sam2", "torch", "torchvision", "hydra-core", "omegaconf", "pycocotools", "pillow")
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 1.0
    """A compromise between a GPU's 0.1 and a CPU's 10, as there is no figure by device; it plans the first clip only."""

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the model.

        Raises:
            WeightsMissing, WeightsMismatch: the checkpoint is not there, or not the one in the registry.
            BadSettings: CUDA is asked for and not there.
            NoDevice: there is a GPU, and torch cannot use it.
        """
        import torch

        from egoworld_ops.operators.masks._sam2_model import build

        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        self.micro_batch = max(options.micro_batch, options.tracks_at_once)
        self._device = accelerator.pick_device(options.device, "masks.sam2")
        random = options.random_weights_seed
        self._label = "sam2" if random is None else "sam2-random"
        weights = models.path(_weights_name(options)) if random is None else random
        with _out_of_memory(f"model {options.model}"):
            self._predictor = build(
                options.model, options.image_size, options.max_prompt_frames, options.non_overlapping, self._device, weights
            )
            if options.compile:
                from egoworld_ops.operators.masks._sam2_compiled import compile_encoder

                torch.set_num_threads(threads)
                with self._autocast():
                    compile_encoder(self._predictor, options.image_size, options.micro_batch)

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """An estimate: see `_sam2_needs.memory_mb`."""
        options = cast("Settings", settings)
        device, precision = cls.device(options), options.precision
        return needs.memory_mb(options.model, options.image_size, options.micro_batch, options.tracks_at_once, device, precision)

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The checkpoint; none with random weights."""
        options = cast("Settings", settings)
        return (_weights_name(options),) if options.random_weights_seed is None else ()

    @classmethod
    def continues(cls, settings: BackendSettings) -> bool:
        """With `warm_start`."""
        return cast("Settings", settings).warm_start

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Only if something is detected, or handed on."""
        return any(table.num_rows > 0 for table in tables.values())

    def run(self, item: ClipInput) -> pa.Table:
        """Masks of all detected tracks, each from its first detection on, or from where it is handed on; a frame where a track's mask is empty has no
        row of it.

        Raises:
            OutOfMemory: host or device memory ran out.
        """
        import torch

        torch.set_num_threads(self.threads)
        with _out_of_memory(f"clip {item.clip.clip_id} of {item.clip.video_id}"), self._autocast():
            handover = Handover(item.tables.get("masks"), item.clip.frame_start, _ROLES)
            return schema.from_rows("masks", handover.named(list(self._rows(item, handover))))

    def _rows(self, item: ClipInput, handover: Handover) -> Iterator[dict[str, Any]]:
        clip, options = item.clip, self._options
        found = prompts_by_frame(item.tables["detections"], options.hand_joints, clip.width, clip.height)
        begins = found.keys() | handover.frames
        if not begins:
            return
        n_frames = len(sampled_frames(clip.frame_start, clip.frame_end, item.sample_stride))
        state = self._predictor.start(n_frames, clip.height, clip.width, min(options.tracks_at_once, self.micro_batch))
        tracks: dict[int, Prompt | Handed] = {}
        visible: dict[int, np.ndarray] = {}
        for position, index, timestamp_s in self._encoded(state, item.frames(), begins):
            handed = handover.at(index, visible)
            tracks |= {begun.key: begun for begun in handed}
            visible |= {begun.key: begun.box_px for begun in handed}
            prompts = self._wanted(_numbered(found.get(index, {}), handover, visible), tracks, visible)
            tracks |= {p.track_id: p for p in prompts if p.track_id not in tracks}
            visible.clear()
            for mask in self._predictor.step(state, position, prompts, handed):
                row = _row(mask, tracks[mask.track_id])
                if row is not None:
                    visible[mask.track_id] = row["bbox_px"]
                    yield common(item, index, timestamp_s, self._label) | row

    def _encoded(self, state: dict[str, Any], frames: Iterator[Frame], begins: Container[int]) -> Iterator[tuple[int, int, float]]:
        """Position in the clip, index in the video and time of each frame from the first prompted one on, once its features are in the state.

        The next frames are read once the last of the frames before has been stepped into.
        """
        tracked = dropwhile(lambda at: at[1].index not in begins, enumerate(frames))
        while batch := self._encode(state, islice(tracked, self._frames_at_once)):
            yield from batch

    @property
    def _frames_at_once(self) -> int:
        return min(self._options.micro_batch, self.micro_batch)

    def _encode(self, state: dict[str, Any], frames: Iterable[tuple[int, Frame]]) -> list[tuple[int, int, float]]:
        """Encode some frames; only their features are kept, not the pictures."""
        from egoworld_ops.operators.masks._sam2_stream import preprocess

        batch, images = [], {}
        for position, frame in frames:
            batch.append((position, frame.index, frame.timestamp_s))
            images[position] = preprocess(frame.rgb, self._options.image_size)
        if images:
            self._predictor.encode(state, images, self._frames_at_once if self._options.compile else 0)
        return batch

    def _wanted(self, found: Mapping[int, Prompt], tracks: Mapping[int, Any], visible: Collection[int]) -> list[Prompt]:
        """Which of a frame's prompts are given to the model: those of new tracks, and of tracks that were lost."""
        lost = {t for t in tracks if t not in visible} if self._options.reprompt_lost else set()
        return [found[t] for t in sorted(found) if t not in tracks or t in lost]

    def _autocast(self) -> torch.autocast:
        import torch

        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._options.precision == "bfloat16")


def _weights_name(options: Settings) -> str:
    return f"sam2.1_hiera_{options.model}"


def _numbered(found: Mapping[int, Prompt], handover: Handover, visible: Mapping[int, np.ndarray]) -> dict[int, Prompt]:
    """A frame's prompts under the numbers by which their things are followed."""
    numbered = {}
    for prompt in found.values():
        low, high = prompt.box_px[:2], prompt.box_px[2:]
        key = handover.key(prompt.track_id, prompt.role, prompt.label, np.concatenate([low, high - low]), prompt.named, visible)
        numbered[key] = replace(prompt, track_id=key)
    return numbered


def _row(tracked: TrackedMask, track: Prompt | Handed) -> dict[str, Any] | None:
    """The columns that describe one mask; None where it is empty."""
    mask = (tracked.logits > 0).cpu().numpy()
    pixels = pixel_columns(mask)
    if pixels is None:
        return None
    return {
        "track_id": tracked.track_id,
        "role": track.role,
        "label": track.label,
        "score": min(tracked.score, track.surest),
        "observed": True,
        **pixels,
    }


def _out_of_memory(culprit: str) -> AbstractContextManager[None]:
    return accelerator.out_of_memory(
        culprit, "SAM 2", "Free memory, or set a smaller model, image_size, micro_batch or tracks_at_once in stages.masks.sam2"
    )
