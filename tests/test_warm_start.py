"""Clips that go on with the masks of the clip before: what that gives, in which order, and what counts when a clip before fails or changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.explaining import explain
from egoworld_ops.errors import OperatorCrash
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import provenance_at, read_table
from egoworld_ops.lake import counted, failures
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import video_state
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings, StageSettings, load_settings
from egoworld_ops.upkeep.verify_video import check_video
from egoworld_ops.video.settings import SceneSettings
from egoworld_ops.video.sidecar import sidecar_path
from egoworld_ops.vision import rle
from gpu_workers.inline import InlinePool
from gpu_workers.pool import Done, Failed
from tests.egoworld_ops import media

SIZE = (160, 120)
FRAMES, WINDOW_S, OVERLAP_S = 60, 1.0, 0.3
CLIPS = 3
UP_TO_MASKS = pipeline.Part(last="masks")


def _left(index: int) -> int:
    return 20 + index


def _square(index: int, width: int, height: int) -> np.ndarray:
    """A red square that glides over a grey, textured table."""
    picture = np.random.default_rng(0).integers(90, 130, (height, width, 1), np.uint8).repeat(3, 2)
    picture[40:80, _left(index) : _left(index) + 40] = (200, 40, 40)
    return picture


class Pool(InlinePool):
    """The inline pool; notes which clips of `masks` it was given, and fails one of them."""

    def __init__(self, failing: str = "") -> None:
        super().__init__(threads=1)
        self.given: list[str] = []
        self.failing = failing

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for task in tasks:
            self.given += [task.clip.clip_id] if task.stage == "masks" else []
            if task.stage == "masks" and task.clip.clip_id == self.failing:
                yield Failed(task, OperatorCrash(f"clip {task.clip.clip_id}", "bad", "Report it"), "", 0.1)
            else:
                yield from super().run([task])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene with an object that the sidecar names, and shows in the first frame alone."""
    path = media.make(tmp_path_factory.mktemp("raw") / "glide.mp4", FRAMES, SIZE, picture=_square, options={"crf": "12"})
    prompt = {"frame_index": 0, "box_px": [_left(0), 40, 40, 40]}
    sidecar_path(path).write_text(json.dumps({"objects": [{"label": "tile", "prompts": [prompt]}]}))
    return path


def _settings(lake: Path, warm: bool) -> Settings:
    settings = load_settings("laptop")
    masks = StageSettings(backend="classical", classical={"warm_start": warm})
    scenes = SceneSettings(max_clip_s=WINDOW_S, overlap_s=OVERLAP_S)
    changes: dict[str, Any] = {"lake": lake, "scenes": scenes, "stages": {**settings.stages, "masks": masks}, "retry_after_s": ()}
    return settings.model_copy(update=changes)


def _process(settings: Settings, video: Path, pool: InlinePool, part: pipeline.Part = UP_TO_MASKS) -> tuple[Run, str, list[str]]:
    """The run, the video and the state of each clip in `masks`, in order of the clips."""
    [video_id] = register.register(settings.lake, [video]).video_ids
    run = configuration.open_run(settings)
    found = {r.clip_id or "": r.state for stage, r in pipeline.process(run, [video_id], settings, pool, part) if stage == "masks"}
    return run, video_id, [found[clip] for clip in sorted(found)]


def _clips(run: Run, video_id: str) -> list[dict[str, Any]]:
    return read_table(run.video_table("clips", video_id), "clips").to_pylist()


def _digests(run: Run, video_id: str) -> list[str]:
    said = [provenance_at(run.clip_table("masks", video_id, clip["clip_id"])) for clip in _clips(run, video_id)]
    return [s["digest"] if s else "" for s in said]


def _states(run: Run, video_id: str) -> list[str]:
    """Of the clips in `masks`, as the files say; the table of states must say the same."""
    state = video_state(run, video_id)
    assert state is not None
    rows = counted.rows_of(run, video_id)
    assert rows == counted.as_it_is(run, video_id)
    return [clip.states["masks"] for clip in state.clips]


def _worst_overlaps(run: Run, video_id: str) -> list[float]:
    """For each clip the least IoU of the named object's mask with the true square, 0 where a frame has none."""
    found = []
    for clip in _clips(run, video_id):
        rows = read_table(run.clip_table("masks", video_id, clip["clip_id"]), "masks").to_pylist()
        masks = {row["frame_index"]: np.asarray(rle.decode(row["rle"]), bool) for row in rows if row["label"] == "tile"}
        overlaps = []
        for index in range(clip["frame_start"], clip["frame_end"]):
            true = np.zeros((SIZE[1], SIZE[0]), bool)
            true[40:80, _left(index) : _left(index) + 40] = True
            mask = masks.get(index, np.zeros_like(true))
            overlaps.append(float((mask & true).sum() / (mask | true).sum()))
        found.append(min(overlaps))
    return found


@pytest.fixture(scope="module")
def undisturbed(video: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str, Pool]:
    pool = Pool()
    run, video_id, states = _process(_settings(tmp_path_factory.mktemp("warm"), True), video, pool)
    assert states == ["computed"] * CLIPS
    return run, video_id, pool


def test_an_object_shown_in_the_first_clip_alone_is_followed_through_all(
    undisturbed: tuple[Run, str, Pool], video: Path, tmp_path: Path
) -> None:
    run, video_id, _ = undisturbed
    cold_run, cold_id, _ = _process(_settings(tmp_path, False), video, InlinePool(threads=1))
    assert _worst_overlaps(cold_run, cold_id)[0] >= 0.9
    assert _worst_overlaps(cold_run, cold_id)[1:] == [0, 0]
    assert min(_worst_overlaps(run, video_id)) >= 0.9
    assert [
        finding for finding in check_video(run, video_id) if "is not there" not in finding.reason
    ] == []  # other stages were not computed


def test_clips_are_computed_in_the_order_in_which_they_go_on_and_once(undisturbed: tuple[Run, str, Pool], video: Path) -> None:
    run, video_id, pool = undisturbed
    clips = [clip["clip_id"] for clip in _clips(run, video_id)]
    assert pool.given == clips
    said = [provenance_at(run.clip_table("masks", video_id, clip)) or {} for clip in clips]
    before = [s["identity"].get("before") for s in said]
    assert before == [None, *({"clip_id": clip, "digest": s["digest"]} for clip, s in zip(clips[:-1], said[:-1], strict=True))]
    again = Pool()
    assert _process(_settings(run.lake.root, True), video, again)[2] == ["done"] * CLIPS
    assert again.given == []


def test_a_clip_after_one_that_failed_begins_by_itself_until_that_is_there(
    undisturbed: tuple[Run, str, Pool], video: Path, tmp_path: Path
) -> None:
    whole, whole_id, _ = undisturbed
    settings, first = _settings(tmp_path, True), _clips(whole, whole_id)[0]["clip_id"]
    run, video_id, states = _process(settings, video, Pool(failing=first))
    assert states == ["failed", "computed", "computed"]
    assert _states(run, video_id) == ["failed", "done", "done"]
    assert (provenance_at(run.clip_table("masks", video_id, _clips(run, video_id)[1]["clip_id"])) or {})["identity"]["before"][
        "digest"
    ] is None

    failures.redrive(run, failures.Which())
    _, _, states = _process(settings, video, Pool(), pipeline.Part("masks", "masks", first))
    assert states == ["computed"]
    assert _states(run, video_id) == ["done", "stale", "stale"]  # made without what is there now
    assert explain(settings, video_id, _clips(run, video_id)[2]["clip_id"], "masks").verdict.startswith("computed after clip")
    assert _process(settings, video, Pool())[2] == ["done", "computed", "computed"]
    assert _states(run, video_id) == ["done"] * CLIPS
    assert _digests(run, video_id) == _digests(whole, whole_id)


def test_what_goes_on_with_a_clip_counts_no_more_when_that_is_gone(video: Path, tmp_path: Path) -> None:
    settings = _settings(tmp_path, True)
    run, video_id, _ = _process(settings, video, Pool())
    clips, digests = [clip["clip_id"] for clip in _clips(run, video_id)], _digests(run, video_id)
    counted.withdraw(run, video_id, clips[0], "masks")
    rows = counted.rows_of(run, video_id) or {}
    assert [rows[clip, "masks"]["state"] for clip in clips] == ["pending"] * CLIPS
    run.clip_table("masks", video_id, clips[0]).unlink()
    counted.count(run, video_id, [clips[0]])
    assert _states(run, video_id) == ["missing", "stale", "stale"]
    alone = pipeline.Part("masks", "masks", clips[1])
    assert _process(settings, video, Pool(), alone)[2] == ["blocked"]  # the clip before is still to be computed
    assert _process(settings, video, Pool())[2] == ["computed", "done", "done"]  # the same masks: what was made from them counts again
    assert _digests(run, video_id) == digests
    assert _states(run, video_id) == ["done"] * CLIPS
