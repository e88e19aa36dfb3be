"""The scale of depth, hands and objects, of rendered scenes in which one of them is wrong by a factor: what is known corrects what is assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators import load
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth._rows import FIT_ERROR_SHARE, Rows
from egoworld_ops.operators.depth_maps import DepthMaps, map_camera
from egoworld_ops.synthetic import truth
from egoworld_ops.synthetic.config import OBJECT_LABEL, SceneConfig
from egoworld_ops.synthetic.render import Picture, render
from egoworld_ops.synthetic.truth import FrameTruth
from egoworld_ops.types import Frame
from egoworld_ops.video.sidecar import Sidecar, SidecarHands, SidecarObject
from egoworld_ops.video.sidecar_depth import SidecarDepth
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


def item_of(hands: bool, box: bool, assumed: float = 1.0, known: bool = False) -> ClipInput:
    """The clip, with true masks and poses of its hands, whose size the network takes for `assumed` times the true one, and so their distance; sizes
    of the box, and of the hands, are known or not."""
    config, frames = scene()

    def none() -> Iterator[Frame]:
        return iter(())

    item = replace(clip_input(Path("scene.mp4"), 0, 56, config.width, config.height, none), camera=config.camera)
    poses, masks = [], []
    for seen, _ in frames:
        for hand in seen.hands if hands else ():
            joints_m = hand.joints_m * assumed
            about = {"hand": hand.hand, "joints_px": hand.joints_px.tolist(), "joints_m": joints_m.tolist(), "depth_error_share": 0.1}
            about |= {"joints_wrist_m": (joints_m - joints_m[0]).tolist()}
            poses.append(hand_pose_row(seen.frame_index, **about))
        for number, (role, mask) in enumerate(sorted(seen.masks.items())):
            about = {"role": role, "rle": rle.encode(mask), "area_px": int(mask.sum()), "track_id": 10 if role == "object" else number + 1}
            masks.append(sample_row("masks", seen.frame_index, label=OBJECT_LABEL if role == "object" else None, **about))
    sidecar = Sidecar(
        objects=(SidecarObject(label=OBJECT_LABEL, dimensions_m=config.dimensions_m),) if box else (),
        hands=SidecarHands(length_m=length_m()) if known else None,
        depth=SidecarDepth(folder="depth", error_share=0.02),
    )
    tables = {"hand_pose": schema.from_rows("hand_pose", poses), "masks": schema.from_rows("masks", masks)}
    return replace(item, sidecar=sidecar, tables=tables)


def length_m() -> float:
    """Of the scene's hands, along the bones from the wrist to the tip of the middle finger."""
    joints_m = scene()[1][0][0].hands[0].joints_m[[0, 9, 10, 11, 12]]
    return float(np.linalg.norm(np.diff(joints_m, axis=0), axis=1).sum())


def table_of(item: ClipInput, wrong: float, source: Literal["given", "network"] = "given") -> pa.Table:
    """Table `depth` of the scene, made of depth that is `wrong` times as far away."""
    rows = Rows(item, "test", source, map_camera(item.camera, 192), 0.0005, FIT_ERROR_SHARE if source == "network" else None)
    for seen, depth_m in scene()[1]:
        rows.add(seen.frame_index, seen.timestamp_s, (depth_m * wrong).astype(np.float32))
    table: pa.Table = rows.table()
    validation.validate("depth", table)
    return table


def scale_of(wrong: float, hands: bool = False, box: bool = False) -> dict[str, Any]:
    """The scale's columns, of depth that is `wrong` times as far away as the scene."""
    table = table_of(item_of(hands, box), wrong)
    [found] = {tuple(row[name] for name in ("scale", "scale_source", "scale_error_share")) for row in table.to_pylist()}
    return dict(zip(("scale", "source", "error"), found, strict=True))


def off(table: pa.Table) -> float:
    """By what factor the depths of the rendered scene were multiplied, in the maps as others read them."""
    maps = DepthMaps(table)
    shares = []
    for seen, depth_m in scene()[1]:
        found = maps.of(seen.frame_index)
        assert found is not None
        shares.append(np.nanmedian(found.z_m / depth_m))
    return float(np.median(shares))


def fused(item: ClipInput, depth: pa.Table, **settings: Any) -> tuple[float, dict[str, Any]]:
    """Of the hands in table `fusion`: median distance of the wrist over the true one, and a row."""
    backend = load("fusion", "smoothing")
    options = backend.Settings(acceleration_m_s2=1e6, turning_rad_s2=1e6, palm_rad_s2=1e6, bending_rad_s2=1e6, gap_s=2, **settings)
    table = backend(options, 1).run(replace(item, sample_stride=10, tables={**item.tables, "depth": depth}))
    validation.validate("fusion", table)
    true = {(seen.frame_index, hand.hand): hand.joints_m for seen, _ in scene()[1] for hand in seen.hands}
    rows = [row for row in table.to_pylist() if (row["frame_index"], row["hand"]) in true and row["joints_m"] is not None]
    return float(np.median([row["z_m"] / true[row["frame_index"], row["hand"]][0, 2] for row in rows])), rows[0]


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


@pytest.mark.parametrize("assumed", [0.8, 1.3])
def test_hands_of_an_unusual_size_are_where_a_depth_camera_shows_them(assumed: float) -> None:
    item = item_of(hands=True, box=False, assumed=assumed)
    depth = table_of(item, 1.0)
    share, row = fused(item, depth)
    first = depth.slice(0, 1).to_pylist()[0]
    print(f"FIGURE hands taken for {assumed} times their size, with measured depth: {share:.3f} times as far as they are", end=", ")
    print(f"stated error {row['depth_error_share']:.3f}", end="; ")
    assert abs(share - 1) < 0.03
    assert off(depth) == pytest.approx(1, abs=0.003)
    assert (first["scale_applied"], first["depth_error_share"]) == (False, 0.02)
    assert (row["size_source"], row["depth_error_share"]) == ("depth", pytest.approx(first["hand_scale_error_share"]))
    assert 0.02 < row["depth_error_share"] < 0.04
    assert fused(item, depth, size="network")[0] == pytest.approx(assumed, abs=0.01)
    assert fused(item, schema.empty("depth"))[0] == pytest.approx(assumed, abs=0.01)


def test_given_depth_whose_error_nobody_states_corrects_nothing() -> None:
    item = item_of(hands=True, box=False, assumed=1.3)
    item = replace(item, sidecar=item.sidecar.model_copy(update={"depth": SidecarDepth(folder="depth")}))
    depth = table_of(item, 1.0)
    first, (share, row) = depth.slice(0, 1).to_pylist()[0], fused(item, depth)
    assert (first["scale_applied"], first["depth_error_share"], first["hand_scale"]) == (False, None, None)
    assert first["scale"] == pytest.approx(1.3, abs=0.02), "the contradiction is measured all the same"
    assert (share, row["size_source"], row["depth_error_share"]) == (pytest.approx(1.3, abs=0.01), "network", pytest.approx(0.1))


@pytest.mark.parametrize(
    ("wrong", "hands", "box"),
    [(0.8, True, False), (1.0, True, False), (1.3, True, False), (0.6, False, True), (1.0, False, True), (1.5, False, True)],
)
def test_depth_of_a_network_is_brought_to_what_a_person_knows_the_size_of(wrong: float, hands: bool, box: bool) -> None:
    item = item_of(hands, box, assumed=1.2, known=hands)
    depth = table_of(item, wrong, "network")
    first, share = depth.slice(0, 1).to_pylist()[0], off(depth)
    print(
        f"FIGURE depth {wrong} times as far, fitted to {first['scale_source']}: {share:.3f} times, sd {first['depth_error_share']:.3f}",
        end="; ",
    )
    assert (first["scale_applied"], first["scale_source"]) == (wrong != 1, "hands" if hands else "dimensions")
    assert abs(share - 1) < (min(0.12, 2 * first["depth_error_share"]) if wrong != 1 else 0.001), "what is true stays so"
    assert 0.04 <= first["depth_error_share"] < 0.13


@pytest.mark.parametrize("wrong", [0.8, 1.3])
def test_neither_an_assumed_hand_nor_a_network_corrects_the_other(wrong: float) -> None:
    item = item_of(hands=True, box=False, assumed=1.2)
    depth = table_of(item, wrong, "network")
    first = depth.slice(0, 1).to_pylist()[0]
    assert off(depth) == pytest.approx(wrong, abs=0.003)
    assert (first["scale_applied"], first["depth_error_share"], first["hand_scale"]) == (False, None, None)
    share, row = fused(item, depth)
    assert (share, row["size_source"], row["depth_error_share"]) == (pytest.approx(1.2, abs=0.01), "network", pytest.approx(0.1))


def test_a_network_that_a_box_has_brought_to_scale_corrects_hands() -> None:
    item = item_of(hands=True, box=True, assumed=1.3)
    depth = table_of(item, 0.6, "network")
    share, row = fused(item, depth)
    assert row["size_source"] == "depth"
    assert abs(share - 1) < min(0.12, 2 * row["depth_error_share"])


def test_a_box_whose_extent_is_hardly_surer_than_hands_makes_neither_depth_nor_hands_wrong() -> None:
    item = item_of(hands=True, box=True)
    depth = table_of(item, 0.8, "network")
    first = depth.slice(0, 1).to_pylist()[0]
    assert (first["scale_applied"], first["hand_scale"]) == (False, None)
    assert 0.2 < 2 * first["depth_error_share"] < 0.4
    assert fused(item, depth)[0] == pytest.approx(1, abs=0.01)


def test_what_a_person_says_of_hands_counts_before_depth_and_the_contradiction_is_measured() -> None:
    item = item_of(hands=True, box=False, assumed=1.2, known=True)
    depth = table_of(item, 1.3)
    share, row = fused(item, depth)
    assert (share, row["size_source"]) == (pytest.approx(1, abs=0.01), "given")
    first = depth.slice(0, 1).to_pylist()[0]
    assert (first["scale_applied"], first["scale"]) == (False, pytest.approx(1 / 1.3, abs=0.03))
    assert abs(np.log(first["scale"])) / first["scale_error_share"] > 3


@pytest.mark.parametrize("change", [{"source": "assumed_fov", "focal_error_share": 0.3}, {}])
def test_hands_keep_their_size_where_the_focal_length_is_assumed_or_it_is_the_depth_that_must_be_wrong(change: dict[str, Any]) -> None:
    item = item_of(hands=True, box=False)
    item = replace(item, camera=replace(item.camera, **change))
    depth = table_of(item, 1.0 if change else 1.9)
    assert depth.slice(0, 1).to_pylist()[0]["hand_scale"] is None
    assert fused(item, depth)[1]["size_source"] == "network"
