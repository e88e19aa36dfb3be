"""Overlap of boxes and cells of colours."""

import numpy as np
import pytest

from egoworld_ops.vision.boxes import iou
from egoworld_ops.vision.colors import cells

BOX = [10.0, 20.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("other", "share"),
    [(BOX, 1.0), ([12, 20, 4, 2], 1 / 3), ([10, 21, 4, 2], 1 / 3), ([14, 20, 4, 2], 0.0), ([11, 20.5, 2, 1], 0.25), ([10, 20, 0, 0], 0.0)],
)
def test_overlap_of_two_boxes(other: list[float], share: float) -> None:
    assert iou(np.array(BOX), np.array(other, float)) == pytest.approx(share)
    assert iou(np.array(other, float), np.array(BOX)) == pytest.approx(share)


def test_one_box_with_many() -> None:
    many = np.array([BOX, [12, 20, 4, 2], [0, 0, 1, 1]])
    assert iou(np.array(BOX), many) == pytest.approx([1, 1 / 3, 0])


def test_two_empty_boxes_do_not_overlap() -> None:
    assert iou(np.zeros(4), np.zeros(4)) == 0


@pytest.mark.parametrize("bits", [3, 4])
def test_colors_far_apart_have_cells_of_their_own_and_near_ones_share_one(bits: int) -> None:
    colors = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [129, 129, 129]], np.uint8)
    cell = cells(colors[None], bits)
    assert cell.shape == (1, 7)
    assert ((cell >= 0) & (cell < 2 ** (3 * bits))).all()
    assert len(set(cell[0, :6].tolist())) == 6
    assert cell[0, 5] == cell[0, 6]


@pytest.mark.parametrize("bits", [3, 4])
def test_lightness_counts_highest(bits: int) -> None:
    greys = np.repeat(np.arange(0, 256, 256 >> bits, dtype=np.uint8)[:, None], 3, axis=1)
    assert (np.diff(cells(greys[None], bits)[0]) >= 0).all()
