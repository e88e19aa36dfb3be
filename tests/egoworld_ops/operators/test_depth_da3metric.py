"""DA3METRIC's network equals transformers' classes of the same architecture, its shapes are the published ones, and its output becomes metres by the
focal length of the picture that it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from egoworld_ops.contract import schema, validation
from egoworld_ops.errors import WeightsMismatch, WeightsMissing, WeightsUnreadable
from egoworld_ops.files import safetensors
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth import _da3_model, da3metric
from egoworld_ops.operators.depth._da3_network import Network, Sizes
from egoworld_ops.operators.depth._pictures import Pictures
from egoworld_ops.operators.depth_maps import DepthMaps
from egoworld_ops.types import Camera, Frame
from egoworld_ops.vision.lenses import unproject
from tests.egoworld_ops.operators.clips import pictures_input
from tests.egoworld_ops.operators.seeded import tensor

TINY = Sizes(width=48, depth=5, heads=4, side=5, taps=(0, 1, 3, 4), features=32, channels=(16, 24, 32, 40), hidden=8)
AS_TRANSFORMERS = Sizes(**{name: getattr(TINY, name) for name in TINY.__slots__} | {"code_offset": 0.0, "last_eps": 1e-6})


def seeded(sizes: Sizes) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(tensor(name, shape)) for name, shape in sizes.shapes().items()}


def transformers_model(sizes: Sizes, tensors: dict[str, torch.Tensor]) -> DepthAnythingForDepthEstimation:
    """The same network, with the same numbers under transformers' names."""
    backbone = Dinov2Config(
        hidden_size=sizes.width, num_hidden_layers=sizes.depth, num_attention_heads=sizes.heads, image_size=14 * sizes.side, patch_size=14,
        layer_norm_eps=sizes.eps, out_indices=[tap + 1 for tap in sizes.taps], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    model = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone, patch_size=14, reassemble_hidden_size=sizes.width, neck_hidden_sizes=list(sizes.channels),
            fusion_hidden_size=sizes.features, head_hidden_size=sizes.hidden, reassemble_factors=[4, 2, 1, 0.5],
        )
    )  # fmt: skip
    found = {}
    for name, value in tensors.items():
        parts = name.split(".")
        if name.startswith("model.backbone.pretrained.blocks"):
            layer, rest = f"backbone.encoder.layer.{parts[4]}", ".".join(parts[5:])
            if rest.startswith("attn.qkv"):
                for kind, part in zip("qkv", value.chunk(3), strict=True):
                    found[f"{layer}.attention.{kind}_proj.{parts[-1]}"] = part
                continue
            for ours, theirs in (
                ("attn.proj", "attention.o_proj"),
                ("ls1.gamma", "layer_scale1.lambda1"),
                ("ls2.gamma", "layer_scale2.lambda1"),
            ):
                rest = rest.replace(ours, theirs)
            found[f"{layer}.{rest}"] = value
        elif name.startswith("model.backbone"):
            place = name.removeprefix("model.backbone.pretrained.")
            for ours, theirs in (
                ("cls_token", "cls_token"),
                ("pos_embed", "position_embeddings"),
                ("patch_embed.proj", "patch_embeddings.projection"),
            ):
                place = place.replace(ours, f"embeddings.{theirs}") if place.startswith(ours) else place
            found[f"backbone.{place.replace('norm.', 'layernorm.')}"] = value
        elif "sky" not in name:
            found[_in_head(name.removeprefix("model.head."))] = value
    missing = model.load_state_dict(found, strict=False)
    assert not missing.unexpected_keys
    assert all("mask_token" in key or "layers.0.residual_layer1" in key for key in missing.missing_keys), missing.missing_keys
    return model.eval()


def _in_head(name: str) -> str:
    kind, number, *rest = name.split(".")
    if kind == "projects":
        return f"neck.reassemble_stage.layers.{number}.projection.{rest[-1]}"
    if kind == "resize_layers":
        return f"neck.reassemble_stage.layers.{number}.resize.{rest[-1]}"
    if number.startswith("layer"):
        return f"neck.convs.{int(number[5]) - 1}.{rest[-1]}"
    if number.startswith("refinenet"):
        layer = f"neck.fusion_stage.layers.{4 - int(number[-1])}"
        if rest[0] == "out_conv":
            return f"{layer}.projection.{rest[-1]}"
        return f"{layer}.residual_layer{rest[0][-1]}.convolution{rest[1][-1]}.{rest[-1]}"
    return {"output_conv1": "head.conv1", "output_conv2.0": "head.conv2", "output_conv2.2": "head.conv3"}[
        ".".join([number, *rest[:-1]])
    ] + f".{rest[-1]}"


@pytest.mark.parametrize("size", [(70, 70), (56, 98), (84, 42)])
def test_the_network_is_that_of_transformers(size: tuple[int, int]) -> None:
    tensors = seeded(AS_TRANSFORMERS)
    picture = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (2, *size, 3), dtype=np.uint8))
    mean, std = (torch.tensor(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        depth, sky = Network(tensors, AS_TRANSFORMERS)(picture)
        want = transformers_model(AS_TRANSFORMERS, tensors)((picture / 255 - mean).div(std).permute(0, 3, 1, 2)).predicted_depth
    assert depth.shape == sky.shape == (2, *size)
    assert (sky >= 0).all()
    # transformers' head ends in a ReLU, this one in an exponential
    assert (want > 0).float().mean() > 0.1
    assert (functional.relu(torch.log(depth)) - want).abs().max() < 1e-4


def test_places_are_coded_as_dinov2_codes_them() -> None:
    """Stretched by the number of patches and a tenth, which transformers does not do."""
    network = Network(seeded(TINY), TINY)
    codes = network._tensors["model.backbone.pretrained.pos_embed"]
    square = codes[:, 1:].reshape(1, 5, 5, 48).permute(0, 3, 1, 2)
    want = functional.interpolate(square, scale_factor=(4.1 / 5, 7.1 / 5), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 28, 48)
    assert torch.equal(network._codes(4, 7)[:, 1:], want)
    assert torch.equal(network._codes(5, 5), codes)


def test_the_published_network_has_as_many_tensors_and_numbers() -> None:
    shapes = Sizes().shapes()
    assert len(shapes) == 406
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == pytest.approx(334.17e6, rel=2e-5)


NORMAL, AWAY_M = np.array([0.1, -0.5, -0.86]), -0.7
LENSES: dict[str, dict[str, Any]] = {
    "pinhole": {"fx_px": 90.0, "fy_px": 94.0, "cx_px": 60.0, "cy_px": 44.0},
    "fisheye": {
        "fx_px": 50.0, "fy_px": 50.0, "cx_px": 62.0, "cy_px": 46.0, "model": "kannala_brandt", "distortion": (0.02, -0.004, 0.001, 0.0),
    },
}  # fmt: skip


def clip(camera: Camera, count: int = 2) -> ClipInput:
    rng = np.random.default_rng(7)
    pictures = [rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8) for _ in range(count)]
    item = replace(pictures_input(pictures), camera=camera)
    return replace(item, tables={name: schema.empty(name) for name in ("masks", "hand_pose")})


def run(item: ClipInput, says: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None, **options: Any) -> pa.Table:
    """By a random network, or one that says what the test wants."""
    backend = da3metric.Backend(da3metric.Settings(random_weights_seed=3, device="cpu", **options), 1)
    if says is not None:
        backend._model = says  # type: ignore[assignment]
    table = backend.run(item)
    validation.validate("depth", table)
    return table


def plane_m(camera: Camera) -> np.ndarray:
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    rays = unproject(camera, np.stack([u, v], -1))
    return np.asarray(AWAY_M / (rays @ NORMAL) * rays[..., 2])


@pytest.mark.parametrize("lens", LENSES)
def test_a_network_that_tells_the_truth_gives_the_plane(lens: str) -> None:
    camera = Camera(width=128, height=96, source="file", **LENSES[lens])
    seen = Pictures(camera, 112, 14).camera
    truth = plane_m(seen)
    truth = np.where(truth > 0, truth, 50.0)

    def says(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert pictures.shape[1:] == (seen.height, seen.width, 3)
        of_300_px = truth * 300 / ((seen.fx_px + seen.fy_px) / 2)
        return np.stack([of_300_px] * len(pictures)), np.zeros(pictures.shape[:3])

    maps = DepthMaps(run(clip(camera), says, side_px=112))
    held = maps.of(1)
    assert held is not None
    points = held.points_m()[np.isfinite(held.z_m) & (held.z_m < 5)]
    assert len(points) > 2000
    assert np.abs(points @ NORMAL - AWAY_M).max() < 0.001
    assert np.isfinite(held.z_m).all() == (lens == "pinhole")


def test_half_the_focal_length_halves_the_metres() -> None:
    whole = Camera(90.0, 94.0, 60.0, 44.0, 128, 96, "file")
    half = replace(whole, fx_px=45.0, fy_px=47.0)
    one, other = (DepthMaps(run(clip(camera), side_px=112, step_m=1e-5)).of(0) for camera in (whole, half))
    assert one is not None
    assert other is not None
    both = np.isfinite(one.z_m) & np.isfinite(other.z_m)
    assert both.mean() > 0.05
    assert np.abs(other.z_m / one.z_m - 0.5)[both].max() < 1e-3


def test_sky_has_no_depth_and_an_assumed_lens_makes_it_not_metric() -> None:
    camera = Camera(90.0, 90.0, 60.0, 44.0, 128, 96, "assumed_fov")

    def says(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sky = np.zeros(pictures.shape[:3])
        sky[:, :14] = 0.3
        return np.full(pictures.shape[:3], 2.0), sky

    table = run(clip(camera), says, side_px=112)
    held = DepthMaps(table).of(0)
    assert held is not None
    assert np.isnan(held.z_m[:14]).all()
    assert np.isfinite(held.z_m[14:]).all()
    assert table["metric"].to_pylist() == [False, False]
    assert set(table["backend"].to_pylist()) == {"da3metric-random"}


def test_a_batch_of_one_says_what_a_batch_of_four_does() -> None:
    item = clip(Camera(90.0, 94.0, 60.0, 44.0, 128, 96, "file"), 5)
    one, four = (run(item, side_px=112, step_m=1e-3, micro_batch=n) for n in (1, 4))
    for a, b in ((DepthMaps(one).of(i), DepthMaps(four).of(i)) for i in range(5)):
        assert a is not None
        assert b is not None
        assert np.nanmax(np.abs(a.z_m - b.z_m)) < 1.5e-3


@pytest.mark.parametrize(
    ("size", "seen"), [((1280, 720), (504, 280)), ((640, 480), (504, 378)), ((320, 240), (504, 378)), ((1080, 1920), (280, 504))]
)
def test_pictures_are_those_of_the_published_code(size: tuple[int, int], seen: tuple[int, int]) -> None:
    camera = Camera(600.0, 600.0, size[0] / 2 - 0.5, size[1] / 2 - 0.5, *size, "file")
    pictures = Pictures(camera, 504, 14)
    assert (pictures.camera.width, pictures.camera.height) == seen
    assert pictures.of(np.zeros((size[1], size[0], 3), np.uint8)).shape == (seen[1], seen[0], 3)
    assert pictures.camera.fx_px == pytest.approx(600 * seen[0] / size[0])
    assert pictures.camera.cx_px == pytest.approx(seen[0] / 2 - 0.5)


def test_a_checkpoint_that_is_not_the_right_one_is_named(tmp_path: Path) -> None:
    path, device = tmp_path / "da3.safetensors", torch.device("cpu")
    arrays = {name: tensor(name, shape) for name, shape in TINY.shapes().items()}

    def write(held: dict[str, np.ndarray]) -> int:
        return path.write_bytes(b"".join(safetensors.chunks(held, {})))

    with pytest.raises(WeightsMissing):
        _da3_model.load(path, device, "float32", TINY)
    size = write(arrays)
    _da3_model.load(path, device, "float32", TINY)
    path.write_bytes(path.read_bytes()[: size // 2])
    with pytest.raises(WeightsUnreadable):
        _da3_model.load(path, device, "float32", TINY)
    write({name: array for name, array in arrays.items() if "sky" not in name})
    with pytest.raises(WeightsMismatch, match="lacks 4 arrays"):
        _da3_model.load(path, device, "float32", TINY)
    write(arrays)
    with pytest.raises(WeightsMismatch, match="another shape"):
        _da3_model.load(path, device, "float32", replace(TINY, hidden=16))


def test_memory_grows_by_the_compressed_maps_alone() -> None:
    """A thousand frames: what a clip takes is what its table takes."""
    n, seen = 1000, {}
    camera = Camera(90.0, 94.0, 60.0, 44.0, 128, 96, "file")
    picture = np.random.default_rng(4).integers(0, 256, (96, 128, 3)).astype(np.uint8)

    def frames() -> Iterator[Frame]:
        for i in range(n):
            if i in (200, n - 1):
                seen[i] = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
            yield Frame(i, i / 30, picture)

    table = run(replace(clip(camera), open_frames=frames), side_px=56, micro_batch=16)
    assert table.num_rows == n
    growth_mb, held_mb = seen[n - 1] - seen[200], table["counts"].nbytes * 0.8 / 1e6
    print(
        f"FIGURE da3metric memory (small network): {growth_mb:+.1f} MB from frame 200 to {n}, its maps are {held_mb:.1f} MB (limit +30 beside them)"
    )
    assert growth_mb < held_mb + 30
