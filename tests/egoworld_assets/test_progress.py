"""A step says how far it is: in its log with total, rate and time left, and on the page of its asset while it runs."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from egoworld_assets import progress
from egoworld_assets.chain.stage_result import StageResult
from egoworld_assets.partitions import VIDEO_IDS
from egoworld_assets.progress import LOG_EVERY_S, OBSERVE_EVERY_S, Progress
from tests.egoworld_assets.conftest import Place
from tests.egoworld_ops import media


def test_what_is_left_is_told_from_what_was_done() -> None:
    clock, said, observed = [0.0], [], []
    seen = Progress("masks", "clips", 1000, said.append, observed.append, lambda: clock[0])
    for _ in range(240):
        clock[0] += 0.5
        seen.add(StageResult("v", "c", "computed"))
    assert len(said) == 120 / LOG_EVERY_S
    assert said[0] == "masks 20 of 1000 clips, 2 a second, about 8 min left; now at video v"
    assert [o["progress"] for o in observed] == [
        "120 of 1000 clips, 2 a second, about 7 min left",
        "240 of 1000 clips, 2 a second, about 6 min left",
    ]
    assert len(observed) == 120 / OBSERVE_EVERY_S


@pytest.mark.parametrize(
    ("n", "total", "seconds", "line"),
    [
        (5, 10, 20.0, "5 of 10 clips, 15 a minute, about 20 s left"),
        (1, 50_000, 20.0, "1 of 50000 clips, 3 a minute, about 277.8 h left"),
        (12, 10, 20.0, "12 clips, 36 a minute"),
    ],
)
def test_rates_and_times_are_in_units_that_people_read(n: int, total: int, seconds: float, line: str) -> None:
    clock, said = [0.0], []
    seen = Progress("masks", "clips", total, said.append, lambda _: None, lambda: clock[0])
    for last in range(n):
        clock[0] = seconds if last == n - 1 else 0.0
        seen.add(StageResult("v", "c", "computed"))
    assert said == [f"masks {line}; now at video v"]


def test_the_page_of_an_asset_shows_how_far_its_step_is(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [media.make(tmp_path / "raw" / f"{n}.mp4", 40, picture=media.scenes([20 + n])) for n in range(2)]
    ids = [v for path in paths for v in place.register(path)]
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "OBSERVE_EVERY_S", 0.0)
    place.dagster.add_dynamic_partitions(str(VIDEO_IDS.name), ["no/video"])
    result = place.run([*ids, "no/video"], "manifest", "detections")
    observed = [e.event_specific_data.asset_observation for e in result.all_events if e.event_type == dg.DagsterEventType.ASSET_OBSERVATION]
    of_detections = [o.metadata["progress"].value for o in observed if o.asset_key == dg.AssetKey("detections")]
    assert len(of_detections) == 4
    assert of_detections[0].startswith("1 of 4 clips, ")
    assert [o.metadata["progress"].value.split(",")[0] for o in observed if o.asset_key == dg.AssetKey("manifest")] == [
        "1 of 3 videos",
        "2 of 3 videos",
        "3 videos",
    ]
