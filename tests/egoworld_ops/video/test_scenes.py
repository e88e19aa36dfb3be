"""Cuts against PySceneDetect's own and against known truth; windows as a property."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, ThresholdDetector, open_video

from egoworld_ops.video.probing import probe
from egoworld_ops.video.scenes import Scene, SceneScores, Window, find_scenes, frame_ends, windows
from egoworld_ops.video.settings import SceneSettings
from tests.egoworld_ops import media

COSMOS_CUTS = [0, 286, 348, 372, 388, 468, 523, 573, 610, 671]


def found(path: Path, **settings: object) -> list[Scene]:
    given_settings = SceneSettings(**settings)
    scores = SceneScores(given_settings.detector)
    seen = probe(path, scores)
    return find_scenes(scores, seen.timestamps_s, given_settings)


def starts(scenes: list[Scene]) -> list[int]:
    return [scene.frame_start for scene in scenes]


def test_cosmos_cuts_are_the_known_list(shared_data: Path) -> None:
    scenes = found(shared_data / "cosmos_test_video_30s.mp4", detector="content")
    print(f"FIGURE cuts on cosmos (content): {starts(scenes)} (known {COSMOS_CUTS})")
    assert starts(scenes) == COSMOS_CUTS
    assert scenes[0].cut_score is None
    assert all(scene.cut_score >= 27 and scene.method == "content" for scene in scenes[1:])


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_cuts_equal_those_of_the_package_itself(shared_data: Path, detector: str) -> None:
    path = shared_data / "cosmos_test_video_30s.mp4"
    manager = SceneManager()
    manager.add_detector({"adaptive": AdaptiveDetector, "content": ContentDetector}[detector](min_scene_len=15))
    manager.detect_scenes(open_video(str(path)))
    assert starts(found(path, detector=detector)) == [start.frame_num for start, _ in manager.get_scene_list()]


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_synthetic_cuts_exactly(synthetic_example: Path, detector: str) -> None:
    truth = json.loads((synthetic_example.parent / "kitchen.truth" / "scene.json").read_text("utf-8"))
    scenes = found(synthetic_example, detector=detector)
    print(f"FIGURE synthetic cuts ({detector}): {starts(scenes)[1:]} (truth {truth['cuts']})")
    assert starts(scenes)[1:] == truth["cuts"]
    assert scenes[-1].frame_end == truth["n_frames"]


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_cuts_are_found_where_they_were_made(tmp_path: Path, detector: str) -> None:
    path = media.make(tmp_path / "a.mp4", 100, (96, 72), picture=media.scenes([30, 75]))
    scenes = found(path, detector=detector)
    assert [(s.index, s.frame_start, s.frame_end) for s in scenes] == [(0, 0, 30), (1, 30, 75), (2, 75, 100)]


def test_fades_are_found_by_the_threshold_detector_as_by_the_package(tmp_path: Path) -> None:
    def fade(index: int, width: int, height: int) -> np.ndarray:
        dark = 40 <= index < 50
        return np.full((height, width, 3), 0 if dark else 120, np.uint8)

    path = media.make(tmp_path / "a.mp4", 100, picture=fade)
    manager = SceneManager()
    manager.add_detector(ThresholdDetector(min_scene_len=18))
    manager.detect_scenes(open_video(str(path)))
    scenes = found(path, detector="threshold")
    assert starts(scenes) == [start.frame_num for start, _ in manager.get_scene_list()] == [0, 45]


def test_a_video_without_cut_is_one_scene_that_says_so(tmp_path: Path) -> None:
    scenes = found(media.make(tmp_path / "a.mp4", 40, picture=media.scenes([])))
    assert scenes == [Scene(0, 0, 40, None, "whole_video", "the adaptive detector found no cut")]
    assert found(media.make(tmp_path / "one.mp4", 1))[0].frame_end == 1


def test_a_scoring_failure_is_one_scene_that_says_so() -> None:
    scores = SceneScores("adaptive")
    scores(0, 0.0, av.VideoFrame())
    scores(1, 0.1, av.VideoFrame(64, 48))
    scenes = find_scenes(scores, np.arange(2) / 10, SceneSettings())
    assert len(scenes) == 1
    assert (scenes[0].frame_end, scenes[0].method) == (2, "whole_video")
    assert "frame 0 could not be scored" in str(scenes[0].fallback_reason)


def test_a_second_pass_over_the_video_is_scored_anew(tmp_path: Path) -> None:
    def frame(value: int) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), "rgb24")

    twice, once = SceneScores("content"), SceneScores("content")
    for index, value in enumerate((10, 250, 30)):
        twice(index, index / 30, frame(value))
    twice(3, 0.1, av.VideoFrame())
    assert twice.finish().failure
    for scores in (twice, once):
        for index, value in enumerate((90, 120)):
            scores(index, index / 30, frame(value))
    assert (twice.finish().values, twice.failure) == (once.finish().values, None)
    assert len(once.values) == 2


def test_scores_of_damaged_frames_do_not_depend_on_threads(tmp_path: Path) -> None:
    content = media.make(tmp_path / "a.mkv", 50).read_bytes()
    path = tmp_path / "broken.mkv"
    rng = np.random.default_rng(5)
    for _ in range(8):
        broken = bytearray(content)
        for where in rng.integers(len(broken) // 2, len(broken) * 9 // 10, 4):
            broken[where] = rng.integers(0, 256)
        path.write_bytes(broken)
        passes = []
        for threads in (1, 2, 4):
            scores = SceneScores("content")
            seen = probe(path, scores, threads)
            assert len(scores.finish().values) == seen.n_frames
            passes.append(scores.values)
        assert passes[0] == passes[1] == passes[2]


def test_short_scenes_are_not_split_off(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 100, (96, 72), picture=media.scenes([30, 36, 75]))
    assert starts(found(path, detector="adaptive", min_scene_s=0.1)) == [0, 30, 36, 75]
    assert starts(found(path, detector="adaptive", min_scene_s=0.6)) == [0, 30, 75]


def test_threshold_setting_reaches_the_detector(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 60, (96, 72), picture=media.scenes([30]))
    assert starts(found(path, detector="content", threshold=250.0)) == [0]
    assert starts(found(path, detector="content", threshold=20.0)) == [0, 30]


def test_overlap_must_be_shorter_than_a_clip() -> None:
    with pytest.raises(ValueError, match="overlap_s"):
        SceneSettings(max_clip_s=1, overlap_s=1)
    times = np.arange(10) / 10
    with pytest.raises(ValueError, match="overlap_s"):
        list(windows(Scene(0, 0, 10, None, "content"), times, times + 0.1, 1.0, 1.0))


def test_windows_of_a_constant_rate() -> None:
    starts_s = np.arange(1800) / 30
    cut = list(windows(Scene(0, 0, 1770, None, "content"), starts_s, starts_s + 1 / 30, 30.0, 1.0))
    assert [(w.frame_start, w.frame_end, w.own_start, w.own_end) for w in cut] == [(0, 900, 0, 900), (870, 1770, 900, 1770)]
    assert cut[1].overlap_s == pytest.approx(1.0)
    assert [w.clip_id for w in cut] == ["f0000000_0000900", "f0000870_0001770"]
    assert (cut[1].start_s, cut[1].end_s) == (29.0, 59.0)


@given(
    steps_ms=st.lists(st.one_of(st.integers(1, 50), st.integers(1, 20_000)), min_size=1, max_size=300),
    even=st.booleans(),
    max_clip_s=st.floats(0.05, 40),
    overlap=st.floats(0, 0.95),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_frame_is_owned_once(steps_ms: list[int], even: bool, max_clip_s: float, overlap: float, part: tuple[float, float]) -> None:
    if even:
        steps_ms = [33] * len(steps_ms)
    ends_s = np.cumsum(steps_ms) / 1000
    starts_s = np.concatenate([[0.0], ends_s[:-1]])
    n = len(steps_ms)
    first = min(int(part[0] * n), n - 1)
    scene = Scene(0, first, max(first + 1, int(part[1] * n)), None, "content")
    overlap_s = overlap * max_clip_s
    cut = list(windows(scene, starts_s, ends_s, max_clip_s, overlap_s))
    owned = [f for w in cut for f in range(w.own_start, w.own_end)]
    assert owned == list(range(scene.frame_start, scene.frame_end))
    assert len({w.clip_id for w in cut}) == len(cut)
    for window in cut:
        _check_window(window, scene, starts_s, ends_s, max_clip_s, overlap_s)


def _check_window(w: Window, scene: Scene, starts_s: np.ndarray, ends_s: np.ndarray, max_clip_s: float, overlap_s: float) -> None:
    assert scene.frame_start <= w.frame_start <= w.own_start < w.own_end == w.frame_end <= scene.frame_end
    assert (w.start_s, w.end_s) == (starts_s[w.frame_start], ends_s[w.frame_end - 1])
    assert w.end_s - w.start_s <= max_clip_s + 1e-5 or w.own_end - w.own_start == 1
    assert w.overlap_s <= overlap_s + 1e-5
    if w.own_start > scene.frame_start:  # the frame before the first shared one would be too far away
        assert w.frame_start == scene.frame_start or starts_s[w.own_start] - starts_s[w.frame_start - 1] > overlap_s


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_short_scenes_are_short_in_time_whatever_the_rate(tmp_path: Path, detector: str) -> None:
    """60 frames a second, then a pause of minutes: at the mean rate, half a second would be less than a frame."""
    pts = [*range(100), *range(20_000, 20_100)]
    cuts = [30, 36, 75, 130, 136, 175]
    path = media.make(
        tmp_path / "a.mkv", 200, (96, 72), pts=[round(p * 1000 / 60) for p in pts], time_base=Fraction(1, 1000), picture=media.scenes(cuts)
    )
    assert starts(found(path, detector=detector, min_scene_s=0.3)) == [0, 30, 75, 130, 175]


def test_clips_end_before_a_pause() -> None:
    times_s = np.concatenate([np.arange(60) / 30, 182 + np.arange(3000) / 60])
    ends_s = frame_ends(times_s, times_s[-1] + 1 / 60, 30.0)
    assert ends_s[58:61] == pytest.approx([59 / 30, 2.0, 182 + 1 / 60])
    cut = list(windows(Scene(0, 0, 3060, None, "content"), times_s, ends_s, 30.0, 1.0))
    assert [(w.own_start, round(w.end_s - w.start_s, 1)) for w in cut] == [(0, 2.0), (60, 26.5), (1652, 24.5)]
    assert [round(w.overlap_s, 3) for w in cut] == [0, 0, 1]
