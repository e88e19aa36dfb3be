"""The contact sheet draws the rows of the tables at their places, for any subset of the tables, in a small PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from egoworld_ops.contract import schema
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.operators.rows import intrinsics
from egoworld_ops.report import _overlay
from egoworld_ops.report._tile import INSET_WIDTH_PX, STRIP_HEIGHT_PX
from egoworld_ops.report.contact_sheet import GAP_PX
from egoworld_ops.report.contact_sheet import contact_sheet as sheet_of
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.robots import ROBOTS
from egoworld_ops.types import Camera, Frame
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import project
from tests.rows import PER_FRAME, hand_pose_row, sample_row

WIDTH, HEIGHT = 640, 480
CAMERA = Camera(500, 500, 319.5, 239.5, WIDTH, HEIGHT, "file")
INTRINSICS: dict[str, Any] = {"fx_px": 500.0, "fy_px": 500.0, "cx_px": 319.5, "cy_px": 239.5}
INTRINSICS |= {"lens_model": "pinhole", "distortion": [], "intrinsics_source": "file"}
INTRINSICS |= {"focal_error_share": 0.0, "metric": True}
GREY = 60
NO_POSE: dict[str, Any] = dict.fromkeys(("qw", "qx", "qy", "qz", "x_m", "y_m", "z_m"))
POSE = {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "x_m": 0.0, "y_m": 0.0, "z_m": 0.5}


def contact_sheet(of: Iterable[Frame], tables: Mapping[str, pa.Table], **how: int) -> bytes:
    return sheet_of(of, ClipLayers(tables), **how)


def frames(count: int, gray: int | None = GREY, width: int = WIDTH, height: int = HEIGHT) -> Iterator[Frame]:
    """Flat frames; without `gray` the frame's index is its brightness."""
    for i in range(count):
        yield Frame(i, i / 30, np.full((height, width, 3), i if gray is None else gray, np.uint8))


def row(frame_index: int, **columns: Any) -> dict[str, Any]:
    return PER_FRAME | {"frame_index": frame_index, "timestamp_s": frame_index / 30} | columns


def pixels(png: bytes) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def mask_table(role: str, box: tuple[slice, slice]) -> pa.Table:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[box] = True
    track = {"hand_left": 1, "hand_right": 2, "object": 10}[role]
    columns = {"track_id": track, "role": role, "rle": rle.encode(mask), "mask_scale": 1.0, "bbox_px": rle.mask_bbox(mask)}
    return schema.from_rows("masks", [row(0, **columns, area_px=int(mask.sum()), observed=True)])


def mapping_table(qpos_rad: np.ndarray | None, hand: str = "right", **columns: Any) -> pa.Table:
    names = list(HandModel(ROBOTS["allegro"].right).joint_names)
    found = {"qpos_rad": qpos_rad, "residual_m": None if qpos_rad is None else 0.004, "converged": qpos_rad is not None}
    return schema.from_rows("mapping", [row(0, hand=hand, joint_names=names, **({"robot": "allegro"} | found | columns))])


def object_table(**change: Any) -> pa.Table:
    columns = POSE | INTRINSICS | {"dimensions_m": [0.2, 0.1, 0.05], "scale_source": "dimensions", "converged": True, "observed": True}
    return schema.from_rows("object_pose", [row(0, track_id=10, **(columns | change))])


def inset(png: bytes) -> np.ndarray:
    """The right robot hand of a sheet of one picture, its title left out."""
    return pixels(png)[-STRIP_HEIGHT_PX + 16 :, -INSET_WIDTH_PX:]


def drawn(region: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """(H, W) bool: where a picture has about that colour."""
    return np.abs(region.astype(int) - color).max(-1) < 40


def test_frames_are_spread_evenly_over_any_length_and_read_once() -> None:
    for count in (1, 3, 8, 9, 16, 17, 100, 250):
        n = min(count, 8)
        sheet = pixels(contact_sheet(frames(count, gray=None, width=64, height=48), {}, columns=n, tile_px=64))
        tile_width = (sheet.shape[1] + GAP_PX) // n
        shown = np.array([sheet[40, i * tile_width + 32, 0] for i in range(n)], int)
        even = np.linspace(0, count - 1, n)
        assert np.abs(shown - even).max() <= max(count / 8, 3), (count, shown)
        assert (np.diff(shown) > 0).all()


def test_pictures_are_laid_out_in_a_grid() -> None:
    sheet = pixels(contact_sheet(frames(8), {}))
    assert sheet.shape == (2 * (240 + STRIP_HEIGHT_PX) + GAP_PX, 4 * 320 + 3 * GAP_PX, 3)
    assert pixels(contact_sheet(frames(3), {}, columns=4)).shape[1] == 3 * 320 + 2 * GAP_PX
    portrait = pixels(contact_sheet(frames(1, width=480, height=640), {}))
    assert portrait.shape == (320 + STRIP_HEIGHT_PX, 240, 3)


def test_a_mask_is_tinted_where_it_is() -> None:
    sheet = pixels(contact_sheet(frames(1), {"masks": mask_table("object", (slice(200, 400), slice(100, 300)))}))
    want = (1 - _overlay.TINT) * GREY + _overlay.TINT * np.array(_overlay.ROLE_COLORS["object"])
    assert sheet[150, 100] == pytest.approx(want, abs=8)
    assert sheet[200, 100] != pytest.approx(sheet[150, 100], abs=8)  # the outline
    assert sheet[150, 200].tolist() == [GREY] * 3


def test_an_object_is_drawn_as_its_lens_bends_it() -> None:
    """A long edge through a wide lens: drawn where its points project, away from the straight line between its ends."""
    lens = Camera(245, 245, 319.5, 239.5, WIDTH, HEIGHT, "file", "kannala_brandt", (0.02, -0.008, 0.003, -0.0006))
    size_m = np.array([1.0, 0.4, 0.05])
    poses = object_table(**intrinsics(lens), dimensions_m=size_m.tolist(), z_m=0.4)
    sheet = pixels(contact_sheet(frames(1), {"object_pose": poses}))
    edge_m = np.stack([np.linspace(-0.5, 0.5, 9), np.full(9, 0.2), np.full(9, 0.375)], 1)
    edge_px = project(lens, edge_m) / 2
    green = drawn(sheet, _overlay.ROLE_COLORS["object"])
    for u, v in edge_px[1:-1].round().astype(int):
        assert green[v - 1 : v + 2, u - 1 : u + 2].any()
    straight = (edge_px[0] + edge_px[-1])[1] / 2
    assert abs(edge_px[4][1] - straight) > 15


def test_a_hand_is_drawn_where_its_3d_joints_project() -> None:
    rng = np.random.default_rng(0)
    joints_m = rng.uniform([-0.2, -0.15, 0.4], [0.2, 0.15, 0.6], (21, 3))
    poses = schema.from_rows("hand_pose", [hand_pose_row(0, hand="right", joints_m=joints_m)])
    sheet = pixels(contact_sheet(frames(1), {"hand_pose": poses}))
    at_px = project(CAMERA, joints_m) / 2
    for x, y in at_px.round().astype(int):
        assert drawn(sheet[y - 1 : y + 2, x - 1 : x + 2], _overlay.ROLE_COLORS["hand_right"]).any()


def test_a_fused_hand_is_drawn_where_its_joints_project_and_the_found_one_where_they_differ() -> None:
    grid = np.stack([np.linspace(-0.15, 0.15, 21), np.linspace(-0.1, 0.1, 21), np.full(21, 0.5)], 1)
    found = schema.from_rows("hand_pose", [hand_pose_row(0, hand="right", joints_m=grid)])
    orange, grey = _overlay.ROLE_COLORS["hand_right"], _overlay.UNSURE_COLOR

    def moved(shift_m: float) -> np.ndarray:
        return grid + np.array([0.0, shift_m, 0.0])

    def sheet(shift_m: float, observed: bool = True) -> np.ndarray:
        fused = schema.from_rows("fusion", [sample_row("fusion", 0, hand="right", joints_m=moved(shift_m), observed=observed)])
        return pixels(contact_sheet(frames(1), {"hand_pose": found, "fusion": fused}))[20:240]

    def at(shift_m: float) -> tuple[int, int]:
        x, y = (project(CAMERA, moved(shift_m))[10] / 2).round().astype(int)
        return y - 20, x

    same, apart, filled = sheet(0), sheet(0.06), sheet(0.06, observed=False)
    assert drawn(same, orange)[at(0)]
    assert drawn(apart, orange)[at(0.06)]
    assert drawn(apart, grey).sum() > drawn(same, grey).sum() + 20, "the bones as they were found"
    assert not drawn(apart, orange)[at(0)]
    assert not drawn(filled, orange)[30:].any()


def test_a_hand_without_pose_is_drawn_grey_from_its_image_points() -> None:
    points = np.stack([np.linspace(100, 500, 21), np.linspace(60, 420, 21)], 1)
    poses = schema.from_rows("hand_pose", [hand_pose_row(0, joints_px=points, joints_m=None, joints_wrist_m=None, **NO_POSE)])
    sheet = pixels(contact_sheet(frames(1), {"hand_pose": poses}))
    assert drawn(sheet[118:123, 148:153], (170, 170, 170)).any()


def test_an_object_s_cuboid_and_axes_are_drawn_where_they_project() -> None:
    sheet = pixels(contact_sheet(frames(1), {"object_pose": object_table()}))
    x, y = (project(CAMERA, np.array([0.1, 0.05, 0.475])) / 2).round().astype(int)
    assert drawn(sheet[y - 2 : y + 2, x - 2 : x + 2], _overlay.ROLE_COLORS["object"]).any()
    x, y = (project(CAMERA, np.array([0.12, 0.0, 0.5])) / 2).round().astype(int)
    assert drawn(sheet[y - 2 : y + 2, x - 2 : x + 2], _overlay.AXIS_COLORS[0]).any()


@pytest.mark.parametrize("change", [NO_POSE | {"converged": False, "reason": "lost"}, {"z_m": -0.5}, {"x_m": 1e12}])
def test_an_object_that_cannot_be_seen_is_not_drawn(change: dict[str, Any]) -> None:
    sheet = pixels(contact_sheet(frames(1), {"object_pose": object_table(**change)}))
    assert (sheet[40:240] == GREY).all()


def test_a_robot_hand_shows_its_joint_angles() -> None:
    limits = HandModel(ROBOTS["allegro"].right).limits
    open_, closed = (inset(contact_sheet(frames(1), {"mapping": mapping_table(q)})) for q in (np.clip(0, *limits.T), limits[:, 1]))
    color = _overlay.ROLE_COLORS["hand_right"]
    height = [np.ptp(np.argwhere(drawn(i, color))[:, 0]) for i in (open_, closed)]
    assert height[0] > 60
    assert height[1] < 0.8 * height[0]


def test_a_robot_hand_turns_with_the_wrist() -> None:
    q = np.clip(0, *HandModel(ROBOTS["allegro"].right).limits.T)
    down = POSE | {"qw": np.sqrt(0.5), "qx": np.sqrt(0.5)}
    upright, turned = (inset(contact_sheet(frames(1), {"mapping": mapping_table(q, **pose)})) for pose in ({}, down))
    assert not np.array_equal(upright, turned)


def test_a_robot_hand_that_is_null_says_so() -> None:
    failed = inset(contact_sheet(frames(1), {"mapping": mapping_table(None, reason="no hand pose")}))
    unknown = inset(contact_sheet(frames(1), {"mapping": mapping_table(np.zeros(16), robot="my-hand")}))
    absent = inset(contact_sheet(frames(1), {}))
    assert len({failed.tobytes(), unknown.tobytes(), absent.tobytes()}) == 3


def test_what_is_held_is_written() -> None:
    columns = {"track_id": 10, "label": "mug", "state": "moving"}
    tables = [schema.from_rows("movement", [row(0, **columns, held_by=hand)]) for hand in ("left", "none", "unknown")]
    sheets = [contact_sheet(frames(1), {"movement": t}) for t in tables]
    assert len({*sheets, contact_sheet(frames(1), {})}) == 4


def test_empty_tables_are_as_good_as_none() -> None:
    assert contact_sheet(frames(2), {name: schema.empty(name) for name in schema.TABLES}) == contact_sheet(frames(2), {})


def test_no_frames_give_a_picture_that_says_so() -> None:
    assert pixels(contact_sheet([], {})).size


def test_the_png_is_small_and_the_same_each_time() -> None:
    def noise() -> Iterator[Frame]:
        rng = np.random.default_rng(1)
        for i in range(8):
            yield Frame(i, i / 30, np.repeat(np.repeat(rng.integers(0, 255, (240, 320, 3), np.uint8), 4, 0), 4, 1))

    png = contact_sheet(noise(), {"object_pose": object_table()})
    print(f"FIGURE contact sheet: {len(png) / 1000:.0f} kB for 8 pictures of pure noise (limit 400)")
    assert len(png) <= 400_000
    assert png == contact_sheet(noise(), {"object_pose": object_table()})
