"""A stage whose backend reads a further table by setting waits for it, has it in its digest, and is stale where it changes; without, nothing does."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from egoworld_assets.assets import _of_stage, _settings
from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.explaining import explain
from egoworld_ops import operators
from egoworld_ops.contract import references, schema
from egoworld_ops.execution.identity import inputs_of, upstream_of
from egoworld_ops.files.tables import provenance_at, read_table, write_table
from egoworld_ops.lake import counted, states
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings, StageSettings, load_settings
from gpu_workers.inline import InlinePool
from tests.egoworld_ops import media
from tests.rows import detection_row, hand_pose_row, sample_row


def with_masks(settings: Settings, how: str) -> Settings:
    """The settings with hands of a random network, by the boxes of masks or not."""
    chosen = StageSettings(backend="hamer", hamer={"random_weights_seed": 1, "device": "cpu", "mask_boxes": how})
    return settings.model_copy(update={"stages": {**settings.stages, "hand_pose": chosen}})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path})


def states_in(run: Run, settings: Settings, video_id: str, stage: str) -> list[str]:
    """What the results of a stage are, once it was processed."""
    return [result.state for _, result in pipeline.process(run, [video_id], settings, InlinePool(1), pipeline.Part(stage, stage))]


def counting_after_masks_are_withdrawn(run: Run, video_id: str, clip: str) -> set[str]:
    """The stages in which table `states` has a result of a clip, once its masks are to be replaced."""
    counted.count(run, video_id)
    counted.withdraw(run, video_id, clip, "masks")
    rows = counted.rows_of(run, video_id) or {}
    return {stage for (of_clip, stage), row in rows.items() if of_clip == clip and row["state"] == "done"}


def test_who_reads_it_is_made_after_it_and_others_are_not(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    on, off = with_masks(settings, "missing"), with_masks(settings, "never")
    assert (inputs_of("hand_pose", on), inputs_of("hand_pose", off)) == (("detections", "masks"), ("detections",))
    assert (upstream_of("hand_pose", on), upstream_of("hand_pose", off)) == ({"detections", "masks"}, {"detections"})
    to_hands = pipeline.Part(last="hand_pose")
    assert to_hands.stages(on) == ["manifest", "detections", "masks", "hand_pose"]
    assert to_hands.stages(off) == ["manifest", "detections", "hand_pose"]
    stage = operators.stages()["hand_pose"]
    assert _of_stage(stage, _settings())["deps"] == ["detections"]
    monkeypatch.setenv("EGOWORLD_STAGES__HAND_POSE__BACKEND", "hamer")
    monkeypatch.setenv("EGOWORLD_STAGES__HAND_POSE__HAMER__MASK_BOXES", "always")
    assert _of_stage(stage, _settings())["deps"] == ["detections", "masks"]


def test_it_waits_for_the_table_and_is_stale_where_that_changes(settings: Settings) -> None:
    media.make(settings.raw / "v.mp4", 6)
    on, off = with_masks(settings, "missing"), with_masks(settings, "never")
    [video_id] = register.register(settings.lake, [settings.raw / "v.mp4"]).video_ids
    run = configuration.open_run(on)
    for stage in (pipeline.MANIFEST, "detections"):
        states_in(run, on, video_id, stage)
    [clip] = read_table(run.video_table("clips", video_id), "clips")["clip_id"].to_pylist()
    assert states_in(run, on, video_id, "hand_pose") == ["blocked"]
    assert "after masks" in explain(on, video_id, clip, "hand_pose").verdict
    assert states_in(run, on, video_id, "masks") == ["computed"]
    assert states_in(run, on, video_id, "hand_pose") == ["computed"]
    assert states_in(run, on, video_id, "hand_pose") == ["done"]
    hands, masks = (run.clip_table(stage, video_id, clip) for stage in ("hand_pose", "masks"))
    said = provenance_at(masks) or {}
    assert (provenance_at(hands) or {})["identity"]["inputs"]["masks"] == said["digest"]

    assert counting_after_masks_are_withdrawn(run, video_id, clip) == {"detections"}
    write_table(masks, "masks", read_table(masks, "masks"), said | {"digest": "f" * 64})
    assert states.clip_states(run, video_id, clip)["hand_pose"].state == "stale"
    write_table(masks, "masks", read_table(masks, "masks"), said)
    assert states.clip_states(run, video_id, clip)["hand_pose"].state == "done"

    assert states_in(run, off, video_id, "hand_pose") == ["computed"]
    assert "masks" not in (provenance_at(hands) or {})["identity"]["inputs"]
    assert counting_after_masks_are_withdrawn(run, video_id, clip) == {"detections", "hand_pose"}
    masks.unlink()
    assert states.clip_states(run, video_id, clip)["hand_pose"].state == "done"


def test_a_hand_that_is_not_detected_may_stand_on_its_mask_alone() -> None:
    def table(name: str, row: dict[str, object]) -> dict[str, pa.Table]:
        return {name: schema.from_rows(name, [row])}

    detected = table("detections", detection_row(0, role="hand_left"))
    later = table("hand_pose", hand_pose_row(1, hand="left"))
    masked = table("masks", sample_row("masks", 1, role="hand_left"))
    [(broken, _)] = references.dangling(detected | later)
    assert broken.child == "hand_pose"
    assert list(references.dangling(detected | masked | later)) == []
    other = table("masks", sample_row("masks", 1, role="hand_right", track_id=2))
    assert len(list(references.dangling(detected | other | later))) == 2, "the pose, and the mask that no detection stands for"
