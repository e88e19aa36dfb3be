"""What a clip takes over from the one before: numbers of tracks, and SAM 2's first mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators.masks import sam2
from egoworld_ops.operators.masks._handover import Handover
from egoworld_ops.operators.masks._pixels import pixel_columns
from egoworld_ops.vision import rle
from tests.egoworld_ops.operators.clips import pictures_input
from tests.rows import PER_FRAME, detection_row

ROLES = ("hand_left", "hand_right", "object")
BOX = np.array([10.0, 10, 20, 20])


def _before(*tracks: tuple[int, str, str | None], frames: tuple[int, ...] = (0, 1)) -> pa.Table:
    """Masks of the clip before: each track is the square BOX, moved right by 40 px a track."""
    rows: list[dict[str, Any]] = []
    for n, (track_id, role, label) in enumerate(tracks):
        mask = np.zeros((64, 160), bool)
        mask[10:30, 10 + 40 * n : 30 + 40 * n] = True
        shared = {"track_id": track_id, "role": role, "label": label, "score": 0.7, "observed": True}
        rows += [PER_FRAME | shared | {"frame_index": i} | (pixel_columns(mask) or {}) for i in frames]
    return schema.from_rows("masks", rows)


def _key(handover: Handover, track_id: int, role: str, label: str | None, box_px: np.ndarray, named: bool = False) -> int:
    seen = {handed.key: handed.box_px for handed in handover.at(0, {})}
    return handover.key(track_id, role, label, box_px, named, seen)


def _numbers(handover: Handover, *keys: int) -> list[int]:
    return [row["track_id"] for row in handover.named([{"track_id": key} for key in keys])]


def test_a_hand_is_the_one_of_its_side_and_a_named_object_the_one_of_its_number_wherever_they_are() -> None:
    far = BOX + np.array([0.0, 40, 0, 0])
    handover = Handover(_before((1, "hand_left", None), (10, "object", "cup")), 0, ROLES)
    assert _key(handover, 1, "hand_left", None, far) == -1
    assert _key(handover, 2, "hand_right", None, BOX) == 2
    assert _key(handover, 10, "object", "cup", far, named=True) == -10
    assert _numbers(handover, -1, 2, -10) == [1, 2, 10]


def test_an_object_is_the_one_that_is_followed_where_it_was_found_and_has_the_number_of_its_detection() -> None:
    handover = Handover(_before((12, "object", None), (11, "object", "cup")), 0, ROLES)
    assert _key(handover, 10, "object", None, np.array([12.0, 12, 6, 6])) == -12  # a guess may bound a part of it
    assert _key(handover, 12, "object", "cup", np.array([52.0, 12, 6, 6])) == 12  # a box that is no guess does not
    assert _key(handover, 13, "object", "cup", np.array([51.0, 10, 20, 20])) == -11
    assert _numbers(handover, -12, 12, -11) == [10, 12, 13]


def test_what_is_not_found_again_keeps_its_number_unless_that_is_another_things() -> None:
    handover = Handover(_before((10, "object", "cup"), (11, "object", "pot")), 0, ROLES)
    assert _key(handover, 11, "object", "lid", BOX + np.array([0.0, 40, 0, 0])) == 11
    assert _numbers(handover, -10, -11, 11) == [10, 11]


def test_only_frames_of_this_clip_are_taken_over() -> None:
    handover = Handover(_before((10, "object", "cup"), frames=(3, 4, 5)), 5, ROLES)
    assert handover.frames == {5}
    assert not Handover(_before((10, "object", "cup")), 2, ROLES).frames
    assert not Handover(None, 0, ROLES).frames


def test_what_this_clip_found_before_does_not_begin_again() -> None:
    """A track that the clip before saw in a later frame than this clip's detections."""
    tracks = (1, "hand_left", None), (10, "object", "cup"), (11, "object", "pot"), (12, "object", None)
    handover = Handover(_before(*tracks, frames=(1,)), 0, ROLES)
    far, at = BOX + np.array([0.0, 40, 0, 0]), [BOX + np.array([40.0 * n, 0, 0, 0]) for n in range(4)]
    assert handover.key(1, "hand_left", None, far, False, {}) == 1
    assert handover.key(10, "object", "cup", far, True, {}) == 10
    assert handover.key(13, "object", "pot", at[2], False, {}) == 13
    assert handover.key(14, "object", "lid", at[3], False, {}) == 14
    followed = {1: far, 10: far, 13: at[2] + np.array([4.0, 0, 0, 0]), 14: at[3]}
    assert [handed.key for handed in handover.at(1, followed)] == [-12], "nobody says that a thing without a name is the lid"
    away = Handover(_before(*tracks[2:3], frames=(1,)), 0, ROLES)
    assert away.key(13, "object", "pot", far, False, {}) == 13
    assert [handed.key for handed in away.at(1, {13: far})] == [-11], "two pots"


def test_a_hand_that_sam2_follows_already_loses_nothing_to_the_one_handed_on() -> None:
    pictures = [np.full((64, 160, 3), 90, np.uint8) for _ in range(3)]
    pictures[1][10:30, 10:30] = pictures[2][10:30, 10:30] = 200
    item = pictures_input(pictures)
    backend = sam2.Backend(sam2.Settings(model="tiny", image_size=128, device="cpu", random_weights_seed=3, warm_start=True), 1)
    found = detection_row(0, role="hand_left", track_id=1, label=None, box_px=[10.0, 10, 20, 20], points_px=None)
    made = []
    for before in (None, _before((1, "hand_left", None), frames=(1,))):
        tables = {"detections": schema.from_rows("detections", [found])} | ({} if before is None else {"masks": before})
        made.append(backend.run(type(item)(item.clip, tables, item.sidecar, item.camera, 1, item.open_frames)))
    assert made[0].num_rows == 3
    assert made[1].equals(made[0])


def test_sam2_begins_with_the_masks_that_are_handed_on() -> None:
    pictures = [np.full((64, 160, 3), 90, np.uint8) for _ in range(2)]
    item = pictures_input(pictures)
    before = _before((2, "hand_right", None), (10, "object", "cup"))
    tables = {"detections": schema.empty("detections"), "masks": before}
    options = sam2.Settings(model="tiny", image_size=128, device="cpu", random_weights_seed=3, warm_start=True)
    backend = sam2.Backend(options, 1)
    assert sam2.Backend.continues(options)
    assert backend.reads_frames(tables)
    masks = backend.run(type(item)(item.clip, tables, item.sidecar, item.camera, 1, item.open_frames))
    validation.validate("masks", masks)
    first = {row["track_id"]: np.asarray(rle.decode(row["rle"]), bool) for row in masks.to_pylist() if row["frame_index"] == 0}
    for row in (row for row in before.to_pylist() if row["frame_index"] == 0):
        true = np.asarray(rle.decode(row["rle"]), bool)
        assert (first[row["track_id"]] & true).sum() / (first[row["track_id"]] | true).sum() >= 0.9  # the network's grid is coarser
