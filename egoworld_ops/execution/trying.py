"""Stages tried on a few frames of a video, outside of any lake: a preview of what they will find. Nothing is written, and nothing of it counts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.errors import SetupError
from egoworld_ops.execution.identity import backend_of, check_lens, operator_of, upstream_of
from egoworld_ops.operators.base import ClipInput, Operator
from egoworld_ops.types import Clip
from egoworld_ops.video.decoding import decode_clip
from egoworld_ops.video.frame_times import indexed_times
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.sidecar import Sidecar

if TYPE_CHECKING:
    from egoworld_ops.settings import Settings


@dataclass
class Trial:
    """Runs stages with the backends of the settings, one trial at a time; models stay loaded from one to the next."""

    settings: Settings
    _operators: dict[str, Operator] = field(default_factory=dict)
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def tables(self, clip: Clip, first_frame: int, n_frames: int, sidecar: Sidecar, last_stage: str) -> dict[str, pa.Table]:
        """The tables of a stage and of all that it depends on, for some frames of a clip.

        Args:
            clip: the one that has the frames; they end where it ends.
            n_frames: how many are processed, of which `sample_stride` has each next one.
            sidecar: what a person would say of the video.

        Raises:
            SetupError: a backend cannot run in this process, or something of it is missing.
            EgoworldError: the frames cannot be processed.
        """
        stride = self.settings.sample_stride
        end = min(first_frame + n_frames * stride, clip.frame_end)
        part = replace(clip, frame_start=first_frame, own_start=first_frame, frame_end=end, own_end=end)
        opened = partial(decode_clip, part, stride, self.settings.pool.threads)
        chosen = self.settings.camera
        if "camera" not in operators.stages()[last_stage].sidecar:
            chosen = chosen.model_copy(update={"require_known": False})
        camera = resolve(part.width, part.height, sidecar, chosen, part.video_path, part.raster, part.focal_35mm_mm, part.lens)
        item = ClipInput(part, {}, sidecar, camera, stride, opened, indexed_times=partial(indexed_times, part, stride))
        wanted = {last_stage, *upstream_of(last_stage, self.settings)}
        tables: dict[str, pa.Table] = {}
        with self._alone:
            for stage in operators.stages():
                if stage in wanted:
                    tables[stage] = self._operator(stage, item).run(replace(item, tables=dict(tables)))
        return tables

    def _operator(self, stage: str, item: ClipInput) -> Operator:
        kind, options = operator_of(stage, self.settings)
        chosen = self.settings.stages.get(stage)
        if kind.runner or (chosen is not None and chosen.python):
            reason = f"backend {backend_of(stage, self.settings)} runs in an environment of its own, which a trial does not start"
            raise SetupError(f"stage {stage}", reason, "Look at the results of `egoworld process` instead")
        check_lens(operators.stages()[stage], backend_of(stage, self.settings), item.camera, item.clip.video_path)
        if stage not in self._operators:
            self._operators[stage] = kind(options, self.settings.pool.threads)
        return self._operators[stage]
