"""Readings of GPUs from NVML, through the real bindings, from a stand-in for NVIDIA's library (`nvml_stub.c`)."""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

A, B, C = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f6", "GPU-11111111-d72c-4106-c12f-20bd9faed9f6"
THREE = f"{A}|NVIDIA H100|85899345920|1073741824|37|64;{B}|NVIDIA H100|85899345920|0|0|30;{C}|NVIDIA L4|25769803776|2097151|100|81"
NOT_SUPPORTED, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, LOST, MISMATCH, FUTURE, UNKNOWN = 3, 9, 13, 15, 18, 555, 999

DISCOVER = "gpus, sick = nvml.discover(); say([g.index for g in gpus], [(s.index, s.uuid, s.reason) for s in sick])"
READ_ALL = """
for gpu in nvml.discover()[0]:
    try:
        r = nvml.read(gpu)
        say(gpu.index, r.utilisation, r.memory_used_mb, r.temperature_c)
    except GpuError as error:
        say(gpu.index, error.gpu == gpu, error.reason, str(error))
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in for NVIDIA's library."""
    if not (cc := shutil.which("cc")):
        pytest.skip("needs a C compiler to build the stand-in for NVIDIA's library")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run([cc, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return folder


def said(code: str, library: Path, gpus: str = THREE, fail: str = "", visible: str | None = None) -> list[Any]:
    """The output of `code` in a process that loads NVML from `library`: a tuple for each call of `say`. It must print nothing else."""
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    # Some Pythons find their own libpython through this variable.
    env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(library), env.get("LD_LIBRARY_PATH")]))
    env |= {"NVML_STUB_GPUS": gpus, "NVML_STUB_FAIL": fail}
    if visible is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible
    start = "import os\nfrom gpu_workers.gpus import Gpu, GpuError, Nvml\ndef say(*words): print(repr(words))\nnvml = Nvml()\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", start + code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


def test_gpus_are_discovered_with_their_memory_in_mib(stub: Path) -> None:
    (gpus,) = said("say(*[(g.index, g.uuid, g.name, g.memory_mb) for g in nvml.discover()[0]])", stub)
    assert gpus == ((0, A, "NVIDIA H100", 81920), (1, B, "NVIDIA H100", 81920), (2, C, "NVIDIA L4", 24576))


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 2 , 0 ", [2, 0]),
        ("0,2,-1,1", [0, 2]),
        ("0,3,1", [0]),
        ("0,no,1", [0]),
        ("NoDevFiles", []),
        ("1,1", []),
        (C, [2]),
        (f"{C},{A}", [2, 0]),
        ("GPU-1,GPU-8932f", [2, 0]),
        ("GPU-1,GPU-8932,GPU-8932f", [2]),
        ("GPU-1,GPU-7,GPU-8932f", [2]),
        ("GPU-1,GPU-11", []),
        (f"MIG-{A}/1/2", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(stub: Path, visible: str | None, indices: list[int]) -> None:
    assert said(DISCOVER, stub, visible=visible) == [(indices, [])]


def test_readings_are_shares_mib_and_degrees(stub: Path) -> None:
    assert said(READ_ALL, stub) == [(0, 0.37, 1024, 64), (1, 0.0, 0, 30), (2, 1.0, 1, 81)]


@pytest.mark.parametrize("call", ["nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates"])
@pytest.mark.parametrize(("error", "reason"), [(UNKNOWN, "Unknown Error"), (LOST, "GPU is lost"), (FUTURE, "Stub error 555")])
def test_one_sick_gpu_is_named_and_the_others_read_fine(stub: Path, call: str, error: int, reason: str) -> None:
    first, sick, last = said(READ_ALL, stub, fail=f"{call}/1={error}")
    assert sick == (1, True, reason, f"GPU 1 (NVIDIA H100, {B}): {reason}")
    assert (first, last) == ((0, 0.37, 1024, 64), (2, 1.0, 1, 81))


def test_a_gpu_lost_after_its_discovery_is_named(stub: Path) -> None:
    lose = "gpu = nvml.discover()[0][1]; os.environ['NVML_STUB_FAIL'] = 'nvmlDeviceGetHandleByIndex_v2/1=15'\n"
    code = lose + "try: nvml.read(gpu)\nexcept GpuError as error: say(error.gpu.uuid, error.reason)"
    assert said(code, stub) == [(B, "GPU is lost")]


DUTY = """
import time
from egoworld_assets.acceptance.resources import duty
with duty() as found:
    time.sleep(1)
say(found.gpus, [share if share is None else round(share, 6) for share in found.shares])
"""


@pytest.mark.parametrize(
    ("fail", "visible", "gpus", "shares"),
    [
        ("", None, ["NVIDIA H100", "NVIDIA H100", "NVIDIA L4"], [0.37, 0.0, 1.0]),
        (f"nvmlDeviceGetUtilizationRates/1={NOT_SUPPORTED}", None, ["NVIDIA H100", "NVIDIA H100", "NVIDIA L4"], [0.37, None, 1.0]),
        ("", "2", ["NVIDIA L4"], [1.0]),
        ("", "", [], []),
    ],
)
def test_the_duty_that_an_acceptance_states_is_what_the_driver_says(
    stub: Path, fail: str, visible: str | None, gpus: list[str], shares: list[float | None]
) -> None:
    assert said(DUTY, stub, fail=fail, visible=visible) == [(gpus, shares)]


def test_another_gpu_at_the_same_index_is_not_read_in_its_place(stub: Path) -> None:
    swap = f"gpu = nvml.discover()[0][0]; os.environ['NVML_STUB_GPUS'] = {THREE.split(';')[1]!r}\n"
    code = swap + "try: say(nvml.read(gpu).temperature_c)\nexcept GpuError as error: say(error.gpu.uuid, error.reason)"
    assert said(code, stub) == [(A, f"its place was taken by {B}")]


@pytest.mark.parametrize("error", [NOT_SUPPORTED, FUNCTION_NOT_FOUND])
@pytest.mark.parametrize(
    ("call", "reading"),
    [
        ("nvmlDeviceGetUtilizationRates", (0, None, 1024, 64)),
        ("nvmlDeviceGetMemoryInfo", (0, 0.37, None, 64)),
        ("nvmlDeviceGetTemperature", (0, 0.37, 1024, None)),
    ],
)
def test_what_a_gpu_does_not_measure_is_none(stub: Path, call: str, reading: tuple[Any, ...], error: int) -> None:
    assert said(READ_ALL, stub, fail=f"{call}/0={error}")[0] == reading


@pytest.mark.parametrize("shared", [{"fail": f"nvmlDeviceGetMemoryInfo/0={NOT_SUPPORTED}"}, {"gpus": f"{A}|NVIDIA GB10|0|0|0|30"}])
def test_a_gpu_on_the_hosts_memory_has_none_of_its_own(stub: Path, shared: dict[str, str]) -> None:
    assert said("say(nvml.discover()[0][0].memory_mb)", stub, **shared) == [(None,)]


@pytest.mark.parametrize(
    ("call", "uuid"),
    [("nvmlDeviceGetHandleByIndex_v2", None), ("nvmlDeviceGetUUID", None), ("nvmlDeviceGetName", B), ("nvmlDeviceGetMemoryInfo", B)],
)
def test_a_gpu_that_does_not_answer_hides_no_other(stub: Path, call: str, uuid: str | None) -> None:
    assert said(DISCOVER, stub, fail=f"{call}/1={LOST}") == [([0, 2], [(1, uuid, "GPU is lost")])]


@pytest.mark.parametrize(
    ("visible", "gpus", "sick"),
    [("0", [0], []), ("1,2", [2], [1]), (f"{B},{C}", [2], [1]), (f"{A},{C}", [0, 2], []), (f"{B},GPU-7,{C}", [2], [1])],
)
def test_a_gpu_that_does_not_answer_is_reported_where_it_is_wanted(stub: Path, visible: str, gpus: list[int], sick: list[int]) -> None:
    ((found, silent),) = said(DISCOVER, stub, fail=f"nvmlDeviceGetHandleByIndex_v2/1={LOST}", visible=visible)
    assert (found, [index for index, _, _ in silent]) == (gpus, sick)


def test_no_gpus_where_the_library_is_missing(tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        assert said(DISCOVER, tmp_path) == [([], [])]
    else:
        pytest.skip("this host has NVIDIA's library")


def test_no_gpus_where_the_library_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    assert said(DISCOVER, tmp_path) == [([], [])]


def test_no_gpus_where_the_driver_is_not_loaded(stub: Path) -> None:
    assert said(DISCOVER, stub, fail=f"nvmlInitWithFlags={DRIVER_NOT_LOADED}") == [([], [])]


@pytest.mark.parametrize(("visible", "outcome"), [(None, "SetupError"), ("0", "SetupError"), ("", "no GPUs"), ("-1", "no GPUs")])
@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
def test_a_driver_that_nvml_refuses_is_no_host_without_gpus(stub: Path, call: str, visible: str | None, outcome: str) -> None:
    code = "try: nvml.discover(); say('no GPUs', '')\nexcept Exception as error: say(type(error).__name__, str(error))"
    ((kind, message),) = said(code, stub, fail=f"{call}={MISMATCH}", visible=visible)
    assert kind == outcome
    assert ("version mismatch" in message) == (outcome == "SetupError")


def test_nvml_is_opened_once_closed_once_and_opened_again(stub: Path) -> None:
    code = """
import pynvml
def is_open():
    try: return bool(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError_Uninitialized: return False
nvml.close()
gpu = nvml.discover()[0][0]
nvml.discover(), nvml.read(gpu)
say(is_open())
nvml.close(), nvml.close()
say(is_open())
say(nvml.read(gpu).temperature_c)
"""
    assert said(code, stub) == [(True,), (False,), (64,)]


def test_importing_the_module_imports_no_bindings(tmp_path: Path) -> None:
    assert said("import sys; say('pynvml' in sys.modules)", tmp_path) == [(False,)]
