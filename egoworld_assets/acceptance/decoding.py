"""How fast the CPU decodes the videos, and how fast the GPU's own decoder does, if there is one that gives the same frames."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from egoworld_assets.chain.clips import clips_of
from egoworld_ops.errors import CorruptVideo
from egoworld_ops.video import decoding
from egoworld_ops.video.packet_index import IndexDiffers

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Run
    from egoworld_ops.settings import Settings
    from egoworld_ops.types import Clip, Frame


@dataclass(frozen=True, slots=True)
class Decoded:
    """Of all clips.

    Args:
        frames_per_s: of the CPU.
        gpu_frames_per_s: of the GPU, with the comparison with the CPU; None where it cannot be used.
        reason: why not.
    """

    frames_per_s: float
    gpu_frames_per_s: float | None = None
    reason: str = ""


def decoded(run: Run, video_ids: Sequence[str], settings: Settings) -> Decoded:
    """Every processed frame, by the CPU and by the GPU."""
    clips = [clip for video_id in video_ids for clip in clips_of(run, video_id)]
    stride, threads = settings.sample_stride, settings.pool.threads
    on_cpu = _frames_per_s(clips, lambda clip: decoding.decode_clip(clip, stride, threads))
    try:
        return Decoded(on_cpu, _frames_per_s(clips, lambda clip: decoding.decode_clip_on_gpu(clip, stride)))
    except (IndexDiffers, CorruptVideo) as error:
        return Decoded(on_cpu, reason=str(error))


def _frames_per_s(clips: Sequence[Clip], of_clip: Callable[[Clip], Iterator[Frame]]) -> float:
    began, n = time.monotonic(), 0
    for clip in clips:
        counted = deque(enumerate(of_clip(clip), 1), maxlen=1)
        n += counted[0][0] if counted else 0
    return n / max(time.monotonic() - began, 1e-9)
