"""The scale of depth: that of the hands, and of things of known dimensions, of rendered scenes whose depth is true, or wrong by a factor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth._rows import Rows
from egoworld_ops.operators.depth_maps import map_camera
from egoworld_ops.synthetic import truth
from egoworld_ops.synthetic.config import OBJECT_LABEL, SceneConfig
from egoworld_ops.synthetic.render import Picture, render
from egoworld_ops.synthetic.truth import FrameTruth
from egoworld_ops.types import Frame
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from egoworld_ops.vision import rle
from tests.egoworld_ops.operators.clips import clip_input
from tests.rows import hand_pose_row, sample_row

FRAMES = range(0, 56, 10)
SEED = 12
"""Of a box that is reached for, carried and put down."""


@cache
def scene() -> tuple[SceneConfig, list[tuple[FrameTruth, np.ndarray]]]:
    """Truth and depth (H, W) of each frame."""
    config, depths = SceneConfig(seed=SEED, width=192, height=144), []

    def kept(*about: Any) -> Picture:
        picture = render(*about)
        depths.append(picture.depth_m)
        return picture

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(truth, "render", kept)
        found = [truth.render_frame(config, i)[1] for i in FRAMES]
    return config, list(zip(found, depths, strict=True))


def item_of(hands: bool, box: bool) -> ClipInput:
    """The clip, with true poses of its hands and true masks; the size of its box is known or not."""
    config, frames = scene()

    def none() -> Iterator[Frame]:
        return iter(())

    item = replace(clip_input(Path("scene.mp4"), 0, 56, config.width, config.height, none), camera=config.camera)
    poses, masks = [], []
    for seen, _ in frames:
        for hand in seen.hands if hands else ():
            about = {"hand": hand.hand, "joints_px": hand.joints_px.tolist(), "joints_m": hand.joints_m.tolist(), "depth_error_share": 0.1}
            poses.append(hand_pose_row(seen.frame_index, **about))
        for number, (role, mask) in enumerate(sorted(seen.masks.items())):
            about = {"role": role, "rle": rle.encode(mask), "area_px": int(mask.sum()), "track_id": 10 if role == "object" else number + 1}
            masks.append(sample_row("masks", seen.frame_index, label=OBJECT_LABEL if role == "object" else None, **about))
    sidecar = Sidecar(objects=(SidecarObject(label=OBJECT_LABEL, dimensions_m=config.dimensions_m),)) if box else Sidecar()
    tables = {"hand_pose": schema.from_rows("hand_pose", poses), "masks": schema.from_rows("masks", masks)}
    return replace(item, sidecar=sidecar, tables=tables)


def scale_of(wrong: float, hands: bool = False, box: bool = False) -> dict[str, Any]:
    """The scale's columns, of depth that is `wrong` times as far away as the scene."""
    item = item_of(hands, box)
    camera = map_camera(item.camera, 192)
    rows = Rows(item, "test", "given", camera, 0.0005)
    for seen, depth_m in scene()[1]:
        rows.add(seen.frame_index, seen.timestamp_s, (depth_m * wrong).astype(np.float32))
    table: pa.Table = rows.table()
    validation.validate("depth", table)
    [found] = {tuple(row[name] for name in ("scale", "scale_source", "scale_error_share")) for row in table.to_pylist()}
    return dict(zip(("scale", "source", "error"), found, strict=True))


@pytest.mark.parametrize("wrong", [1.0, 0.7, 1.6])
def test_hands_bring_the_depth_to_scale(wrong: float) -> None:
    found = scale_of(wrong, hands=True)
    assert found["source"] == "hands"
    assert found["scale"] * wrong == pytest.approx(1, abs=0.03)
    assert found["error"] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("wrong", [1.0, 0.7, 1.6])
def test_a_box_of_known_size_brings_it_there_too(wrong: float) -> None:
    found = scale_of(wrong, box=True)
    assert found["source"] == "dimensions"
    assert abs(found["scale"] * wrong - 1) < 2 * found["error"]
    assert 0.05 < found["error"] < 0.12


def test_the_surer_of_both_counts_and_without_either_nothing_is_said() -> None:
    both, of_box = scale_of(1.0, hands=True, box=True), scale_of(1.0, box=True)
    assert both == (of_box if of_box["error"] < 0.1 else scale_of(1.0, hands=True))
    assert scale_of(1.0) == {"scale": None, "source": "none", "error": None}
