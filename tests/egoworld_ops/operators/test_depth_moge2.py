"""MoGe-2's outputs become metres: with stand-ins for its file that tell the truth of a scene, up to the shift and the factor that the network leaves
to the code behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from egoworld_ops import models
from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import BadSettings, WeightsMismatch, WeightsUnreadable
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth import moge2
from egoworld_ops.operators.depth._pictures import Pictures
from egoworld_ops.operators.depth_maps import DepthMaps
from egoworld_ops.types import Camera
from egoworld_ops.vision.lenses import project, unproject
from tests.egoworld_ops.operators.clips import pictures_input
from tests.egoworld_ops.operators.onnx_stand_ins import constant

SIDE = 112
CAMERA = Camera(150.0, 156.0, 63.5, 47.5, 128, 96, "file")
FISHEYE = Camera(60.0, 60.0, 63.5, 47.5, 128, 96, "file", "kannala_brandt", (0.02, -0.004, 0.001, 0.0))
IMAGE: dict[str, Any] = {"image": (("batch", 3, "height", "width"), np.float32), "num_tokens": ((), np.int64)}
NORMAL, AWAY_M = np.array([0.3, -0.5, -0.8]), -0.7


def truth_m(camera: Camera) -> np.ndarray:
    """(h, w) depth of a plane, with a box half as far away before it."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    rays = unproject(camera, np.stack([u, v], -1))
    z = AWAY_M / (rays @ NORMAL) * rays[..., 2]
    z = np.where((z > 0) & (z < 4), z, 4.0)
    z[30:50, 40:70] *= 0.5
    return np.asarray(z)


def said(camera: Camera, shift: float = 0.35, factor: float = 1.7, noise: float = 0.0) -> dict[str, np.ndarray]:
    """What the network says of it: points that lack the shift and the factor, seen but for a corner."""
    z = truth_m(camera) / factor
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    points = np.stack([(u - camera.cx_px) / camera.fx_px * z, (v - camera.cy_px) / camera.fy_px * z, z - shift], -1)
    points += np.random.default_rng(2).normal(0, noise, points.shape)
    mask = np.ones(z.shape)
    mask[:10, :20] = 0.4
    return {
        "points": points[None].astype(np.float32),
        "normal": np.zeros((1, *z.shape, 3), np.float32),
        "mask": mask[None].astype(np.float32),
        "metric_scale": np.array([factor], np.float32),
    }


@contextmanager
def standing_in(path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(models, "path", lambda name: path)
        yield


def run(path: Path, camera: Camera, **options: Any) -> pa.Table:
    rng = np.random.default_rng(7)
    item: ClipInput = replace(pictures_input([rng.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(2)]), camera=camera)
    with standing_in(path):
        backend = moge2.Backend(moge2.Settings(device="cpu", side_px=SIDE, **options), 1)
    table = backend.run(replace(item, tables={name: schema.empty(name) for name in ("masks", "hand_pose")}))
    validation.validate("depth", table)
    return table


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE])
@pytest.mark.parametrize(("side_px", "multiple"), [(SIDE, 1), (SIDE, 14), (504, 14)])
def test_a_network_is_shown_what_the_camera_of_its_map_sees(camera: Camera, side_px: int, multiple: int) -> None:
    """A picture whose values are its places, doubled: each pixel shows the place that its ray comes from."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    pictures = Pictures(camera, side_px, multiple)
    shown = pictures.of(np.stack([2 * u, 2 * v, 0 * u], -1).astype(np.uint8))[..., :2] / 2
    v, u = np.mgrid[0 : pictures.camera.height, 0 : pictures.camera.width].astype(np.float64)
    places = project(camera, unproject(pictures.camera, np.stack([u, v], -1)))
    inside = ((places > 2) & (places < (camera.width - 3, camera.height - 3))).all(-1) & ~pictures.unseen
    off_px = (shown - places)[inside]
    assert inside.mean() > 0.4
    assert np.abs(off_px.mean(0)).max() < 0.1
    assert np.quantile(np.abs(off_px), 0.95) < 0.5


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE])
@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.35])
def test_the_shift_and_the_factor_bring_the_scene_home(tmp_path: Path, camera: Camera, shift: float) -> None:
    seen = Pictures(camera, SIDE).camera
    held = DepthMaps(run(constant(tmp_path / "m.onnx", IMAGE, said(seen, shift)), camera)).of(1)
    assert held is not None
    known = np.isfinite(held.z_m)
    assert np.abs(held.z_m - truth_m(seen))[known].max() < 0.0006
    assert not known[:10, :20].any()
    assert (known.mean() > 0.9) == camera.is_pinhole


def test_noise_of_the_points_does_not_move_the_scene(tmp_path: Path) -> None:
    seen = Pictures(CAMERA, SIDE).camera
    held = DepthMaps(run(constant(tmp_path / "m.onnx", IMAGE, said(seen, noise=0.003)), CAMERA)).of(0)
    assert held is not None
    assert abs(float(np.nanmedian(held.z_m - truth_m(seen)))) < 0.005


def test_a_file_of_fixed_size_has_no_number_of_tokens(tmp_path: Path) -> None:
    seen = Pictures(CAMERA, SIDE).camera
    fixed = {"image": ((1, 3, seen.height, seen.width), np.float32)}
    assert run(constant(tmp_path / "m.onnx", fixed, said(seen)), CAMERA)["counts"].null_count == 0


@pytest.mark.parametrize("change", [{"mask": 0.0}, {"metric_scale": 0.0}, {"metric_scale": np.nan}, {"points": np.nan}])
def test_where_the_network_sees_nothing_the_map_is_null(tmp_path: Path, change: dict[str, float]) -> None:
    says = said(Pictures(CAMERA, SIDE).camera)
    [(name, value)] = change.items()
    says[name] = np.full_like(says[name], value)
    table = run(constant(tmp_path / "m.onnx", IMAGE, says), CAMERA)
    assert table["reason_class"].to_pylist() == ["no_depth"] * 2


def test_a_file_that_is_not_the_right_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    says = said(Pictures(CAMERA, SIDE).camera)
    constant(path, IMAGE, says)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WeightsUnreadable, match=r"m\.onnx"):
        run(path, CAMERA)
    constant(path, IMAGE, {name: value for name, value in says.items() if name != "metric_scale"})
    with pytest.raises(WeightsMismatch, match="another network"):
        run(path, CAMERA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": np.zeros((1, 3, 5, 7), np.float32)},
        {"points": np.zeros(3, np.float32)},
        {"mask": np.zeros((1, 9, 9), np.float32)},
        {"metric_scale": np.zeros(0, np.float32)},
    ],
)
def test_a_file_whose_answers_have_other_shapes_is_named(tmp_path: Path, wrong: dict[str, np.ndarray]) -> None:
    path = constant(tmp_path / "m.onnx", IMAGE, said(Pictures(CAMERA, SIDE).camera) | wrong)
    with pytest.raises(WeightsMismatch, match=f"another network: its {next(iter(wrong))} is") as caught:
        run(path, CAMERA)
    assert "egoworld models fetch" in caught.value.cure


@pytest.mark.parametrize(
    "inputs", [{"image": ((1, 3, 8, 8), np.float32)}, {"image": ((1, 3, "h", "w"), np.int64)}, {**IMAGE, "more": ((1,), np.int64)}]
)
def test_a_file_that_takes_something_else_is_named(tmp_path: Path, inputs: Any) -> None:
    path = constant(tmp_path / "m.onnx", inputs, said(Pictures(CAMERA, SIDE).camera))
    with pytest.raises(WeightsMismatch, match="another network"):
        run(path, CAMERA)


def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    path = constant(tmp_path / "m.onnx", IMAGE, said(Pictures(CAMERA, SIDE).camera))
    with standing_in(path), pytest.raises(BadSettings, match="no CUDA"):
        moge2.Backend(moge2.Settings(device="cuda"), 1)
