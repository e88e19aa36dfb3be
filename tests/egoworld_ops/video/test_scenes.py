"""Cuts against PySceneDetect's own and against known truth; windows as a property."""

from __future__ import annotations

import json
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, ThresholdDetector, open_video

from egoworld_ops.video import decoding
from egoworld_ops.video.dissolves import Dissolves
from egoworld_ops.video.probing import probe
from egoworld_ops.video.scenes import Scene, SceneScores, Window, find_scenes, frame_ends, windows
from egoworld_ops.video.settings import SceneSettings
from tests.egoworld_ops import media

COSMOS_CUTS = [0, 286, 348, 372, 388, 468, 523, 573, 610, 671]


def found(path: Path, **settings: object) -> list[Scene]:
    given_settings = SceneSettings(**({"dissolves": True} | settings))
    scores = SceneScores(given_settings.detector, given_settings.dissolves)
    seen = probe(path, scores)
    return find_scenes(scores, seen.timestamps_s, given_settings)


def starts(scenes: list[Scene]) -> list[int]:
    return [scene.frame_start for scene in scenes]


def test_cosmos_cuts_are_the_known_list(shared_data: Path) -> None:
    scenes = found(shared_data / "cosmos_test_video_30s.mp4", detector="content", dissolves=False)
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
    assert starts(found(path, detector=detector, dissolves=False)) == [start.frame_num for start, _ in manager.get_scene_list()]


def test_gradual_transitions_of_real_videos_are_those_seen_by_eye(shared_data: Path) -> None:
    """The trailer fades to black before its title and comes back after it; the other video has two cross-fades and no cut."""
    cosmos = found(shared_data / "cosmos_test_video_30s.mp4", detector="content")
    extra = sorted(set(starts(cosmos)) - set(COSMOS_CUTS))
    nasa = found(shared_data / "torchcodec_nasa_13013.mp4")
    print(f"FIGURE transitions of real videos: {extra} beside the cuts of the trailer, {starts(nasa)[1:]} in the other")
    assert set(COSMOS_CUTS) <= set(starts(cosmos))
    assert all(66 <= frame < 88 or 150 <= frame < 182 or 220 <= frame < 250 for frame in extra)
    assert len(nasa) == 3
    assert 150 <= nasa[1].frame_start < 182
    assert 222 <= nasa[2].frame_start < 245


@pytest.mark.parametrize("name", ["dexretarget_human_hand_video.mp4", "sam2_03_blocks.mp4", "handpose3d_stereo/cam0_test.mp4"])
def test_videos_of_one_shot_are_one_scene(shared_data: Path, name: str) -> None:
    assert [s.method for s in found(shared_data / name)] == ["whole_video"]


def mixed(one: media.Picture, other: media.Picture, share: float, size: tuple[int, int]) -> np.ndarray:
    return np.asarray((1 - share) * one(0, *size) + share * other(0, *size)).round().astype(np.uint8)


@pytest.mark.parametrize("seconds", [0.25, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("through", [None, 0, 255], ids=["cross", "black", "white"])
def test_fades_are_found_where_they_are(tmp_path: Path, seconds: float, through: int | None) -> None:
    a, b = media.scenes([]), media.scenes([], first=7)
    n = round(30 * seconds)

    def plain(_: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), through, np.uint8)

    def picture(index: int, width: int, height: int) -> np.ndarray:
        share = min(max((index - 40 + 0.5) / n, 0.0), 1.0)
        if through is None:
            return mixed(a, b, share, (width, height))
        return mixed(a, plain, min(2 * share, 1.0), (width, height)) if share < 0.5 else mixed(plain, b, 2 * share - 1, (width, height))

    path = media.make(tmp_path / "a.mp4", 80 + n, (96, 72), picture=picture)
    scenes = found(path)
    assert len(scenes) == 2
    assert 40 <= scenes[1].frame_start <= 40 + n
    assert abs(scenes[1].frame_start - 40 - n / 2) <= max(3, n / 4)
    if scenes[1].method == "dissolve":
        assert starts(found(path, dissolves=False)) == [0]


def shaken(index: int, width: int, height: int) -> np.ndarray:
    """A camera that swings to and fro over a large picture, at up to a picture's width in a third of a second."""
    rng = np.random.default_rng(3)
    large = cv2.resize(rng.integers(0, 255, (24, 64, 3)).astype(np.uint8), (8 * width, 3 * height), interpolation=cv2.INTER_CUBIC)
    x, y = round(3 * width * (1 + np.sin(index / 9))), round(height * (1 + np.sin(index / 7)))
    return large[y : y + height, x : x + width]


def covered(index: int, width: int, height: int) -> np.ndarray:
    """A hand that fills the picture within half a second, and goes."""
    picture = media.scenes([])(0, width, height)
    edge = height * (1 - np.interp(index, [30, 45, 60, 75], [0, 1.2, 1.2, 0]))
    return np.where((np.arange(height) > edge)[:, None, None], np.uint8([170, 120, 95]), picture).astype(np.uint8)


def flash(index: int, width: int, height: int) -> np.ndarray:
    """White within a quarter of a second, and back."""
    share = np.interp(index, [30, 37, 40, 47], [0, 1, 1, 0])
    return mixed(media.scenes([]), lambda *_: np.full((height, width, 3), 255, np.uint8), float(share), (width, height))


def overexposed(index: int, width: int, height: int) -> np.ndarray:
    """A flash within half a second, in which most of the picture clips."""
    gain = np.interp(index, [30, 45, 50, 65], [1.0, 6.0, 6.0, 1.0])
    return np.asarray(np.clip(media.scenes([])(0, width, height) * gain, 0, 255)).astype(np.uint8)


def lamp(index: int, width: int, height: int) -> np.ndarray:
    """A light that goes on within half a second."""
    return np.asarray(media.scenes([])(0, width, height) * np.interp(index, [40, 55], [0.15, 1.0])).astype(np.uint8)


@pytest.mark.parametrize("picture", [shaken, covered, flash, overexposed, lamp], ids=lambda p: p.__name__)
def test_what_changes_within_a_scene_is_no_dissolve(tmp_path: Path, picture: media.Picture) -> None:
    scenes = found(media.make(tmp_path / "a.mp4", 100, (96, 72), picture=picture))
    assert "dissolve" not in {s.method for s in scenes}
    if picture is lamp:
        assert starts(scenes) == [0]


@pytest.mark.parametrize(
    ("name", "gains"),
    [
        ("dexretarget_human_hand_video.mp4", np.interp(range(60), [15, 22, 30], [1, 5, 1])),
        ("sam2_03_blocks.mp4", np.interp(range(60), [15, 30], [0.15, 1])),
    ],
    ids=["flash", "lamp"],
)
def test_a_light_in_a_real_video_is_no_dissolve(shared_data: Path, tmp_path: Path, name: str, gains: np.ndarray) -> None:
    """A flash that blinds the camera leaves few cells to compare; in the dark of a lamp that is off little is left of coarse cells."""
    frames = [cv2.resize(f.rgb, (320, 180), interpolation=cv2.INTER_AREA) for f in decoding.decode(shared_data / name, 0, 60, threads=1)]

    def lit(index: int, width: int, height: int) -> np.ndarray:
        assert frames[index].shape == (height, width, 3)
        return np.clip(frames[index] * gains[index], 0, 255).astype(np.uint8)

    assert [s.method for s in found(media.make(tmp_path / "a.mp4", 60, (320, 180), picture=lit))] == ["whole_video"]


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


def test_the_memory_of_dissolves_does_not_grow_with_the_video() -> None:
    """A lamp that comes on and goes out once a second: there is a fade in every window."""
    scene = media.scenes([])(0, 128, 36)
    dissolves = Dissolves()
    held = []
    tracemalloc.start()
    for index in range(1200):
        dissolves(index / 30, (scene * (0.5 + 0.5 * np.cos(index / 30 * 2 * np.pi))).astype(np.uint8))
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(held[900:]) < 1.5 * max(held[:300])
    assert dissolves.transitions() == []
