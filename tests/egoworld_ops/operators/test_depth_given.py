"""Depth beside the video: counts come back as they were written, through any lens, at the frame they belong to; a sensor's real pictures agree with
a ball that they show; the scale is that of hands and known dimensions; bad files are named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import BadSidecar, ContractError
from egoworld_ops.operators import depth_maps
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth import given
from egoworld_ops.operators.depth_maps import DepthMap, DepthMaps
from egoworld_ops.types import Camera, Frame
from egoworld_ops.video.sidecar import read_sidecar
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import project, rotations
from egoworld_ops.vision.lenses import unproject
from tests.egoworld_ops import media
from tests.egoworld_ops.operators.clips import clip_input
from tests.egoworld_ops.video.indexes import indexed
from tests.rows import PER_FRAME, hand_pose_row, sample_row

WIDTH, HEIGHT = 64, 48
PINHOLE: dict[str, Any] = {"fx": 60.0, "fy": 62.0, "cx": 30.0, "cy": 25.0, "width": WIDTH, "height": HEIGHT}
FISHEYE: dict[str, Any] = {"fx": 84.0, "fy": 84.0, "cx": 92.0, "cy": 74.0, "width": 3 * WIDTH, "height": 3 * HEIGHT}
FISHEYE |= {"model": "kannala_brandt", "distortion": [0.02, -0.004, 0.001, 0.0]}
BROWN = {**PINHOLE, "model": "plumb_bob", "distortion": [-0.1, 0.01, 0.001, -0.002]}
LENSES = {"pinhole": PINHOLE, "fisheye": FISHEYE, "plumb_bob": BROWN}
GOOD = np.full((HEIGHT, WIDTH), 600, np.uint16)
NORMAL, AWAY_M = np.array([0.2, -0.3, -0.9]), -0.6
"""Of a plane: its points p have NORMAL . p = AWAY_M."""


def clip(folder: Path, count: int, camera: dict[str, Any] | None = None, **sidecar: Any) -> ClipInput:
    """Black frames at 30 a second, with that sidecar; a picture of depth is put where there is none yet."""
    camera = camera or PINHOLE
    (folder / "v.egoworld.json").write_text(json.dumps({"camera": camera, **sidecar}))
    if not (folder / "depth").exists():
        write(folder, [GOOD])

    def frames() -> Iterator[Frame]:
        return (Frame(i, i / 30, np.zeros((camera["height"], camera["width"], 3), np.uint8)) for i in range(count))

    item = clip_input(folder / "v.mp4", 0, count, camera["width"], camera["height"], frames)
    return replace(item, tables={name: schema.empty(name) for name in ("masks", "hand_pose")})


def write(folder: Path, maps: Sequence[np.ndarray], name: str = "depth_{:06d}.png") -> None:
    (folder / "depth").mkdir(exist_ok=True)
    for i, counts in enumerate(maps):
        assert cv2.imwrite(str(folder / "depth" / name.format(i)), counts)


def run(item: ClipInput, **options: Any) -> pa.Table:
    table = given.Backend(given.GivenSettings(**options), 1).run(item)
    validation.validate("depth", table)
    return table


def plane_m(camera: Camera, measures: str = "z") -> np.ndarray:
    """(H, W) depth of the plane through a camera, z or range; NaN where the lens shows nothing or the plane is not met."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    rays = unproject(camera, np.stack([u, v], -1))
    away = AWAY_M / (rays @ NORMAL)
    away = np.where((away > 0) & (away < 3), away, np.nan)
    return np.asarray(away * (rays[..., 2] if measures == "z" else 1.0))


def millimetres(depth_m: np.ndarray) -> np.ndarray:
    return np.rint(np.nan_to_num(depth_m) * 1000).astype(np.uint16)


def test_counts_come_back_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    maps = [rng.integers(0, 32_700, (HEIGHT, WIDTH)).astype(np.uint16) for _ in range(3)]
    maps[1][:5] = 0
    maps[2][:2, :2] = 65_000  # 65 m: beyond the range
    write(tmp_path, maps)
    table = run(clip(tmp_path, 3, depth={"folder": "depth"}))
    read = DepthMaps(table)
    assert list(read) == [0, 1, 2]
    for i, counts in enumerate(maps):
        held = read.of(i)
        assert held is not None
        want = np.where((counts > 0) & (counts < 32_768), counts / 1000, np.nan)
        assert np.array_equal(held.z_m, want.astype(np.float32), equal_nan=True)
        assert np.allclose(held.camera.K, [[60, 0, 30], [0, 62, 25], [0, 0, 1]])
    assert table["valid_share"][1].as_py() == pytest.approx((maps[1] > 0).mean())
    assert table["metric"].to_pylist() == [True] * 3


@pytest.mark.parametrize("measures", ["z", "range"])
@pytest.mark.parametrize("lens", LENSES)
def test_a_plane_is_a_plane_through_every_lens(tmp_path: Path, lens: str, measures: str) -> None:
    item = clip(tmp_path, 1, LENSES[lens], depth={"folder": "depth", "measures": measures})
    write(tmp_path, [millimetres(plane_m(item.camera, measures))])
    held = DepthMaps(run(item)).of(0)
    assert held is not None
    assert held.camera.is_pinhole
    points = held.points_m().reshape(-1, 3)
    points = points[np.isfinite(points).all(1)]
    off_m = points @ NORMAL - AWAY_M
    # a pixel of the picture is a sixtieth to an eightieth of a radian, and the plane is oblique and up to 3 m away
    assert len(points) > 1000
    assert np.abs(off_m).max() < 0.02
    assert np.abs(off_m).mean() < (0.001 if lens == "pinhole" else 0.004)
    again = held.seen_by(item.camera)
    both = np.isfinite(again) & np.isfinite(plane_m(item.camera))
    assert both.mean() > 0.6
    assert np.abs(again - plane_m(item.camera))[both].mean() < 0.01


def test_a_smaller_map_says_the_same_of_the_world(tmp_path: Path) -> None:
    item = clip(tmp_path, 1, depth={"folder": "depth"})
    write(tmp_path, [millimetres(plane_m(item.camera))])
    held = DepthMaps(run(item, side_px=32)).of(0)
    assert held is not None
    assert held.z_m.shape == (24, 32)
    points = held.points_m().reshape(-1, 3)
    assert np.nanmax(np.abs(points @ NORMAL - AWAY_M)) < 0.01


def test_a_turned_view_sees_the_same_plane(tmp_path: Path) -> None:
    item = clip(tmp_path, 1, FISHEYE, depth={"folder": "depth"})
    write(tmp_path, [millimetres(plane_m(item.camera))])
    table = run(item)
    R, view = rotations(np.array([[0.2, -0.3, 0.1]]))[0], Camera(60.0, 60.0, 39.5, 29.5, 80, 60, "file")
    turned = depth_maps.turned(table, view, R)
    validation.validate("depth", turned)
    held = DepthMaps(turned).of(0)
    assert held is not None
    points = held.points_m().reshape(-1, 3)
    known = np.isfinite(points).all(1)
    assert known.mean() > 0.5
    assert np.abs(points[known] @ R.T @ NORMAL - AWAY_M).mean() < 0.01


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("picture_Depth_{ms:.2f}.png", {"numbered_by": "ms", "starts_at_s": 100.0}),
        ("{us:.0f}.png", {"numbered_by": "us", "starts_at_s": 100.0}),
        ("{number:05d}.png", {"fps": 15.0}),
    ],
)
def test_depth_of_another_rate_is_given_by_time_and_never_mixed(tmp_path: Path, name: str, about: dict[str, Any]) -> None:
    """Depth of 15 frames a second beside a video of 30, for its first half second."""
    (tmp_path / "depth").mkdir()
    for number in range(8):
        at_s = number / 15 + about.get("starts_at_s", 0.0)
        file = name.format(number=number, ms=at_s * 1e3, us=at_s * 1e6)
        cv2.imwrite(str(tmp_path / "depth" / file), np.full((HEIGHT, WIDTH), 500 + number, np.uint16))
    rows = run(clip(tmp_path, 30, depth={"folder": "depth", **about})).to_pylist()
    for row in rows:
        near = round(row["timestamp_s"] * 15)
        late_s = near / 15 - row["timestamp_s"]
        if near < 8 and abs(late_s) < 0.02:
            assert row["median_m"] == pytest.approx(0.5 + near / 1000)
            assert row["later_s"] == pytest.approx(late_s, abs=1e-5)
        else:
            assert row["reason_class"] == "no_depth"
            assert row["counts"] is None
    assert sum(row["counts"] is not None for row in rows) == 8
    assert (
        sum(r["counts"] is not None for r in run(clip(tmp_path, 30, depth={"folder": "depth", **about}), max_gap_s=0.04).to_pylist()) > 14
    )


def test_frames_without_a_picture_are_null_and_say_how_many_there_are(tmp_path: Path) -> None:
    write(tmp_path, [np.full((HEIGHT, WIDTH), 700, np.uint16)] * 2 + [np.zeros((HEIGHT, WIDTH), np.uint16)])
    rows = run(clip(tmp_path, 4, depth={"folder": "depth"})).to_pylist()
    assert [row["reason_class"] for row in rows] == [None, None, "no_depth", "no_depth"]
    assert "no depth at all" in rows[2]["reason"]
    assert "of the 3 pictures" in rows[3]["reason"]


def test_without_depth_the_table_is_empty_and_no_frame_is_read(tmp_path: Path) -> None:
    def not_asked() -> Any:
        raise AssertionError("a frame was read")

    assert run(replace(clip(tmp_path, 3), open_frames=not_asked)).num_rows == 0


def test_floats_may_hold_what_is_no_number(tmp_path: Path) -> None:
    depth = np.full((HEIGHT, WIDTH), 0.6, np.float32)
    depth[0, :4] = [np.nan, np.inf, -1.0, 0.0]
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "0.npy", depth)
    held = DepthMaps(run(clip(tmp_path, 1, depth={"folder": "depth", "metres_per_unit": 1.0}))).of(0)
    assert held is not None
    assert np.isnan(held.z_m[0, :4]).all()
    assert np.allclose(held.z_m[1:], 0.6)


def png(counts: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", counts)[1])


def damaged(content: bytes) -> bytes:
    return content[:60] + bytes([content[60] ^ 1]) + content[61:]


@pytest.mark.parametrize(
    ("content", "about", "said"),
    [
        (png((GOOD / 8).astype(np.uint8)), {}, "has 8 bits, want 16"),
        (png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), {}, "8 bits in colour"),
        (png(GOOD)[:-30], {}, "cut off or damaged"),
        (png(np.random.default_rng(0).integers(1, 999, GOOD.shape).astype(np.uint16))[:2000], {}, "cut off or damaged"),
        (damaged(png(GOOD)), {}, "cut off or damaged"),
        (b"", {}, "is no PNG"),
        (b"\x89PNG\r\n\x1a\n", {}, "cut off or damaged"),
        (png(np.full((WIDTH, HEIGHT), 600, np.uint16)), {}, "picture turned by a quarter"),
        (png(np.full((HEIGHT, WIDTH + 9), 600, np.uint16)), {}, "not of the shape"),
        (png(GOOD), {"metres_per_unit": 1.0}, "600 m away"),
        (png(GOOD), {"metres_per_unit": 1e-6}, "0.0006 m away"),
        (png(np.full((HEIGHT, WIDTH), 44_000, np.uint16)), {}, "44 m away"),
    ],
)  # fmt: skip
def test_a_bad_picture_is_named_with_its_cure(tmp_path: Path, content: bytes, about: dict[str, Any], said: str) -> None:
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "depth_000000.png").write_bytes(content)
    with pytest.raises(BadSidecar, match=r"depth") as caught:
        run(clip(tmp_path, 1, depth={"folder": "depth", **about}))
    assert said in str(caught.value)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds 0 files"),
        ({"depth.png": png(GOOD)}, "no number"),
        ({"a1.png": png(GOOD), "b1.png": png(GOOD)}, "has the number of a1.png"),
        ({"0.png": png(GOOD), "1.png": png(np.full((HEIGHT * 2, WIDTH * 2), 600, np.uint16))}, "as the others are"),
        ({"0.npy": b"\x93NUMPY"}, "is no .npy"),
    ],
)
def test_a_bad_folder_is_named(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    (tmp_path / "depth").mkdir()
    for name, content in files.items():
        (tmp_path / "depth" / name).write_bytes(content)
    with pytest.raises(BadSidecar) as caught:
        run(clip(tmp_path, 2, depth={"folder": "depth"}))
    assert said in str(caught.value)


def test_the_pictures_are_part_of_the_digest_and_must_lie_beside_the_video(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    (tmp_path / "v.egoworld.json").write_text(json.dumps({"depth": {"folder": "depth"}}))
    sidecar = read_sidecar(tmp_path / "v.mp4")
    first = sidecar.section_digest("depth", tmp_path)
    write(tmp_path, [GOOD + np.uint16(1)])
    assert sidecar.section_digest("depth", tmp_path) != first
    (tmp_path / "v.egoworld.json").write_text(json.dumps({"depth": {"folder": "../depth"}}))
    with pytest.raises(BadSidecar, match="plain name"):
        read_sidecar(tmp_path / "v.mp4")


def hands(item: ClipInput, wrong: float) -> pa.Table:
    """Hands 8 mm behind the plane, in a pose table that is `wrong` times as far away as the plane says."""
    rows = []
    for i in range(6):
        px = np.stack(np.meshgrid(np.linspace(20, 34, 7), np.linspace(15, 28, 3)), -1).reshape(-1, 2) + i
        rays = unproject(item.camera, px)
        surface = rays * (AWAY_M / (rays @ NORMAL))[:, None]
        joints = surface * wrong
        joints[:, 2] += 0.008
        rows.append(hand_pose_row(i, joints_px=px.tolist(), joints_m=joints.tolist(), depth_error_share=0.08, **PER_FRAME))
    return schema.from_rows("hand_pose", rows)


@pytest.mark.parametrize("wrong", [1.0, 1.25])
def test_the_scale_brings_the_depth_to_the_hands(tmp_path: Path, wrong: float) -> None:
    item = clip(tmp_path, 6, depth={"folder": "depth"})
    write(tmp_path, [millimetres(plane_m(item.camera))] * 6)
    table = run(replace(item, tables=item.tables | {"hand_pose": hands(item, wrong)}))
    [row] = {(r["scale"], r["scale_source"], r["scale_error_share"]) for r in table.to_pylist()}
    assert row[0] == pytest.approx(wrong, rel=0.01)
    assert row[1] == "hands"
    assert row[2] == pytest.approx(0.08, abs=0.005)


def test_hands_of_unknown_error_are_no_evidence_of_the_scale(tmp_path: Path) -> None:
    item = clip(tmp_path, 6, depth={"folder": "depth"})
    write(tmp_path, [millimetres(plane_m(item.camera))] * 6)
    unknown = [row | {"depth_error_share": None} for row in hands(item, 1.25).to_pylist()]
    table = run(replace(item, tables=item.tables | {"hand_pose": schema.from_rows("hand_pose", unknown)}))
    assert {(r["scale"], r["scale_source"], r["scale_error_share"]) for r in table.to_pylist()} == {(None, "none", None)}


@pytest.mark.parametrize(("measures", "metric"), [("z", True), ("range", False)])
def test_z_of_a_range_rests_on_the_focal_length(tmp_path: Path, measures: str, metric: bool) -> None:
    item = clip(tmp_path, 1, depth={"folder": "depth", "measures": measures})
    assumed = replace(item, camera=replace(item.camera, source="assumed_fov", focal_error_share=0.2))
    write(tmp_path, [GOOD])
    assert not assumed.camera.metric
    assert run(assumed)["metric"].to_pylist() == [metric]


def test_a_map_that_is_all_beyond_the_range_says_so(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    [row] = run(clip(tmp_path, 1, depth={"folder": "depth"}), step_m=1e-5, side_px=WIDTH).to_pylist()
    assert row["counts"] is not None
    write(tmp_path, [np.full((HEIGHT, WIDTH), 700, np.uint16)])
    [row] = run(clip(tmp_path, 1, depth={"folder": "depth"}), step_m=1e-5, side_px=WIDTH).to_pylist()
    assert (row["counts"], row["reason_class"]) == (None, "no_depth")
    assert "beyond 0.655 m" in row["reason"]


def test_the_scale_brings_a_box_to_its_dimensions(tmp_path: Path) -> None:
    """A flat box of 0.30 by 0.02 by 0.02 m in the plane's place, whose depth is a tenth too great."""
    item = clip(tmp_path, 5, depth={"folder": "depth"}, objects=[{"label": "rod", "dimensions_m": [0.30, 0.02, 0.02]}])
    flat = np.full((HEIGHT, WIDTH), 550, np.uint16)  # truly at 0.5 m: 36 px are 0.3 m
    write(tmp_path, [flat] * 5)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:24, 10:46] = True
    about = {"track_id": 10, "role": "object", "label": "rod", "rle": rle.encode(mask), "area_px": int(mask.sum()), **PER_FRAME}
    masks = schema.from_rows("masks", [sample_row("masks", i, **about) for i in range(5)])
    [row] = {(r["scale"], r["scale_source"]) for r in run(replace(item, tables=item.tables | {"masks": masks})).to_pylist()}
    assert row[0] == pytest.approx(1 / 1.1, rel=0.08)
    assert row[1] == "dimensions"


def test_what_is_no_map_is_no_map() -> None:
    row = {**sample_row("depth", 0), "counts": b"no zstd"}
    with pytest.raises(ContractError, match="no zstd of 2x2"):
        depth_maps.map_of(row)
    with pytest.raises(ContractError, match="step_m is null"):
        depth_maps.map_of(row | {"step_m": None})
    with pytest.raises(ValueError, match="z_m: want float32"):
        DepthMap(0, np.zeros((2, 2)), Camera(1.0, 1.0, 0.5, 0.5, 2, 2, "file"), 0.001)
    assert np.allclose(depth_maps.map_of(sample_row("depth", 0)).z_m, 0.5)


def test_real_depth_of_a_ball(tmp_path: Path, shared_data: Path) -> None:
    """Seven of 19 pictures of a basketball by a moving stereo camera (nvidia-isaac/video_to_data), with depth as 65535 / (metres + 1).

    The ball has one size in all of them, and its surface is a sphere; in the wrong encoding it is neither near nor of one size.
    """
    data = shared_data / "v2d_rgbd"
    (tmp_path / "depth").mkdir()
    for path in data.glob("depth_*.png"):
        (tmp_path / "depth" / path.name).write_bytes(path.read_bytes())
    camera = {"fx": 481.979, "fy": 481.170, "cx": 479.202, "cy": 292.254, "width": 960, "height": 600}
    about = {"depth": {"folder": "depth", "encoding": "inverse", "fps": 90.0}, "objects": [{"label": "ball", "dimensions_m": [0.193] * 3}]}
    item = clip(tmp_path, 7, camera, **about)
    seen = [cv2.imread(str(data / f"masks_{3 * i:06d}.png"), cv2.IMREAD_GRAYSCALE) > 127 for i in range(7)]
    of_ball = {"track_id": 10, "role": "object", "label": "ball", **PER_FRAME}
    masks = [sample_row("masks", i, rle=rle.encode(mask), area_px=int(mask.sum()), **of_ball) for i, mask in enumerate(seen)]
    table = run(replace(item, tables=item.tables | {"masks": schema.from_rows("masks", masks)}), side_px=960)
    read = DepthMaps(table)
    assert len(read) == 7
    diameters = []
    for i in read:
        held = read.of(i)
        assert held is not None
        points = held.points_m()[cv2.erode(seen[i].astype(np.uint8), np.ones((15, 15))) > 0]
        fit = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
        radius = np.sqrt(fit[3] + fit[:3] @ fit[:3])
        assert np.std(np.linalg.norm(points - fit[:3], axis=1)) < 0.001
        diameters.append(2 * radius)
    assert np.ptp(diameters) / np.mean(diameters) < 0.02
    assert np.mean(diameters) == pytest.approx(0.193, abs=0.002)
    [row] = {(row["scale"], row["scale_error_share"]) for row in table.to_pylist()}
    # of a ball the longest side alone is seen; what is taken for it is halfway to a cube's diagonal
    assert row[0] == pytest.approx((1 + 3**0.5) / 2, rel=0.06)
    assert abs(row[0] - 1) < 2 * row[1] * row[0]
    with pytest.raises(BadSidecar, match="m away"):
        run(clip(tmp_path, 7, camera, depth={"folder": "depth", "fps": 90.0}))


def test_a_point_and_its_pixel_are_one(tmp_path: Path) -> None:
    item = clip(tmp_path, 1, depth={"folder": "depth"})
    write(tmp_path, [millimetres(plane_m(item.camera))])
    held = DepthMaps(run(item)).of(0)
    assert held is not None
    there = project(held.camera, held.points_m()[10, 20])
    assert np.allclose(there, [20, 10], atol=1e-9)
    assert held.along(held.points_m()[10, 20]) == pytest.approx(held.points_m()[10, 20, 2])


def test_pictures_of_frames_that_the_video_does_not_have_are_named(tmp_path: Path) -> None:
    """The packet index of a video tells how many it has."""
    _, index = indexed(media.make(tmp_path / "v.mp4", 12, (WIDTH, HEIGHT)))
    item = clip(tmp_path, 12, depth={"folder": "depth"})
    item = replace(item, clip=replace(item.clip, packet_index=index))
    write(tmp_path, [GOOD] * 12)
    assert run(item)["counts"].null_count == 0
    write(tmp_path, [GOOD] * 14)
    with pytest.raises(BadSidecar, match="picture of frame 13, and the video has 12 frames"):
        run(item)


def test_exports_with_colour_and_depth_in_one_folder_are_told_apart_by_prefix(tmp_path: Path) -> None:
    """As ZED's sample writes them: left000000.png and depth000000.png, millimetres."""
    write(tmp_path, [GOOD] * 3, "depth{:06d}.png")
    write(tmp_path, [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3, "left{:06d}.png")
    table = run(clip(tmp_path, 3, depth={"folder": "depth", "prefix": "depth"}))
    assert table["median_m"].to_pylist() == pytest.approx([0.6] * 3)
    with pytest.raises(BadSidecar, match=r"has the number of depth000000\.png"):
        run(clip(tmp_path, 3, depth={"folder": "depth"}))
