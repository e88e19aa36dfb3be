"""Who holds a thing, from pictures on: hands, masks and joints are found in rendered scenes, and a box is given in the first frame."""

from __future__ import annotations

import pytest

from egoworld_ops.synthetic import SceneConfig
from tests.held_scenes import found_tables, prompted_input, render_shot

CONFIG = SceneConfig(seed=44, plan="hold", width=320, height=240, frames_per_shot=8, fps=8, dimensions_m=(0.16, 0.11, 0.06))


@pytest.mark.parametrize(
    ("number", "held_by", "heights"), [(0, "right", (240, 600)), (1, "none", (240,))], ids=["held_still", "under_a_hand"]
)
def test_a_thing_held_still_throughout_is_held_and_one_under_a_hand_is_not(number: int, held_by: str, heights: tuple[int, ...]) -> None:
    shot = render_shot(CONFIG, number)
    for height in heights:
        tables = found_tables(prompted_input(shot, height, posed=False), posed=False)
        rows = tables["movement"].to_pylist()
        assert len(rows) == len(shot.pictures)
        assert {row["held_by"] for row in rows} <= ({"right"} if held_by == "right" else {"none", "unknown"}), height
        of_right = [row for row in tables["contacts"].to_pylist() if row["hand"] == "right"]
        assert len(of_right) == len(shot.pictures), "both hands are found from the first frame on"
        assert {row["state"] == "holding" for row in of_right} == {held_by == "right"}
