"""Explanations of a clip are right, and asking for one creates and changes nothing."""

import json
from pathlib import Path

import pytest

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.explaining import explain
from egoworld_ops.errors import BadSettings, SetupError, UnknownVideo
from egoworld_ops.settings import Settings
from gpu_workers.inline import InlinePool
from tests.test_trust import CRASH, ONLY_DETECTIONS, FaultyPool, every_file, process, settings, video_id

__all__ = ["settings", "video_id"]  # the fixtures
CLIP = "f0000000_0000024"
UP_TO_MASKS = pipeline.Part(last="masks")


def with_stage(settings: Settings, stage: str, **chosen: object) -> Settings:
    stages = json.loads(settings.model_dump_json())["stages"]
    stages[stage] |= chosen
    return Settings(**(settings.model_dump() | {"stages": stages}))


def test_a_clip_is_done_or_to_be_computed_or_waits_for_what_is_further_up(settings: Settings, video_id: str) -> None:
    assert "no run has a result" in explain(settings, video_id, CLIP, "detections").verdict
    assert explain(settings, video_id, CLIP, "masks").verdict == "computed, after detections: no run has a result for this clip"
    process(settings, [video_id], InlinePool(2), ONLY_DETECTIONS)
    assert explain(settings, video_id, CLIP, "detections").verdict.startswith("done")
    assert "no run has a result" in explain(settings, video_id, CLIP, "masks").verdict


def test_a_changed_threshold_is_named_and_no_run_is_made_to_find_it(settings: Settings, video_id: str) -> None:
    process(settings, [video_id], InlinePool(2), UP_TO_MASKS)
    run, before = configuration.open_run(settings), every_file(settings.lake)
    changed = with_stage(settings, "detections", mediapipe={"min_palm_score": 0.7})

    said = explain(changed, video_id, CLIP, "detections")

    assert said.verdict.startswith("computed")
    assert said.nearest == run.clip_table("detections", video_id, CLIP)
    assert [(d.name, d.b) for d in said.differences] == [("operator.settings.min_palm_score", 0.7)]
    below = explain(changed, video_id, CLIP, "masks")
    assert below.verdict.startswith("computed")
    assert [d.name for d in below.differences] == ["inputs.detections"]
    assert every_file(settings.lake) == before

    unaffected = with_stage(settings, "masks", backend="sam2", sam2={"random_weights_seed": 1, "device": "cpu"})
    assert explain(unaffected, video_id, CLIP, "detections").verdict.startswith("linked from another run")
    assert every_file(settings.lake) == before


def test_settings_that_cut_the_video_anew_are_named(settings: Settings, video_id: str) -> None:
    process(settings, [video_id], InlinePool(2), ONLY_DETECTIONS)
    recut = settings.model_copy(update={"scenes": settings.scenes.model_copy(update={"max_clip_s": 0.5, "overlap_s": 0.1})})
    said = explain(recut, video_id, CLIP, "detections")
    assert "may cut the video into other clips" in said.verdict
    assert {d.name for d in said.differences} == {"scenes.max_clip_s", "scenes.overlap_s"}


def test_what_is_not_there_is_named(settings: Settings, video_id: str) -> None:
    with pytest.raises(SetupError, match="is not in video"):
        explain(settings, video_id, "f9", "detections")
    with pytest.raises(UnknownVideo, match="has no manifest"):
        explain(settings, "nobody-0123456789ab", CLIP, "detections")
    for stage in ("mask", pipeline.MANIFEST):
        with pytest.raises(BadSettings, match=r"There are detections|Did you mean masks"):
            explain(settings, video_id, CLIP, stage)


def test_a_dead_letter_is_not_said_to_be_computed(settings: Settings, video_id: str) -> None:
    process(settings, [video_id], FaultyPool(lambda task, tried: CRASH), ONLY_DETECTIONS)
    said = explain(settings, video_id, CLIP, "detections").verdict
    assert "dead letter" in said
    assert CRASH.reason in said
    assert explain(settings, video_id, CLIP, "masks").verdict.startswith("blocked by detections")


def test_a_stand_in_counts_as_done(settings: Settings, video_id: str) -> None:
    chosen = with_stage(settings, "masks", backend="sam2", fallback="classical", sam2={"random_weights_seed": 1, "device": "cpu"})
    process(chosen, [video_id], FaultyPool(lambda task, tried: CRASH if task.backend == "sam2" else None), UP_TO_MASKS)
    assert explain(chosen, video_id, CLIP, "masks").verdict.startswith("done")


def test_a_result_is_done_also_while_its_raw_file_is_away(settings: Settings, video_id: str, tmp_path: Path) -> None:
    process(settings, [video_id], InlinePool(2), ONLY_DETECTIONS)
    (tmp_path / "raw" / "two.mp4").rename(tmp_path / "raw" / "hidden")
    assert explain(settings, video_id, CLIP, "detections").verdict.startswith("done")
    said = explain(settings.model_copy(update={"sample_stride": 2}), video_id, CLIP, "detections").verdict
    assert said.startswith("cannot be computed")
    assert "two.mp4" in said
