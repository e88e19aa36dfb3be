"""For an operator that needs no frames of a clip none are decoded; frames decoded ahead are used, and no others are decoded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.execution.identity import operator_of
from egoworld_ops.settings import load_settings
from egoworld_ops.types import Frame
from tests import lakes
from tests.egoworld_ops.operators.clips import clip_input

WITHOUT_DETECTIONS = dict.fromkeys(operators.stages(), False) | {"detections": True}


def not_asked() -> Iterator[Frame]:
    raise AssertionError("it opens frames that it said it would not look at")


@pytest.mark.parametrize("stage", WITHOUT_DETECTIONS)
def test_where_nothing_is_detected_only_detections_reads_frames(stage: str) -> None:
    settings = load_settings("laptop")
    kind, options = operator_of(stage, settings)
    operator = kind(options, 1)
    tables = {name: schema.empty(name) for name in operators.stages()[stage].inputs}
    assert operator.reads_frames(tables) is WITHOUT_DETECTIONS[stage]
    if not WITHOUT_DETECTIONS[stage]:
        item = clip_input(Path("no.mp4"), 0, 30, 640, 480, not_asked)
        assert operator.run(replace(item, tables=tables)).num_rows == 0


def test_where_something_is_there_those_that_look_at_pictures_read_frames() -> None:
    settings = load_settings("laptop")
    rng = np.random.default_rng(1)
    found = {name: lakes.stage_rows(name, "v", "c", np.arange(10), rng) for name in ("detections", "masks")}
    reads = {}
    for stage, known in operators.stages().items():
        kind, options = operator_of(stage, settings)
        reads[stage] = kind(options, 1).reads_frames({name: found.get(name, schema.empty(name)) for name in known.inputs})
    assert {stage for stage, wanted in reads.items() if wanted} == {"detections", "masks", "object_pose", "movement"}
