"""FoundationPose's networks against numbers of the published code, and the runner of ONNX files on files made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import onnxruntime
import pytest
import torch

from egoworld_ops.errors import BadSettings, NoDevice, WeightsMismatch, WeightsUnreadable
from egoworld_ops.operators import onnx_network
from egoworld_ops.operators.object_pose._foundationpose_networks import OPERATOR, Published
from tests.egoworld_ops.operators.foundationpose_networks import NETWORKS, Kind, Layout, export, of_names, pictures
from tests.egoworld_ops.operators.onnx_stand_ins import constant

LIMIT = 1e-4
NARROW = 64


pytestmark = pytest.mark.usefixtures("one_thread")


@torch.inference_mode()
def differences(kind: Kind, golden: Path) -> dict[str, float]:
    """The largest difference from each of the numbers of the golden file."""
    want = np.load(golden)
    rendered, observed = pictures("A"), pictures("B")
    sums = {f"{name}_sum": picture.sum((2, 3)) for name, picture in (("A", rendered), ("B", observed))}
    assert all((value.numpy() == want[name]).all() for name, value in sums.items())
    network = of_names(kind)
    got = {"trans": None, "rot": None} if kind == "refine" else {"score_logit": None}
    said = dict(zip(got, network(rendered, observed), strict=True))
    if kind == "score":
        said["score_features_first16"] = network.features(rendered, observed)[:, :16]
    return {name: float(np.abs(value.numpy() - want[name]).max()) for name, value in said.items()}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_network_equals_the_published_code(kind: Kind, shared_data: Path) -> None:
    off = differences(kind, shared_data / "goldens" / "foundationpose.npz")
    print(f"FIGURE foundationpose {kind}: largest difference {max(off.values()):.1e} (limit {LIMIT}), {off}")
    assert max(off.values()) < LIMIT


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_tensors_have_the_names_and_shapes_of_the_published_checkpoint(kind: Kind, shared_data: Path) -> None:
    listed = json.loads((shared_data / "goldens" / f"foundationpose_{kind}_state_dict.json").read_text())
    assert {name: list(value.shape) for name, value in NETWORKS[kind]().state_dict().items()} == {k: v[0] for k, v in listed.items()}


def exported(folder: Path, layout: Layout, width: int) -> tuple[Path, Path]:
    """Files of refiner and scorer."""
    made = {kind: folder / f"{kind}_{layout}.onnx" for kind in NETWORKS}
    for kind, path in made.items():
        export(of_names(kind, width), kind, layout, path)
    return made["refine"], made["score"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("onnx")
    return {layout: exported(folder, layout, NARROW) for layout in ("library", "isaac")}


@pytest.mark.parametrize("layout", ["library", "isaac"])
def test_files_of_both_publishers_say_what_the_network_says(layout: Layout, files: dict[Layout, tuple[Path, Path]]) -> None:
    """In any number of pairs, and the rendered picture is not taken for the observed one."""
    off = layout_differences(files[layout], NARROW, (3, 1))
    print(f"FIGURE foundationpose ONNX {layout}: largest difference from torch {off:.1e} (limit 1e-5)")
    assert off < 1e-5


def layout_differences(made: tuple[Path, Path], width: int, counts: tuple[int, ...]) -> float:
    networks, off = Published(*made, "cpu", tensorrt=False, threads=1), 0.0
    for n in counts:
        rendered, observed = (pictures(name, n) for name in "AB")
        given = [np.ascontiguousarray(p.numpy().transpose(0, 2, 3, 1)) for p in (rendered, observed)]
        with torch.inference_mode():
            want = [*of_names("refine", width)(rendered, observed), of_names("score", width)(rendered, observed)[0][0]]
        got = [*networks.refine(given[0], given[1]), networks.score(given[0], given[1])]
        assert [g.shape for g in got] == [(n, 3), (n, 3), (n,)]
        off = max(off, *(float(np.abs(g - w.numpy()).max()) for g, w in zip(got, want, strict=True)))
        assert np.abs(networks.refine(given[1], given[0])[0] - want[0].numpy()).max() > 1e-3
    return off


def test_a_file_that_is_not_the_network_is_named(files: dict[Layout, tuple[Path, Path]], tmp_path: Path) -> None:
    refiner, scorer = files["isaac"]
    with pytest.raises(WeightsMismatch, match=r"score_isaac\.onnx: this is another network.*models fetch foundationpose"):
        Published(scorer, refiner, "cpu", tensorrt=False, threads=1)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(refiner.read_bytes()[:100_000])
    with pytest.raises(WeightsUnreadable, match=r"cut\.onnx: onnxruntime cannot read it.*models fetch foundationpose"):
        Published(cut, scorer, "cpu", tensorrt=False, threads=1)


def test_answers_of_another_shape_are_named(tmp_path: Path) -> None:
    shown = np.zeros((2, 160, 160, 6), np.float32)
    inputs: Mapping[str, tuple[tuple[int | str, ...], type]] = dict.fromkeys(("input1", "input2"), (("n", 160, 160, 6), np.float32))
    refiner = constant(tmp_path / "refiner.onnx", inputs, {name: np.zeros((2, 4), np.float32) for name in ("output1", "output2")})
    scorer = constant(tmp_path / "scorer.onnx", inputs, {"output1": np.zeros((1, 3), np.float32)})
    networks = Published(refiner, scorer, "cpu", tensorrt=False, threads=1)
    with pytest.raises(WeightsMismatch, match=r"refiner\.onnx: this is another network: .* want 3 numbers of each"):
        networks.refine(shown, shown)
    with pytest.raises(WeightsMismatch, match=r"scorer\.onnx: this is another network: .* want 1 numbers of each"):
        networks.score(shown, shown)


@pytest.mark.parametrize(
    ("device", "tensorrt", "there", "gpu", "said"),
    [
        ("cuda", False, ["CPU"], False, r"device: it is `cuda`, and onnxruntime .* has no CUDA. Install onnxruntime-gpu"),
        ("auto", False, ["CPU"], True, r"this process sees an NVIDIA GPU, and onnxruntime .* cannot use it. Install onnxruntime-gpu"),
        ("cpu", True, ["Tensorrt", "CUDA", "CPU"], False, "tensorrt: TensorRT is asked for, and the device is a CPU"),
        ("cuda", True, ["CUDA", "CPU"], True, "tensorrt: TensorRT is asked for, and this onnxruntime has none"),
    ],
)
def test_a_device_that_is_not_there_is_an_error_with_its_cure(
    device: Literal["auto", "cpu", "cuda"], tensorrt: bool, there: list[str], gpu: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [f"{name}ExecutionProvider" for name in there])
    monkeypatch.setattr(onnx_network, "auto_device", lambda: "cuda" if gpu else "cpu")
    with pytest.raises((BadSettings, NoDevice), match=said):
        onnx_network.pick_device(device, OPERATOR, tensorrt)


def test_cuda_is_asked_for_all_bits_of_float32(files: dict[Layout, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default is TF32 where the GPU has it. Nothing of CUDA is here: what is asked is looked at, and a CPU computes."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    asked: list[Any] = []

    def session(path: Path, options: Any, providers: Sequence[Any]) -> NoReturn:
        asked.extend(providers)
        raise RuntimeError("seen")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(WeightsUnreadable, match="seen"):
        Published(*files["library"], "cuda", tensorrt=False, threads=1)
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0"})]


def test_onnxruntime_that_takes_a_cpu_for_a_gpu_is_an_error(
    files: dict[Layout, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only warns that CUDA cannot be used, and computes on the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(NoDevice, match="took CPUExecutionProvider for CUDA"):
        Published(*files["library"], "cuda", tensorrt=False, threads=1)
