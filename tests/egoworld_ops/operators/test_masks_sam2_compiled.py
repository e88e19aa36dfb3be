"""SAM 2.1 with a compiled image encoder: the same masks, and nothing is compiled while a clip waits. Real kernels: `make models-full`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from egoworld_ops.errors import BadSettings
from egoworld_ops.vision import rle
from tests.egoworld_ops.operators.test_masks_sam2 import FIRST_FRAME, clip_input, late_detections, make

N_FRAMES = 6
MICRO_BATCH = 3


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No kernels of other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def scene() -> Any:
    """Frames with a bright square that moves, tracked from the third on: four frames, a batch of three and one that is not full."""
    pictures = [np.full((120, 160, 3), 60, np.uint8) for _ in range(N_FRAMES)]
    for n, picture in enumerate(pictures):
        picture[40 + 2 * n : 70 + 2 * n, 60 + 3 * n : 90 + 3 * n] = 200
    rows = [row for row in late_detections() if row["frame_index"] < FIRST_FRAME + N_FRAMES]
    return clip_input(pictures, rows)


def differences(compiled: Any, item: Any, **options: Any) -> float:
    """1 less the least IoU of the masks of a clip with those of the encoder as it is."""
    usual = make(micro_batch=MICRO_BATCH, **options).run(item).to_pylist()
    found = {(row["frame_index"], row["track_id"]): row["rle"] for row in compiled.run(item).to_pylist()}
    assert found.keys() == {(row["frame_index"], row["track_id"]) for row in usual}
    assert found
    return max(1 - rle.iou(found[row["frame_index"], row["track_id"]], row["rle"]) for row in usual)


def test_masks_are_the_same_and_nothing_is_compiled_while_a_clip_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced and guarded as ever; only no new kernels
    operator = make(micro_batch=MICRO_BATCH, compile=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert differences(operator, scene()) <= 1e-3
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    operator.micro_batch = 1  # memory ran out: another size, compiled once
    operator.run(scene())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_where_nothing_can_be_compiled_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> NoReturn:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(BadSettings, match=r"masks\.sam2\.compile.*no C\+\+ compiler.*set it to false"):
        make(compile=True)
