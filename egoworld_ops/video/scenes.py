"""Cuts, and the windows that become clips. Frames are scored while the manifest decodes them; cuts are decided once all scores are known.

The detectors of cuts are PySceneDetect's; gradual transitions are found in `dissolves.py`. The values that are compared are computed here, on small
pictures straight from the decoder, as converting each full frame to BGR costs as much as decoding it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode, SceneDetector, StatsManager, ThresholdDetector

from egoworld_ops.video.containers import LIBAV_FAULTS
from egoworld_ops.video.dissolves import Dissolves, Transition
from egoworld_ops.video.settings import SceneSettings

SCORED_SIDE_PX = 128
SCORED_ROWS = 0.5
"""Samples of a frame that are scored: this many along its longer side, from every second row only, as reading rows costs most.
PySceneDetect takes all rows of 256 columns; scores differ from its own by 0.3 of 255 on average."""

_ROUNDING_S = 1e-6
_TIMESTAMP_S = 0.0015
"""Containers round timestamps, at worst to whole milliseconds."""
_TICKS_A_SECOND = 1_000_000
_FRAMES_A_BATCH = 4
_BATCHES_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """Frames `[frame_start, frame_end)` between two cuts.

    Args:
        index: position among the scenes of the video.
        cut_score: the detector's score of the cut at `frame_start`; None at the start of the video.
        method: the detector, `dissolve` for a cross-fade or a fade, or `whole_video`.
        fallback_reason: why the whole video is one scene, else None.
    """

    index: int
    frame_start: int
    frame_end: int
    cut_score: float | None
    method: str
    fallback_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Frames `[frame_start, frame_end)` that become one clip, which owns `[own_start, own_end)` and shares `overlap_s` with the one before."""

    frame_start: int
    frame_end: int
    own_start: int
    own_end: int
    start_s: float
    end_s: float
    overlap_s: float

    @property
    def clip_id(self) -> str:
        """Name of the clip within its video."""
        return f"f{self.frame_start:07d}_{self.frame_end:07d}"


class SceneScores:
    """Scores each frame for a detector; give it to `video.probe` as `visit`, then take `finish()`.

    Scoring runs in a thread beside the decoder, a few frames at a time; both release the GIL.

    For the detectors `content` and `adaptive` the value is PySceneDetect's content value: the mean absolute difference to the frame before
    in HSV, over pixels and channels (ContentDetector's default weights). For `threshold` it is the mean over pixels and colours. A frame
    that cannot be scored ends the scoring with `failure`; it never ends the decoding.

    Args:
        detector: as in `SceneSettings`.
        dissolves: also look for gradual transitions.
    """

    def __init__(self, detector: str, dissolves: bool = False) -> None:
        self._gradual = dissolves
        self._value = _brightness if detector == "threshold" else self._content
        self._reformatter = VideoReformatter()
        self._worker = ThreadPoolExecutor(1, "scene-scores")
        self._pending: deque[Future[None]] = deque()
        self._start()

    def _start(self) -> None:
        self._wait(0)
        self._batch: list[tuple[float, av.VideoFrame]] = []
        self._dissolves = Dissolves() if self._gradual else None
        self.values: list[float] = []
        self.failure: str | None = None
        self._size_px: tuple[int, int] | None = None
        self._last_hsv: np.ndarray | None = None

    def __call__(self, index: int, timestamp_s: float, frame: av.VideoFrame) -> None:
        """Score the next frame; index 0 begins a new pass."""
        if index == 0:
            self._start()
        self._batch.append((timestamp_s, frame))
        if len(self._batch) == _FRAMES_A_BATCH:
            self._hand_over()

    def finish(self) -> SceneScores:
        """Wait until every frame given so far is scored; then `values` and `failure` are complete."""
        self._hand_over()
        self._wait(0)
        return self

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        self._wait(_BATCHES_IN_FLIGHT - 1)
        self._pending.append(self._worker.submit(self._score, batch))

    def _wait(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft().result()

    @property
    def transitions(self) -> list[Transition]:
        """Gradual transitions among the frames scored so far."""
        return self._dissolves.transitions() if self._dissolves else []

    def _score(self, batch: list[tuple[float, av.VideoFrame]]) -> None:
        for timestamp_s, frame in batch:
            if self.failure:
                return
            try:
                small = self._small_bgr(frame)
                self.values.append(self._value(small))
                if self._dissolves:
                    self._dissolves(timestamp_s, small)
            except (cv2.error, *LIBAV_FAULTS) as error:
                self.failure = f"frame {len(self.values)} could not be scored: {error}"

    def _small_bgr(self, frame: av.VideoFrame) -> np.ndarray:
        if self._size_px is None:
            scale = min(1.0, SCORED_SIDE_PX / max(frame.width, frame.height))
            self._size_px = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale * SCORED_ROWS)))
        small = self._reformatter.reformat(frame, *self._size_px, "bgr24", interpolation=Interpolation.POINT, threads=1)
        plane = small.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(small.height, plane.line_size)
        return rows[:, : 3 * small.width].reshape(small.height, small.width, 3)

    def _content(self, bgr: np.ndarray) -> float:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        last, self._last_hsv = self._last_hsv, hsv
        return 0.0 if last is None else cv2.norm(hsv, last, cv2.NORM_L1) / hsv.size


def _brightness(bgr: np.ndarray) -> float:
    return sum(cv2.mean(bgr)[:3]) / 3


class _GivenContent(ContentDetector):
    """ContentDetector on precomputed content values: the `frame_img` it is given is that value."""

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
        return float(frame_img)


class _ContentOnly(ContentDetector):
    """The part of its base class that AdaptiveDetector needs: the content value, without the base class's own cuts."""

    def process_frame(self, timecode: FrameTimecode, frame_img: np.ndarray) -> list[FrameTimecode]:
        self._frame_score = float(frame_img)
        return []


class _GivenAdaptive(AdaptiveDetector, _ContentOnly):
    """AdaptiveDetector on precomputed content values."""


def find_scenes(scores: SceneScores, times_s: np.ndarray, settings: SceneSettings) -> list[Scene]:
    """Split a video into scenes.

    Args:
        scores: of the frames, for the detector in `settings`; those of frames beyond `times_s` are ignored.
        times_s: (n,) float64 presentation times of the video's frames, increasing.
        settings: detector and thresholds; scenes shorter than `min_scene_s` are not split off.

    Returns:
        Scenes in order that cover every frame once; one scene `whole_video` with a `fallback_reason` where scoring failed or no cut was
        found.
    """
    n_frames, n_scored = len(times_s), len(scores.finish().values)
    reason = scores.failure or (f"only {n_scored} of {n_frames} frames were scored" if n_scored < n_frames else None)
    cuts: dict[int, float] = {}
    if not reason:
        try:
            cuts = _cuts(scores, times_s, settings)
        except (ArithmeticError, ValueError) as error:
            reason = f"the {settings.detector} detector failed: {error}"
    gradual = {} if reason else _between(scores.transitions, cuts, times_s, settings.min_scene_s)
    if not cuts and not gradual:
        return [Scene(0, 0, n_frames, None, "whole_video", reason or f"the {settings.detector} detector found no cut")]
    starts = [0, *sorted({*cuts, *gradual})]
    found = cuts | gradual
    return [
        Scene(i, start, end, found.get(start), "dissolve" if start in gradual else settings.detector)
        for i, (start, end) in enumerate(zip(starts, [*starts[1:], n_frames], strict=True))
    ]


def _between(found: Sequence[Transition], cuts: Mapping[int, float], times_s: np.ndarray, min_scene_s: float) -> dict[int, float]:
    """The transitions, as cuts with their scores, in which no cut was found, and that leave no scene shorter than `min_scene_s`."""
    bounds = sorted({0, *cuts, len(times_s) - 1})
    gradual: dict[int, float] = {}
    for transition in found:
        inside = any(transition.start < cut <= transition.end for cut in cuts)
        nearest_s = min(abs(times_s[min(transition.cut, len(times_s) - 1)] - times_s[b]) for b in [*bounds, *gradual])
        if transition.end < len(times_s) and not inside and nearest_s >= min_scene_s - _TIMESTAMP_S:
            gradual[transition.cut] = transition.change
    return gradual


def _cuts(scores: SceneScores, times_s: np.ndarray, settings: SceneSettings) -> dict[int, float]:
    """First frames of new scenes, with the detector's score there.

    The detectors assume evenly spaced frames, so the frame number they get is the frame's time in ticks of a fine clock.
    """
    detector = _detector(settings, max(1, math.ceil((settings.min_scene_s - _TIMESTAMP_S) * _TICKS_A_SECOND)))
    detector.stats_manager = StatsManager()
    values = scores.values
    ticks = np.round((times_s - times_s[0]) * _TICKS_A_SECOND).astype(np.int64)
    clock = FrameTimecode(0, float(_TICKS_A_SECOND))
    found: list[FrameTimecode] = []
    for value, tick in zip(values, ticks.tolist(), strict=False):
        found += detector.process_frame(FrameTimecode(tick, clock), np.array(value))
    found += detector.post_process(FrameTimecode(int(ticks[-1]), clock))
    ratio_key = detector.get_metrics()[-1]
    cuts = {}
    for timecode in found:
        index = int(np.searchsorted(ticks, timecode.frame_num + 1, side="right")) - 1
        if 0 < index < len(ticks):
            cuts[index] = detector.stats_manager.get_metrics(timecode, [ratio_key])[0] if settings.detector == "adaptive" else values[index]
    return cuts


def _detector(settings: SceneSettings, min_ticks: int) -> SceneDetector:
    given = settings.threshold
    if settings.detector == "adaptive":
        return _GivenAdaptive(min_scene_len=min_ticks, **({"adaptive_threshold": given} if given else {}))
    kind = _GivenContent if settings.detector == "content" else ThresholdDetector
    return kind(min_scene_len=min_ticks, **({"threshold": given} if given else {}))


def frame_ends(times_s: np.ndarray, duration_s: float, longest_s: float) -> np.ndarray:
    """(n,) float64 times at which frames end: where the next frame begins.

    A frame that would last longer than `longest_s` ends before a pause instead: it lasts as long as the frame before it, or, if that one
    precedes a pause too, as the usual frame. So no clip holds a pause that is longer than a clip may be.

    Args:
        times_s: (n,) float64 presentation times of the video's frames, increasing.
        duration_s: end of the last frame minus start of the first, seconds.
        longest_s: longest clip, seconds.
    """
    ends_s = np.append(times_s[1:], times_s[0] + duration_s)
    stands_s = ends_s - times_s
    paused = stands_s > longest_s
    if not paused.all():
        usual_s = float(np.median(stands_s[~paused]))
        for index in np.flatnonzero(paused):
            ends_s[index] = times_s[index] + (usual_s if not index or paused[index - 1] else stands_s[index - 1])
    return ends_s


def windows(scene: Scene, starts_s: np.ndarray, ends_s: np.ndarray, max_clip_s: float, overlap_s: float) -> Iterator[Window]:
    """Cut a scene into windows of about equal length, none longer than `max_clip_s` (except a single longer frame).

    Neighbours share `overlap_s`, cut to whole frames. The shared frames belong to the earlier window: the later one reads them first,
    unowned, to warm up before its own frames.

    Args:
        scene: which frames.
        starts_s: (n,) float64 presentation times of the video's frames, increasing.
        ends_s: (n,) float64 times at which the frames end.
        max_clip_s: longest window, seconds.
        overlap_s: time shared by neighbours, seconds.

    Raises:
        ValueError: the overlap is not shorter than the window.
    """
    if not 0 <= overlap_s < max_clip_s:
        raise ValueError(f"windows: want 0 <= overlap_s < max_clip_s, got {overlap_s:g} and {max_clip_s:g}")
    limit_s = _balanced_length_s(scene, starts_s, ends_s, max_clip_s, overlap_s) + _ROUNDING_S
    own_start = scene.frame_start
    while own_start < scene.frame_end:
        frame_start = _first_shared(scene, own_start, starts_s, overlap_s)
        fitting = int(np.searchsorted(ends_s, starts_s[frame_start] + limit_s, side="right"))
        own_end = min(max(fitting, own_start + 1), scene.frame_end)
        yield Window(
            frame_start=frame_start,
            frame_end=own_end,
            own_start=own_start,
            own_end=own_end,
            start_s=float(starts_s[frame_start]),
            end_s=float(ends_s[own_end - 1]),
            overlap_s=float(starts_s[own_start] - starts_s[frame_start]),
        )
        own_start = own_end


def _first_shared(scene: Scene, own_start: int, starts_s: np.ndarray, overlap_s: float) -> int:
    """First frame of the window that owns frames from `own_start` on."""
    if own_start == scene.frame_start:
        return own_start
    first = int(np.searchsorted(starts_s, starts_s[own_start] - overlap_s - _ROUNDING_S))
    return max(first, scene.frame_start)


def _balanced_length_s(scene: Scene, starts_s: np.ndarray, ends_s: np.ndarray, max_clip_s: float, overlap_s: float) -> float:
    """Length that makes the fewest windows about equal, with two frames to spare for rounding; at most `max_clip_s`."""
    first, last = scene.frame_start, scene.frame_end - 1
    pauses_s = starts_s[first + 1 : last + 1] - ends_s[first:last]
    total_s = float(ends_s[last] - starts_s[first] - pauses_s.sum())
    if total_s <= max_clip_s + _ROUNDING_S:
        return max_clip_s
    n_windows = math.ceil((total_s - overlap_s) / (max_clip_s - overlap_s) - _ROUNDING_S)
    frame_s = total_s / (scene.frame_end - first)
    return min(max_clip_s, (total_s + (n_windows - 1) * overlap_s) / n_windows + 2 * frame_s)
