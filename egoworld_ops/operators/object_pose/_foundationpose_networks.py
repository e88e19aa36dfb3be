"""FoundationPose's refiner and scorer as published: ONNX files, run by onnxruntime; or random numbers in their place.

Two publishers give the same networks with other names and another order of axes, and the file itself tells which: inputs (N, 6, 160, 160) or
(N, 160, 160, 6); in the order of their names the rendered picture and the observed one; the refiner's outputs in the order translation, rotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime

from egoworld_ops.errors import BadSettings, NoDevice, OutOfMemory, WeightsMismatch, WeightsUnreadable
from egoworld_ops.operators.accelerator import auto_device

SIDE_PX, CHANNELS = 160, 6
"""Of a picture: its side, and red, green, blue, x, y, z."""
_CURE = "Run: egoworld models fetch foundationpose"
_SIGNS_OF_EXHAUSTION = ("Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "STATUS_ALLOC_FAILED")
"""Phrases of onnxruntime's errors when memory runs out: its arena's, C++'s, the driver's, those of cuBLAS and cuDNN."""
_FATAL = 4
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_SETTING = "setting stages.object_pose.foundationpose"


class Networks(Protocol):
    """What is asked of both networks. Pictures are (N, 160, 160, 6) float32: the colours 0 to 1, then coordinates, see `_pairs.py`."""

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each pair the translation (N, 3) in units of the coordinates, and the rotation (N, 3) before its tanh."""

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """(N,) how well the pairs agree, among each other: all hypotheses go in at once."""


def pick_device(device: Literal["auto", "cpu", "cuda"], tensorrt: bool) -> Literal["cpu", "cuda"]:
    """The device by the settings; `auto` means CUDA if there is one.

    Raises:
        BadSettings: CUDA or TensorRT is asked for, and this onnxruntime has none.
        NoDevice: `auto`, and there is a GPU that onnxruntime cannot use: a CPU in its place would silently be a hundred times slower.
    """
    there = onnxruntime.get_available_providers()
    wanted = auto_device() if device == "auto" else device
    install = "Install onnxruntime-gpu in place of onnxruntime, or set device to `cpu`"
    if wanted == "cuda" and _PROVIDERS["cuda"] not in there:
        if device == "auto":
            reason = f"this process sees an NVIDIA GPU, and onnxruntime {onnxruntime.__version__} cannot use it"
            raise NoDevice("stages.object_pose.foundationpose", reason, install)
        raise BadSettings(f"{_SETTING}.device", f"it is `cuda`, and onnxruntime {onnxruntime.__version__} here has no CUDA", install)
    if tensorrt and (wanted == "cpu" or _PROVIDERS["tensorrt"] not in there):
        reason = "TensorRT is asked for, and " + ("the device is a CPU" if wanted == "cpu" else "this onnxruntime has none")
        raise BadSettings(f"{_SETTING}.tensorrt", reason, "Install onnxruntime-gpu and TensorRT, or set tensorrt to false")
    return wanted


class Published:
    """Both networks from their files.

    Args:
        refiner, scorer: ONNX files.
        device: where they compute, as `pick_device` says.
        tensorrt: whether TensorRT makes engines of them, which are kept beside the files.
        threads: of a CPU.

    Raises:
        WeightsUnreadable: a file is no ONNX file, or cut off.
        WeightsMismatch: it is of another network.
        NoDevice: the device cannot be used.
    """

    def __init__(self, refiner: Path, scorer: Path, device: Literal["cpu", "cuda"], tensorrt: bool, threads: int) -> None:
        self._refiner = _Network(refiner, 2, device, tensorrt, threads)
        self._scorer = _Network(scorer, 1, device, tensorrt, threads)

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Networks` has it."""
        translation, rotation = self._refiner(rendered, observed)
        return translation, rotation

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """As `Networks` has it."""
        return self._scorer(rendered, observed)[0].reshape(-1)


class Random:
    """Random numbers from a seed in the networks' place: it runs like them, and what it says means nothing."""

    def __init__(self, seed: int) -> None:
        self._weights = np.random.default_rng(seed).normal(0, 0.02, (8 * 8 * 2 * CHANNELS, 7)).astype(np.float32)

    def refine(self, rendered: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Networks` has it."""
        said = self._of(rendered, observed)
        return said[:, :3], said[:, 3:6]

    def score(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """As `Networks` has it."""
        return self._of(rendered, observed)[:, 6]

    def _of(self, rendered: np.ndarray, observed: np.ndarray) -> np.ndarray:
        some = np.concatenate([rendered, observed], -1)[:, ::20, ::20]
        return np.asarray(some.reshape(len(some), -1) @ self._weights)


class _Network:
    def __init__(self, path: Path, n_outputs: int, device: Literal["cpu", "cuda"], tensorrt: bool, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[tuple[str, dict[str, str]]] = [(_PROVIDERS[device], {"use_tf32": "0"} if device == "cuda" else {})]
        if tensorrt:
            kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(path.parent / "tensorrt")}
            providers.insert(0, (_PROVIDERS["tensorrt"], kept))
        try:
            with _out_of_memory(path):
                self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except (OutOfMemory, MemoryError):
            raise
        except Exception as error:  # onnxruntime's errors have no common base
            raise WeightsUnreadable(path, f"onnxruntime cannot read it: {error}", _CURE) from error
        if self._session.get_providers()[0] != providers[0][0]:
            reason = f"onnxruntime took {self._session.get_providers()[0]} for {providers[0][0]}: a library of CUDA or TensorRT is missing"
            raise NoDevice("stages.object_pose.foundationpose", reason, "See `egoworld doctor`, or set device to `cpu`")
        self._inputs = sorted(value.name for value in self._session.get_inputs())
        names = {value.name for value in self._session.get_outputs()}
        self._outputs = ["trans", "rot"] if names == {"trans", "rot"} else sorted(names)
        shapes = [list(value.shape) for value in self._session.get_inputs()]
        laid = [shape[1:] for shape in shapes if len(shape) == 4 and not isinstance(shape[0], int)]
        self._channels_first = laid == [[CHANNELS, SIDE_PX, SIDE_PX]] * 2
        if len(self._outputs) != n_outputs or not (self._channels_first or laid == [[SIDE_PX, SIDE_PX, CHANNELS]] * 2):
            what = f"its inputs are {shapes} and its outputs {sorted(names)}"
            want = f"want two inputs of any number of {CHANNELS} x {SIDE_PX} x {SIDE_PX} and {n_outputs} outputs"
            raise WeightsMismatch(path, f"this is not the network that it should be: {what}; {want}", _CURE)

    def __call__(self, rendered: np.ndarray, observed: np.ndarray) -> list[np.ndarray]:
        pictures = [rendered, observed]
        if self._channels_first:
            pictures = [np.ascontiguousarray(picture.transpose(0, 3, 1, 2)) for picture in pictures]
        with _out_of_memory(f"{len(rendered)} pairs of pictures"):
            return list(self._session.run(self._outputs, dict(zip(self._inputs, pictures, strict=True))))


@contextmanager
def _out_of_memory(culprit: object) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _SIGNS_OF_EXHAUSTION):
            raise
        cure = "Free memory, or set a smaller micro_batch in stages.object_pose.foundationpose"
        raise OutOfMemory(culprit, f"memory ran out in FoundationPose: {str(error) or type(error).__name__}", cure) from error
