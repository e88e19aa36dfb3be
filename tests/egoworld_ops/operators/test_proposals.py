"""Object proposals: a person's prompts at their frames, and objects found by motion and colour in the rendered scene."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_ops.operators.detections._proposals import HandBox, ObjectProposer, Proposal, ProposalSettings, clip_box, grow_box
from egoworld_ops.operators.masks import classical
from egoworld_ops.types import Frame
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.sidecar import Prompt, Sidecar, SidecarObject
from egoworld_ops.vision import rle
from tests import kitchen


def _frame(index: int, shape: tuple[int, int] = (48, 64)) -> Frame:
    return Frame(index, index / 30, np.zeros((*shape, 3), np.uint8))


def _object(*prompts: Prompt, label: str = "cup") -> SidecarObject:
    return SidecarObject(label=label, prompts=prompts)


def _proposer(objects: tuple[SidecarObject, ...], frames: range = range(200), stride: int = 1, **settings: Any) -> ObjectProposer:
    return ObjectProposer(ProposalSettings(**settings), objects, frames, stride)


def _box(index: int) -> Prompt:
    return Prompt(frame_index=index, box_px=(10, 12, 20, 15))


def _hands(mp4: Path, index: int, noise_px: float, rng: np.random.Generator) -> list[HandBox]:
    found = []
    for role in ("hand_left", "hand_right"):
        points_px = kitchen.true_points(mp4)[index, role] + rng.normal(0, noise_px, (21, 2))
        low, high = points_px.min(0), points_px.max(0)
        found.append(HandBox(role, np.concatenate([low, high - low]), points_px))
    return found


def test_a_persons_box_is_proposed_at_exactly_its_frames() -> None:
    proposer = _proposer((_object(_box(3), _box(5)), _object(_box(5), label="pan")))
    found = {i: proposer.update(_frame(i), []) for i in range(8)}
    assert [i for i, p in found.items() if p] == [3, 5]
    assert [(p.track_id, p.label, p.source, p.score) for p in found[5]] == [(10, "cup", "sidecar", 1.0), (11, "pan", "sidecar", 1.0)]
    assert found[3][0].box_px.tolist() == [10, 12, 20, 15]


def _proposed_at(prompts: tuple[int, ...], frames: range, sampled: range) -> list[int]:
    proposer = _proposer((_object(*(_box(i) for i in prompts)),), frames, sampled.step)
    return [i for i in sampled if proposer.update(_frame(i), [])]


def test_a_prompt_on_a_frame_that_the_stride_skips_comes_with_the_next() -> None:
    assert _proposed_at((5,), range(12), range(0, 12, 4)) == [8]
    assert _proposed_at((3,), range(3, 12), range(4, 12, 4)) == [4]


def test_a_prompt_after_the_clips_last_processed_frame_comes_with_that_frame() -> None:
    assert _proposed_at((10,), range(12), range(0, 12, 4)) == [8]
    assert _proposed_at((6, 11), range(12), range(0, 12, 4)) == [8]
    assert _proposed_at((12,), range(12), range(0, 12, 4)) == []


def test_of_several_prompts_the_nearest_to_the_processed_frame_is_taken() -> None:
    early, late = Prompt(frame_index=5, box_px=(1, 1, 5, 5)), _box(8)
    for prompts in ((early, late), (late, early)):
        proposer = _proposer((_object(*prompts),), range(16), 4)
        assert [p.box_px.tolist() for i in range(0, 16, 4) for p in proposer.update(_frame(i), [])] == [[10, 12, 20, 15]]


def test_prompts_of_other_clips_are_not_carried_into_it() -> None:
    assert _proposed_at((5, 19, 25), range(20, 25), range(20, 25)) == []


def test_boxes_and_points_outside_the_image_propose_nothing() -> None:
    outside = (Prompt(frame_index=0, box_px=(200, 0, 5, 5)), Prompt(frame_index=0, points_px=((-3, 2), (900, 9))), Prompt(frame_index=0))
    for prompt in outside:
        assert _proposer((_object(prompt),)).update(_frame(0), []) == []
    partly = _proposer((_object(Prompt(frame_index=0, box_px=(-10, 40, 20, 20))),)).update(_frame(0), [])
    assert partly[0].box_px.tolist() == [0, 40, 10, 8]
    assert clip_box(np.array([63.5, 0, 10, 10], np.float32), 64, 48) is None


def test_points_grow_to_the_box_of_their_region() -> None:
    rgb = np.full((240, 320, 3), 90, np.uint8)
    rgb[80:140, 100:180] = (200, 60, 40)
    box_px, score = grow_box(rgb, np.array([[120.0, 100], [170, 130]]))
    np.testing.assert_allclose(box_px, [100, 80, 80, 60], atol=3)
    assert score > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (20, 20), (48, 64)])
def test_tiny_and_black_frames(shape: tuple[int, int]) -> None:
    points_px = np.random.default_rng(0).uniform(0, min(shape), (21, 2))
    hand = HandBox("hand_left", np.array([0.0, 0, 1, 1]), points_px)
    proposer = _proposer((_object(Prompt(frame_index=1, points_px=((0, 0),))),), every_frames=1)
    automatic = _proposer((), every_frames=1)
    for index in range(4):
        proposer.update(_frame(index, shape), [hand])
        assert automatic.update(_frame(index, shape), [hand, hand]) == []


def test_hands_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="points_px"):
        HandBox("hand_left", np.zeros(4), np.zeros((20, 2)))


def test_automatic_proposals_stay_off_where_the_sidecar_prompts(synthetic_example: Path) -> None:
    rng = np.random.default_rng(0)
    proposer = _proposer((_object(_box(0)),))
    never = _proposer((), automatic="never")
    for frame in decode(synthetic_example, 0, 56):
        hands = _hands(synthetic_example, frame.index, 0.0, rng)
        assert all(p.source == "sidecar" for p in proposer.update(frame, hands))
        assert never.update(frame, hands) == []


def test_a_prompt_in_another_clip_leaves_automatic_proposals_on(synthetic_example: Path) -> None:
    rng = np.random.default_rng(0)
    proposer = _proposer((_object(_box(56), _box(111)),), range(56))
    alone = _proposer((), range(56))
    found = 0
    for frame in decode(synthetic_example, 0, 56):
        hands = _hands(synthetic_example, frame.index, 0.0, rng)
        proposed, expected = proposer.update(frame, hands), alone.update(frame, hands)
        assert [(p.label, p.source, p.box_px.tolist()) for p in proposed] == [(None, "motion_color", p.box_px.tolist()) for p in expected]
        assert all(p.track_id > 10 for p in proposed)
        found += len(proposed)
    assert found


def test_the_scenes_object_is_found_without_a_sidecar_and_segmented(synthetic_example: Path) -> None:
    seconds, frames, values, earned, lay_there = 0.0, 0, [], 0, 0
    for shot in kitchen.SHOTS:
        rng = np.random.default_rng(1)
        proposer = _proposer(())
        found: list[tuple[int, Proposal]] = []
        for frame in decode(synthetic_example, *shot):
            hands = _hands(synthetic_example, frame.index, 3.0, rng)
            start = time.thread_time()
            found += [(frame.index, p) for p in proposer.update(frame, hands)]
            seconds += time.thread_time() - start
            frames += 1
        assert found, f"no object in frames {shot}"
        kept = proposer.earned({i: [p for at, p in found if at == i] for i in range(*shot)})
        assert all(p.score >= 0.6 for proposals in kept.values() for p in proposals)
        begins = min((i for i, proposals in kept.items() if proposals), default=shot[1])
        earned += begins < shot[1]
        lay_there += begins == shot[0]
        rows = kitchen.hand_rows(synthetic_example, shot, 3.0, 1)
        rows += [kitchen.object_row(index, p.box_px, p.track_id, p.source) for index, p in found]
        item = kitchen.shot_input(synthetic_example, shot, {"detections": kitchen.detections(rows)}, Sidecar())
        masks = classical.Backend(classical.ClassicalSettings(), threads=1).run(item).to_pylist()
        first = min(index for index, _ in found)
        truth = {i: rle.encode(kitchen.true_masks(synthetic_example)[i, "object"]) for i in range(first, shot[1])}
        claims = [r for r in masks if r["role"] == "object"]
        best = {i: max((rle.iou(r["rle"], truth[i]) for r in claims if r["frame_index"] == i), default=0.0) for i in truth}
        shares = list(best.values())
        values += shares
        tracks = {p.track_id for _, p in found}
        print(f"FIGURE automatic object, frames {shot}: proposed from {first} on, {len(tracks)} track(s), mask IoU {np.median(shares):.2f}")
    print(f"FIGURE automatic object mask IoU once proposed: median {np.median(values):.3f}, worst 5 % below {np.percentile(values, 5):.3f}")
    print(f"FIGURE object proposals: {1e3 * seconds / frames:.2f} ms of CPU a frame of 640x480")
    print(f"FIGURE automatic object: earned in {earned} of {len(kitchen.SHOTS)} shots, in {lay_there} from the first frame on")
    assert np.median(values) >= 0.5
    assert earned >= 2
    assert lay_there >= 1, "it lay on the table before it was picked up"
