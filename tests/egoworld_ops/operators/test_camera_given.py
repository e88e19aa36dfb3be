"""A trajectory beside the video: four formats read the same path, times between are met, gaps and hostile files are not."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops.contract import validation
from egoworld_ops.errors import BadSidecar
from egoworld_ops.operators.camera import given
from egoworld_ops.types import Frame
from egoworld_ops.video.sidecar import Sidecar, SidecarTrajectory, read_sidecar
from egoworld_ops.video.trajectory import read_trajectory
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, quaternion_from_matrix, rotations
from tests.egoworld_ops.operators.clips import clip_input

_AXIS = np.array([0.2, -0.5, 0.84]) / np.linalg.norm([0.2, -0.5, 0.84])


def true_pose(time_s: float) -> np.ndarray:
    """Even motion along a line, turning evenly about one axis: SLERP between any two of its poses is exact."""
    return make_transform(rotations((_AXIS * (0.4 + 0.9 * time_s))[None])[0], np.array([1.0 + 0.3 * time_s, -0.2 * time_s, 0.5]))


def tum(times: np.ndarray) -> str:
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for time in times:
        (w, x, y, z), p = quaternion_from_matrix(true_pose(time)[:3, :3]), true_pose(time)[:3, 3]
        lines.append(" ".join(f"{v:.12f}" for v in (time, *p, x, y, z, w)))
    return "\n".join(lines) + "\n"


def colmap(times: np.ndarray) -> str:
    lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"]
    for number, time in enumerate(times):
        T = invert(true_pose(time))
        values = " ".join(f"{v:.12f}" for v in (*quaternion_from_matrix(T[:3, :3]), *T[:3, 3]))
        lines += [f"{number + 1} {values} 1 clip_7/frame_{round(time * 30):06d}.jpg", "10.0 20.0 -1" if number % 2 else ""]
    return "\n".join(lines) + "\n"


def aria(times: np.ndarray) -> str:
    names = "graph_uid,tracking_timestamp_us,utc_timestamp_ns,tx_world_device,ty_world_device,tz_world_device"
    lines = [names + ",qx_world_device,qy_world_device,qz_world_device,qw_world_device"]
    for time in times:
        (w, x, y, z), p = quaternion_from_matrix(true_pose(time)[:3, :3]), true_pose(time)[:3, 3]
        lines.append(f"g,{round((time + 100) * 1e6)},0," + ",".join(f"{v:.12f}" for v in (*p, x, y, z, w)))
    return "\n".join(lines) + "\n"


def arkit(times: np.ndarray) -> str:
    gl = np.diag([1.0, -1.0, -1.0, 1.0])
    return json.dumps({"frames": [{"timestamp": float(t), "transform": (true_pose(t) @ gl).tolist()} for t in times]})


FORMATS: dict[str, tuple[Callable[[np.ndarray], str], dict[str, Any]]] = {
    "tum": (tum, {}),
    "colmap": (colmap, {"metres_per_unit": 1.0}),
    "aria": (aria, {"starts_at_s": 100.0}),
    "arkit": (arkit, {}),
}


def table(folder: Path, content: str, count: int, **about: Any) -> pa.Table:
    (folder / "path.dat").write_text(content)
    black = np.zeros((48, 64, 3), np.uint8)
    item = clip_input(folder / "v.mp4", 0, count, 64, 48, lambda: (Frame(i, i / 30, black) for i in range(count)))
    item = replace(item, sidecar=Sidecar(trajectory=SidecarTrajectory(file="path.dat", **about)))
    rows = given.Backend(given.GivenSettings(), 1).run(item)
    validation.validate("camera", rows)
    return rows


def pose(row: dict[str, Any]) -> np.ndarray:
    return make_transform(matrix_from_quaternion(np.array([row[f"q{a}"] for a in "wxyz"])), np.array([row[f"{a}_m"] for a in "xyz"]))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_path(tmp_path: Path, name: str) -> None:
    write, about = FORMATS[name]
    rows = table(tmp_path, write(np.arange(12) / 30), 12, format=name, **about).to_pylist()
    for row in rows:
        assert np.allclose(pose(row), true_pose(row["timestamp_s"]), atol=1e-6)
        assert (row["scale_source"], row["method"], row["reason"]) == ("given", None, None)


def test_times_between_are_interpolated_and_nothing_is_continued(tmp_path: Path) -> None:
    times = np.concatenate([np.arange(0.1, 0.45, 0.1), np.arange(0.9, 1.15, 0.1)])
    rows = table(tmp_path, tum(times), 40, format="tum").to_pylist()
    for row in rows:
        now = row["timestamp_s"]
        known = 0.1 - 1e-4 <= now <= 0.4 + 1e-4 or 0.9 - 1e-4 <= now <= 1.1 + 1e-4
        assert (row["qw"] is not None) == known, now
        if known:
            assert np.allclose(pose(row), true_pose(now), atol=1e-4)
            assert (row["method"] == "interpolated") == (np.abs(times - now).min() > 1e-4)
        else:
            assert row["reason_class"] == "no_trajectory"
            assert row["x_m"] is None


def test_the_device_that_is_posed_need_not_be_the_camera(tmp_path: Path) -> None:
    T = make_transform(rotations(np.array([[0.1, 0.2, -0.4]]))[0], np.array([0.01, 0.02, 0.03]))
    rows = table(tmp_path, tum(np.arange(3) / 30), 3, format="tum", T_device_camera=tuple(T.ravel())).to_pylist()
    assert np.allclose(pose(rows[1]), true_pose(1 / 30) @ T, atol=1e-9)


@pytest.mark.parametrize(("name", "about"), [("colmap", {}), ("tum", {"metres_per_unit": "unknown"})])
def test_a_path_whose_unit_nobody_tells_has_no_metres(tmp_path: Path, name: str, about: dict[str, Any]) -> None:
    rows = table(tmp_path, FORMATS[name][0](np.arange(4) / 30), 4, format=name, **about).to_pylist()
    for row in rows:
        assert (row["scale_source"], row["reason_class"], row["metres_per_unit"]) == ("none", "no_scale", None)
        assert [row[f"{axis}_m"] for axis in "xyz"] == [None, None, None]
        assert row["qw"] is not None, "the path itself is known"
        assert np.allclose(row["position_units"], true_pose(row["timestamp_s"])[:3, 3], atol=1e-6)


@pytest.mark.parametrize("unit_m", [0.4, 2.5])
def test_a_unit_that_is_told_makes_metres_of_the_path_and_not_of_the_device(tmp_path: Path, unit_m: float) -> None:
    T = make_transform(rotations(np.array([[0.1, 0.2, -0.4]]))[0], np.array([0.01, 0.02, 0.03]))
    about = {"format": "tum", "metres_per_unit": unit_m, "scale_error_share": 0.02, "T_device_camera": tuple(T.ravel())}
    for row in table(tmp_path, tum(np.arange(4) / 30), 4, **about).to_pylist():
        device = true_pose(row["timestamp_s"])
        expected = make_transform(device[:3, :3], unit_m * device[:3, 3]) @ T
        assert np.allclose(pose(row), expected, atol=1e-6)
        assert np.allclose(unit_m * np.array(row["position_units"]), expected[:3, 3], atol=1e-6)
        assert (row["metres_per_unit"], row["scale_error_share"]) == (unit_m, pytest.approx(0.02))


def test_a_camera_beside_a_device_whose_path_has_no_unit_is_refused(tmp_path: Path) -> None:
    T = make_transform(np.eye(3), np.array([0.01, 0.02, 0.03]))
    with pytest.raises(BadSidecar, match="unknown scale"):
        table(tmp_path, tum(np.arange(4) / 30), 4, format="tum", metres_per_unit="unknown", T_device_camera=tuple(T.ravel()))


def test_without_a_trajectory_the_table_is_empty_and_no_frame_is_read() -> None:
    def not_asked() -> Any:
        raise AssertionError("a frame was read")

    item = clip_input(Path("no.mp4"), 0, 30, 64, 48, not_asked)
    assert given.Backend(given.GivenSettings(), 1).run(item).num_rows == 0


GOOD = tum(np.arange(3) / 30)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tum", "", "holds no pose"),
        ("tum", "0 1 2 3", "has 4 numbers"),
        ("tum", "0 0 0 0 0 0 0 0\n", "norm 0"),
        ("tum", "nan 0 0 0 0 0 0 1\n", "not finite"),
        ("tum", "0 inf 0 0 0 0 0 1\n", "not finite"),
        ("tum", GOOD + GOOD, "do not ascend"),
        ("tum", "\x00\x00", "has 1 numbers"),
        ("tum", "0 0 0 0 0 0 0 1\n0.1 20 0 0 0 0 0 1\n0.2 35 0 0 0 0 0 1\n", "metres"),
        ("colmap", "1 1 0 0 0 0 0 0 1 picture.jpg\n\n", "no number of a frame"),
        ("colmap", "1 1 0 0 0 0 0 0 1 a1.jpg\n\n2 1 0 0 0 0 0 0 1 b1.jpg\n\n", "two images"),
        ("aria", "a,b\n1,2\n", "tracking_timestamp_us"),
        ("arkit", "[" * 100_000, "recursion"),
        ("arkit", '{"frames": [{"timestamp": 0, "transform": [[2,0,0,0],[0,2,0,0],[0,0,2,0],[0,0,0,1]]}]}', "no rotation"),
        ("arkit", '{"frames": [{"timestamp": 0, "transform": [[1,0,0,0],[0,1,0,0],[0,0,1,0],[5,5,5,1]]}]}', "in columns"),
    ],
)
def test_a_hostile_file_is_refused_with_its_name_and_a_cure(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / "path.dat").write_text(content)
    with pytest.raises(BadSidecar, match=r"path\.dat") as caught:
        read_trajectory(tmp_path, SidecarTrajectory(file="path.dat", format=name))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert caught.value.cure


def test_the_file_is_part_of_the_digest_and_must_be_a_plain_file_beside_the_video(tmp_path: Path) -> None:
    path = tmp_path / "path.txt"
    path.write_text(GOOD)
    (tmp_path / "v.egoworld.json").write_text(json.dumps({"trajectory": {"file": "path.txt", "format": "tum"}}))
    sidecar = read_sidecar(tmp_path / "v.mp4")
    first = sidecar.section_digest("trajectory", tmp_path)
    path.write_text(GOOD.replace("1.000", "2.000"))
    os.utime(path, ns=(1, 1))
    assert sidecar.section_digest("trajectory", tmp_path) != first
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadSidecar, match="not a regular file"):
        read_sidecar(tmp_path / "v.mp4")
    with pytest.raises(ValueError, match="plain name"):
        SidecarTrajectory(file="../path.txt", format="tum")
    with pytest.raises(ValueError, match="16 numbers"):
        SidecarTrajectory(file="path.txt", format="tum", T_device_camera=(1.0,) * 16)
    with pytest.raises(ValueError, match=r"12\.5 m from the device"):
        SidecarTrajectory(file="path.txt", format="tum", T_device_camera=(1, 0, 0, 12.5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1))
