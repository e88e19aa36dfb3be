"""What hands are at, from drawn masks; and phases, from tables of contacts made for the purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.base import ClipInput
from tests.boxes import CAMERA, FPS, clip_of, mask_row, pose
from tests.rows import sample_row

SIZE = (CAMERA.height, CAMERA.width)
WALL = pose(0, 0, 0, (0, 0, 0.7))


def square(x: int, y: int, side: int = 40, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def run(stage: str, item: ClipInput) -> list[dict[str, Any]]:
    operator = operators.load(stage, "classical")
    table = operator(operator.Settings(), 1).run(item)
    validation.validate(stage, table)
    return table.to_pylist()


def clip(n: int, **tables: list[dict[str, Any]]) -> ClipInput:
    item = clip_of([None] * n, [WALL] * n, [])
    return replace(item, tables={name: schema.from_rows(name, rows) if rows else schema.empty(name) for name, rows in tables.items()})


def contacts_of(gap_px: int, held_by: str = "none", scale: int = 1) -> dict[str, Any]:
    size = (SIZE[0] * scale, SIZE[1] * scale)
    hand, box = square(50 * scale, 80 * scale, 40 * scale, size), square((90 + gap_px) * scale, 80 * scale, 40 * scale, size)
    masks = [mask_row(0, 2, "hand_right", hand), mask_row(0, 10, "object", box)]
    held = [sample_row("movement", 0, held_by=held_by, hold_score=None if held_by == "unknown" else 0.8)]
    [row] = run("contacts", clip(1, masks=masks, movement=held))
    return row


@pytest.mark.parametrize(("gap_px", "state"), [(0, "contact"), (2, "contact"), (8, "near"), (60, "free")])
def test_a_hand_is_at_near_or_away_from_an_object(gap_px: int, state: str) -> None:
    row = contacts_of(gap_px)
    assert (row["hand"], row["state"], row["track_id"]) == ("right", state, 10)
    assert row["gap_share"] == pytest.approx(gap_px / 40, abs=0.05)


@pytest.mark.parametrize("gap_px", [0, 8, 60])
def test_what_a_hand_is_at_does_not_depend_on_the_resolution(gap_px: int) -> None:
    rows = [contacts_of(gap_px, scale=scale) for scale in (1, 2, 4)]
    assert len({row["state"] for row in rows}) == 1
    assert np.ptp([row["gap_share"] for row in rows]) < 0.05


def test_a_hand_holds_what_movement_says() -> None:
    assert contacts_of(0, "right")["state"] == contacts_of(0, "both")["state"] == "holding"
    assert contacts_of(0, "right")["hold_score"] == pytest.approx(0.8)
    assert contacts_of(0, "left")["state"] == "contact"


def test_whether_a_hand_holds_what_it_is_at_may_be_unknown() -> None:
    rows = [contacts_of(gap_px, "unknown") for gap_px in (0, 8, 60)]
    assert [row["state"] for row in rows] == ["unknown", "near", "free"]
    assert [row["hold_score"] for row in rows] == [None] * 3


def test_a_hold_may_begin_in_doubt() -> None:
    assert phases(course("f" * 5 + "u" * 6 + "h" * 10 + "f" * 5), 26) == [("grasp", 5, 10, False, False), ("carry", 11, 20, False, False)]


@pytest.mark.parametrize("gap_px", [0, 30])
def test_what_vanished_at_a_hand_may_be_in_it_until_it_is_seen_or_the_hand_is_at_another(gap_px: int) -> None:
    """Frames 0 and 5 show the thing; frame 3 another one, at the hand."""
    hand, thing, another = square(50, 80, 40), square(90 + gap_px, 80, 40), square(50, 120, 30)
    shown = {0: [(10, thing)], 3: [(11, another)], 5: [(10, thing)]}
    masks = [
        row
        for i in range(7)
        for row in (mask_row(i, 2, "hand_right", hand), *(mask_row(i, track_id, "object", mask) for track_id, mask in shown.get(i, ())))
    ]
    said = [sample_row("movement", i, track_id=t, held_by="none", hold_score=0.8) for i, things in shown.items() for t, _ in things]
    rows = run("contacts", clip(7, masks=masks, movement=said))
    seen = [(row["state"], row["track_id"], row["gap_share"] and round(row["gap_share"], 1)) for row in rows]
    other, hidden = ("contact", 11, 0.0), ("unknown", 11, None)
    if gap_px:
        assert seen == [("free", 10, 0.8), *[("free", None, None)] * 2, other, *[hidden] * 3]
    else:
        assert seen == [("contact", 10, 0.0), *[("unknown", 10, None)] * 2, other, hidden, ("contact", 10, 0.0), ("unknown", 10, None)]


def test_what_vanishes_in_a_hand_is_not_released() -> None:
    rows = course("n" * 5 + "h" * 10 + "u" * 10, [1.0, 0.8, 0.6, 0.4, 0.2] + [0.0] * 20)
    hidden = [row | {"gap_share": None} if row["state"] == "unknown" else row for row in rows]
    assert [phase for phase, *_ in phases(hidden, 25)] == ["reach", "carry"]


def test_a_hand_alone_is_free() -> None:
    [row] = run("contacts", clip(1, masks=[mask_row(0, 1, "hand_left", square(50, 80))], movement=[]))
    assert (row["state"], row["track_id"], row["gap_share"]) == ("free", None, None)


def test_of_two_objects_the_nearest_counts() -> None:
    masks = [mask_row(0, 1, "hand_left", square(100, 80))]
    masks += [mask_row(0, 10, "object", square(20, 80)), mask_row(0, 11, "object", square(150, 80))]
    [row] = run("contacts", clip(1, masks=masks, movement=[]))
    assert row["track_id"] == 11


def course(states: str, gaps: list[float] | None = None, at: list[int] | None = None) -> list[dict[str, Any]]:
    """Rows of `contacts` of a right hand; a letter a frame: free, near, contact, holding, unknown."""
    names = {"f": "free", "n": "near", "c": "contact", "h": "holding", "u": "unknown"}
    return [
        sample_row("contacts", i, hand="right", state=names[s], gap_share=gap)
        for s, gap, i in zip(states, gaps or [0.0] * len(states), at or range(len(states)), strict=True)
    ]


def phases(rows: list[dict[str, Any]], n: int) -> list[tuple[Any, ...]]:
    events = run("events", clip(n, contacts=rows))
    return [(e["phase"], e["frame_index"], e["last_frame_index"], e["begun_before"], e["goes_on"]) for e in events]


def test_a_hold_has_four_phases() -> None:
    gaps = [2.0] * 12 + [2 - 0.2 * i for i in range(10)] + [0.0] * 4 + [0.0] * 10 + [0.0] * 3 + [1.0] * 6
    states = "f" * 12 + "f" * 7 + "n" * 3 + "c" * 4 + "h" * 10 + "c" * 3 + "f" * 6
    found = phases(course(states, gaps), len(states))
    assert [name for name, *_ in found] == ["reach", "grasp", "carry", "release"]
    reach, grasp, carry, release = found
    assert abs(reach[1] - 12) <= 1
    assert reach[2] == 21
    assert grasp[1:3] == (22, 25)
    assert carry[1:3] == (26, 35)
    assert release[1:3] == (36, 38)
    assert not any(begun or on for *_, begun, on in found)


def test_a_hold_that_the_clip_cuts_says_so() -> None:
    assert phases(course("h" * 5), 5) == [("carry", 0, 4, True, True)]
    assert phases(course("f" + "h" * 9), 10) == [("carry", 1, 9, False, True)]
    assert phases(course("h" * 9 + "f"), 10) == [("carry", 0, 8, True, False)]


def test_a_short_loss_does_not_end_a_hold_and_a_long_one_does() -> None:
    short = phases(course("f" + "h" * 10 + "c" * 4 + "h" * 10 + "f"), 26)
    assert short == [("carry", 1, 24, False, False)]
    frames = [*range(10), *range(10 + 2 * FPS, 20 + 2 * FPS)]
    long = phases(course("h" * 20, at=frames), 20 + 2 * FPS)
    assert [(name, first, last) for name, first, last, *_ in long] == [("carry", 0, 9), ("carry", 10 + 2 * FPS, 19 + 2 * FPS)]


def test_a_blink_is_no_event() -> None:
    assert phases(course("f" * 10 + "h" * 3 + "f" * 10), 23) == []


def test_of_overlapping_clips_one_counts_an_event() -> None:
    """Clips of frames 0 to 40 and 30 to 70 that own up to 35 and from there; a hold from 33 on begins in both and is owned by one."""
    states = "f" * 33 + "h" * 30 + "f" * 7
    rows, owners = course(states), []
    for (start, end), (own_start, own_end) in (((0, 40), (0, 35)), ((30, 70), (35, 70))):
        item = clip(70, contacts=rows[start:end])
        item = replace(item, clip=replace(item.clip, frame_start=start, frame_end=end, own_start=own_start, own_end=own_end))
        owners += [e for e in run("events", item) if own_start <= e["frame_index"] < own_end]
    assert [(e["phase"], e["frame_index"], e["goes_on"]) for e in owners] == [("carry", 33, True)]
