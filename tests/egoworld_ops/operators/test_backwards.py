"""Where a thing was before it was found: drawn looks in which a print lies, is picked up, is hidden, or is brought in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from egoworld_ops.operators.detections._backwards import Look, left_its_place, traced
from egoworld_ops.operators.detections._motion_color import MotionColorFinder, _Region
from egoworld_ops.operators.detections._together import Record

SIZE, SIDE = (90, 160), 26
NOBODY = np.zeros(SIZE, bool)


def drawn(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    small = rng.integers(30, 225, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def at(x: int, y: int) -> np.ndarray:
    mask = NOBODY.copy()
    mask[y : y + SIDE, x : x + SIDE] = True
    return mask


def looks(places: list[tuple[int, int] | None], hidden: tuple[int, ...] = (), sway_px: int = 0, seed: int = 0) -> list[Look]:
    """A thing at these places in front of a table that sways; in looks `hidden` a hand covers it."""
    rng = np.random.default_rng(seed)
    table, thing = drawn(rng, SIZE[0], SIZE[1] + 40) // 2, drawn(rng, SIDE, SIDE) // 2 + 120
    found = []
    for i, place in enumerate(places):
        shift = sway_px * i
        picture = table[:, 20 + shift : 20 + shift + SIZE[1]].copy()
        covered = NOBODY
        if place is not None:
            mask = at(place[0] - shift, place[1])
            picture[mask] = thing.reshape(-1, 3)
            covered = mask if i in hidden else NOBODY
            picture[covered] = (190, 140, 110)
        found.append(Look(picture, covered))
    return found


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("sway_px", [0, 1])
def test_a_thing_that_is_picked_up_was_there_before(sway_px: int) -> None:
    places = [(60, 40)] * 7 + [(60 + 5 * i, 40 - 3 * i) for i in range(1, 5)]
    seen = traced(looks(places, hidden=(3, 4), sway_px=sway_px), 10, at(80 - 10 * sway_px, 28))
    assert {0, 1, 5, 6, 7, 8, 9} <= seen.keys()
    assert not {3, 4} & seen.keys()
    assert overlap(seen[0], at(60, 40)) > 0.75


def test_a_thing_that_is_brought_in_was_not_there() -> None:
    places = [None] * 4 + [(60 + 5 * i, 40) for i in range(6)]
    assert min(traced(looks(places), 9, at(85, 40)), default=9) >= 4


def test_a_hand_tells_where_a_thing_came_from_that_moves_too_far_to_be_followed() -> None:
    places = [(4, 40)] * 3 + [(4 + 42 * i, 40) for i in range(1, 4)]
    alone = looks(places)
    rest = traced(alone, 5, at(130, 40))
    points = np.random.default_rng(1).uniform(-8, 8, (21, 2)) + SIDE / 2
    held = [Look(look.picture, look.covered, (points + place,)) for look, place in zip(alone, places, strict=True)]
    seen = traced(held, 5, at(130, 40))
    assert not rest
    assert seen.keys() == set(range(5))
    assert overlap(seen[0], at(4, 40)) > 0.75


def test_a_shadow_falls_on_a_thing_that_is_reached_for() -> None:
    made = looks([(60, 40)] * 4 + [(60 + 5 * i, 40) for i in range(1, 4)])
    dark = [Look((0.75 * look.picture).astype(np.uint8) if i in (3, 4) else look.picture, look.covered) for i, look in enumerate(made)]
    assert 0 in traced(dark, 6, at(75, 40))


@pytest.mark.parametrize("sway_px", [0, 1])
def test_what_leaves_another_surface_behind_has_moved(sway_px: int) -> None:
    carried = looks([(60, 40), (60, 40), (66, 36), (90, 20), (100, 20)], sway_px=sway_px)
    assert left_its_place(carried, 1, at(60 - sway_px, 40))
    assert not left_its_place(looks([(60, 40)] * 5, sway_px=sway_px), 1, at(60 - sway_px, 40))


@pytest.mark.parametrize("light", [0.65, 0.8])
def test_what_leaves_the_same_surface_in_another_light_is_a_shadow(light: float) -> None:
    table = [look.picture for look in looks([None] * 5)]
    shades = [(20, 40), (40, 40), (60, 40), (80, 40), (100, 40)]
    cast = [
        np.where(at(*place)[..., None], light * picture, picture).astype(np.uint8) for place, picture in zip(shades, table, strict=True)
    ]
    assert not left_its_place([Look(picture, NOBODY) for picture in cast], 2, at(60, 40))


def test_what_is_found_where_another_thing_was_is_a_part_of_it() -> None:
    finder = MotionColorFinder(3, 45)
    finder._looks = looks([(60, 40)] * 8 + [(110, 10)] * 2)
    finder._best = {0: _Region(3, at(60, 40), 9), 1: _Region(6, at(60, 40) & at(60, 50), 9)}
    finder._records = {number: Record(score=0.9) for number in (0, 1)}
    found, part_of = finder.earlier()
    assert part_of == {1: 0}
    assert [(count, sighting.number) for count, sighting in found] == [(0, 0)]
