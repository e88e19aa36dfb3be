"""What a thing must do to be an object: move as the hand does, over some distance, and be told from what stays behind."""

from __future__ import annotations

import numpy as np
import pytest

from egoworld_ops.operators.detections._proposals import ObjectProposer, Proposal, ProposalSettings
from egoworld_ops.operators.detections._together import Record, Step, step
from egoworld_ops.types import Frame

REGION = np.zeros((40, 60), bool)
REGION[10:30, 20:40] = True


def _steps(shift_px: int, hand_px: int, contrast: float, count: int, seed: int = 0) -> list[Step]:
    """Steps of a hand that moves by `hand_px` in front of a picture in which everything moves by `shift_px`; the background stands still."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        before = contrast * rng.standard_normal((40, 60)).astype(np.float32)
        now = np.roll(before, shift_px, 1)
        still, moved = np.abs(now - before), np.abs(now - np.roll(before, hand_px, 1))
        found.append(step(still, moved, np.zeros((40, 60), bool), hand_px / 20))
    return found


def _score(steps: list[Step]) -> float:
    record = Record()
    for one in steps:
        record.add(one, REGION)
    return record.score


@pytest.mark.parametrize("seed", range(3))
def test_a_thing_that_moves_with_the_hand_is_one_and_background_is_none(seed: int) -> None:
    assert _score(_steps(4, 4, 20.0, 6, seed)) > 0.8
    assert _score(_steps(0, 4, 20.0, 6, seed)) == 0


def test_a_twin_that_stays_is_told_from_the_thing_that_goes() -> None:
    [goes], [stays] = _steps(4, 4, 20.0, 1), _steps(0, 4, 20.0, 1)
    both = Step(np.where(REGION, goes.better, stays.better), 0.2)
    assert both.left_behind()[~REGION].mean() > 0.6
    assert not both.left_behind()[REGION].any()
    assert both.shown_px(REGION) > 0.6 * REGION.sum()
    assert both.shown_px(~REGION) == 0


def test_a_plain_surface_tells_nothing_and_is_none() -> None:
    assert _score(_steps(4, 4, 0.5, 50)) == 0


def test_what_the_hand_covered_tells_nothing() -> None:
    one = _steps(4, 4, 20.0, 1)[0]
    assert _score([step(one.better, np.zeros_like(one.better), np.ones_like(REGION), 0.2)] * 20) == 0


def test_a_thing_that_moved_too_little_or_too_seldom_is_none() -> None:
    assert _score(_steps(4, 4, 20.0, 1)) == 0
    assert _score([Step(s.better, 0.01) for s in _steps(4, 4, 20.0, 6)]) == 0


def test_a_thing_that_is_put_down_keeps_its_score() -> None:
    held, left = _steps(4, 4, 20.0, 6), _steps(0, 4, 20.0, 20)
    assert _score(held + left) == _score(held)


def test_a_thing_that_lay_by_the_hand_before_it_was_picked_up_is_one() -> None:
    """The table it lies on never is, however long the hand passes."""
    lay, held = _steps(0, 4, 20.0, 12), _steps(4, 4, 20.0, 6)
    assert _score(lay + held) == pytest.approx(_score(held))
    assert _score(_steps(0, 4, 20.0, 40)) == 0


def test_a_passing_likeness_does_not_make_background_an_object() -> None:
    mixed = [one for pair in zip(_steps(4, 4, 20.0, 10), _steps(0, 4, 20.0, 10), strict=True) for one in reversed(pair)]
    assert _score(mixed) == 0


def test_a_persons_prompt_is_never_left_out() -> None:
    proposer = ObjectProposer(ProposalSettings(), (), range(10), 1)
    given = Proposal(10, "cup", np.array([1, 2, 3, 4], np.float32), 0.4, "sidecar")
    found = Proposal(11, None, np.array([1, 2, 3, 4], np.float32), 0.9, "motion_color")
    proposer.update(Frame(0, 0.0, np.zeros((60, 80, 3), np.uint8)), [])
    assert proposer.earned({0: [given, found]}) == {0: [given]}
