"""Run-length masks: decoding returns the encoded mask, as pycocotools does; hostile text raises and never crashes."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from egoworld_ops.errors import ContractError
from egoworld_ops.vision import rle


def _random_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    masks = [rng.random((h, w)) < share for h, w in ((1, 1), (3, 5), (7, 1), (1, 9), (40, 31)) for share in (0.0, 0.1, 0.5, 0.95, 1.0)]
    blob = np.zeros((480, 640), bool)
    blob[100:300, 200:420] = rng.random((200, 220)) < 0.5
    stripes = np.zeros((20, 30), bool)
    stripes[:, 4:9] = True
    return [*masks, blob, stripes, ~stripes]


@pytest.mark.parametrize("number", range(len(_random_masks())))
def test_a_mask_comes_back_and_its_text_is_that_of_pycocotools(number: int) -> None:
    mask = _random_masks()[number]
    coded = rle.encode(mask)
    assert coded["counts"] == coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    decoded = rle.decode(coded)
    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous
    assert (decoded == mask).all()
    assert rle.area(coded) == mask.sum()


def test_a_mask_is_decoded_at_the_size_of_the_picture() -> None:
    mask = np.random.default_rng(1).random((12, 20)) < 0.5
    coded = rle.encode(mask)
    assert (rle.decode_at(coded, (12, 20)) == mask).all()
    twice = rle.decode_at(coded, (24, 60))
    assert twice.dtype == np.bool_
    assert twice.flags.c_contiguous
    assert (twice == mask.repeat(2, 0).repeat(3, 1)).all()
    assert (rle.decode_at(rle.encode(twice), (12, 20)) == mask).all()
    assert rle.decode_at(coded, (7, 33)).shape == (7, 33)


def test_the_example_of_the_format() -> None:
    mask = np.zeros((5, 7), bool)
    mask[1:4, 2:5] = True
    coded = rle.encode(mask)
    assert coded == {"size": [5, 7], "counts": ";320009"}
    assert rle.area(coded) == 9
    assert rle.mask_bbox(mask).tolist() == [2, 1, 3, 3]


def test_a_mask_that_reaches_from_column_to_column_is_one_run() -> None:
    mask = np.ones((4, 6), bool)
    mask[:3, 0] = False
    assert rle.encode(mask)["counts"] == coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def test_iou_is_that_of_the_pixels() -> None:
    first, second = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    first[2:10, 3:13] = True
    second[4:12, 8:18] = True
    want = (first & second).sum() / (first | second).sum()
    assert rle.iou(rle.encode(first), rle.encode(second)) == pytest.approx(want)
    empty = rle.encode(np.zeros((20, 30), bool))
    assert rle.iou(empty, empty) == 0.0
    with pytest.raises(ContractError, match="cannot be compared"):
        rle.iou(rle.encode(first), rle.encode(np.zeros((20, 31), bool)))


@pytest.mark.parametrize(
    "hostile",
    [
        {"size": [5, 7], "counts": ";32000999"},
        {"size": [5, 7], "counts": ";3"},
        {"size": [5, 7], "counts": ""},
        {"size": [5, 7], "counts": "é"},
        {"size": [5, 7], "counts": "\x00\x01"},
        {"size": [5, 7], "counts": "o" * 50},
        {"size": [5, 7], "counts": "oooooo7"},
        {"size": [5, 7], "counts": "o" * 40 + "0"},
        {"size": [5, 7], "counts": "@" * 1000},
        {"size": [5, 7], "counts": None},
        {"size": [5, 7], "counts": [35]},
        {"size": [5, 7]},
        {"counts": ";320009"},
        {"size": [0, 7], "counts": "0"},
        {"size": [-5, -7], "counts": "S1"},
        {"size": [10**6, 10**6], "counts": "0"},
        {"size": [5.0, 7.0], "counts": ";320009"},
        {"size": [5, 7, 3], "counts": ";320009"},
    ],
)
def test_hostile_text_raises_a_contract_error(hostile: dict[str, object]) -> None:
    for reads in (rle.decode, rle.area):
        with pytest.raises(ContractError, match="run-length mask"):
            reads(hostile)


def test_random_text_never_crashes() -> None:
    rng = np.random.default_rng(1)
    for _ in range(3000):
        text = "".join(chr(c) for c in rng.integers(32, 127, rng.integers(1, 12)))
        try:
            mask = rle.decode({"size": [3, 4], "counts": text})
        except ContractError:
            continue
        assert mask.shape == (3, 4)


def test_only_two_dimensional_bool_masks_are_encoded() -> None:
    for wrong in (np.zeros((3, 4), np.uint8), np.zeros((0, 4), bool), np.zeros(4, bool)):
        with pytest.raises(ValueError, match="mask: want"):
            rle.encode(wrong)


def test_encoding_counts_the_edges_of_the_box_of_the_mask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The array laid out by columns grows with the box, not with the picture: counted, not timed."""
    mask = np.zeros((1080, 1920), bool)
    mask[400:650, 700:1000] = True
    seen: list[int] = []
    flat = np.flatnonzero

    def counting(values: np.ndarray) -> np.ndarray:
        seen.append(np.size(values))
        return flat(values)

    monkeypatch.setattr(np, "flatnonzero", counting)
    encoded = rle.encode(mask)
    monkeypatch.undo()
    assert max(seen) <= 300 * 251 + 2
    assert encoded["counts"] == coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii")
