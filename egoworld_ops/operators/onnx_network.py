"""A network that its publisher gives as an ONNX file, run by onnxruntime. Importing this does not import onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from egoworld_ops.errors import BadSettings, NoDevice, OutOfMemory, WeightsMismatch, WeightsUnreadable
from egoworld_ops.operators import extras
from egoworld_ops.operators.accelerator import auto_device

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_ALL_BITS = {"use_tf32": "0"}
"""CUDA's provider otherwise rounds to TF32, 10 bits of 23, on GPUs that have it: the machine would choose the precision."""
_ENGINES = "tensorrt"
"""Folder beside a file for what TensorRT makes of it."""
_FATAL = 4
Shape = tuple[int | str, ...]
_SIGNS_OF_EXHAUSTION = ("Failed to allocate", "bad_alloc", "bad allocation", "out of memory", "STATUS_ALLOC_FAILED")
"""Phrases of errors when memory runs out: onnxruntime's arena's and Warp's, C++'s, the driver's, those of cuBLAS and cuDNN."""


class OnnxNetwork:
    """The network of a file on one device.

    Args:
        path: the file.
        inputs, outputs: the shapes of those that it must have among its own, by name; no outputs: all that it has. A word in a shape stands for any
            number, the same wherever it stands; None for a single number in any shape.
        device: a setting: `auto` is CUDA if there is one.
        threads: of a CPU.
        operator: `stage.backend`, whose setting `device` is.
        weight: what `egoworld models fetch` calls the file.
        tensorrt: a setting: whether TensorRT makes an engine of it, which is kept beside it.

    Raises:
        SetupError: onnxruntime is not installed.
        BadSettings: CUDA or TensorRT is asked for, and this onnxruntime has none.
        NoDevice: `auto`, and there is a GPU that onnxruntime cannot use: a CPU in its place would silently be a hundred times slower.
        WeightsUnreadable: the file is no ONNX file, or cut off.
        WeightsMismatch: it is of another network.
        OutOfMemory: memory ran out.
    """

    def __init__(
        self,
        path: Path,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape | None],
        device: Literal["auto", "cpu", "cuda"],
        threads: int,
        operator: str,
        weight: str,
        tensorrt: bool = False,
    ) -> None:
        provider = _PROVIDERS[pick_device(device, operator, tensorrt)]
        providers = [(provider, _ALL_BITS if provider == _PROVIDERS["cuda"] else {})]
        if tensorrt:
            kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(path.parent / _ENGINES)}
            provider = _PROVIDERS["tensorrt"]
            providers.insert(0, (provider, kept))
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._path, self._operator, self._inputs, self._outputs = path, operator, inputs, outputs
        self._cure = cure = f"Run: egoworld models fetch {weight}"
        try:
            with out_of_memory(path, operator):
                self._session: Any = onnxruntime.InferenceSession(path, options, providers=providers)
        except (OutOfMemory, MemoryError):
            raise
        except Exception as error:  # onnxruntime's errors have no common base
            raise WeightsUnreadable(path, f"onnxruntime cannot read it: {error}", cure) from error
        if self._session.get_providers()[0] != provider:
            reason = f"onnxruntime took {self._session.get_providers()[0]} for {provider}: a library of CUDA or TensorRT is missing"
            raise NoDevice(f"stages.{operator}", reason, "See `egoworld doctor`, or set device to `cpu`")
        self.shapes: Mapping[str, tuple[Any, ...]] = {value.name: tuple(value.shape) for value in self._session.get_inputs()}
        """Of the inputs; what is not a number may vary."""
        found = tuple(value.name for value in self._session.get_outputs())
        self.outputs = tuple(outputs) or found
        """The names of what a call returns."""
        if not inputs.keys() <= self.shapes.keys() or not outputs.keys() <= set(found):
            raise self.another(f"it has inputs {sorted(self.shapes)} and outputs {sorted(found)}, want {list(inputs)} and {list(outputs)}")

    def __call__(self, **given: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the order of `outputs`.

        Raises:
            WeightsMismatch: it does not take what it is given, or its answers have other shapes.
            OutOfMemory: memory ran out.
        """
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        try:
            with out_of_memory(f"stages.{self._operator}", self._operator):
                found: list[Any] = self._session.run(list(self.outputs), given)
        except (InvalidArgument, ValueError) as error:
            raise self.another(str(error)) from error
        sizes = {word: n for name, shape in self._inputs.items() for word, n in zip(shape, given[name].shape, strict=True)}
        for (name, want), array in zip(self._outputs.items(), found, strict=bool(self._outputs)):
            if not _fits(array, want, sizes):
                raise self.another(f"its {name} is {getattr(array, 'shape', type(array).__name__)}, want {want or 'a number'}")
        return found

    def another(self, reason: str) -> WeightsMismatch:
        """The error of a file that is of another network."""
        return WeightsMismatch(self._path, f"this is another network: {reason}", self._cure)


def _fits(array: Any, want: Shape | None, sizes: dict[int | str, int]) -> bool:
    """Whether an answer is numbers in the shape that is wanted; words in it that have no number yet get it in `sizes`."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        return False
    if want is None or len(want) != array.ndim:
        return want is None and array.size == 1
    return all(n == (sizes.setdefault(word, n) if isinstance(word, str) else word) for word, n in zip(want, array.shape, strict=True))


@contextmanager
def out_of_memory(culprit: object, operator: str) -> Iterator[None]:
    """Turn the errors of exhausted memory, while a network of an operator `stage.backend` or what is around it works, into OutOfMemory."""
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _SIGNS_OF_EXHAUSTION):
            raise
        said = str(error) or type(error).__name__
        raise OutOfMemory(culprit, f"memory ran out in its network: {said}", f"Free memory, or lower sizes in stages.{operator}") from error


def pick_device(device: Literal["auto", "cpu", "cuda"], operator: str, tensorrt: bool = False) -> Literal["cpu", "cuda"]:
    """The device of an operator `stage.backend` by its setting `device`; `auto` is CUDA if there is one. Raises as `OnnxNetwork`."""
    setting = f"setting stages.{operator}"
    extras.require("onnxruntime", "onnx", operator)
    import onnxruntime

    wanted, there = auto_device() if device == "auto" else device, onnxruntime.get_available_providers()
    if _PROVIDERS[wanted] not in there:
        install = "Install onnxruntime-gpu in place of onnxruntime, or set device to `cpu`"
        if device == "auto":
            reason = f"this process sees an NVIDIA GPU, and onnxruntime {onnxruntime.__version__} cannot use it"
            raise NoDevice(f"stages.{operator}", reason, install)
        raise BadSettings(f"{setting}.device", f"it is `cuda`, and onnxruntime {onnxruntime.__version__} here has no CUDA", install)
    if tensorrt and (wanted == "cpu" or _PROVIDERS["tensorrt"] not in there):
        reason = "TensorRT is asked for, and " + ("the device is a CPU" if wanted == "cpu" else "this onnxruntime has none")
        raise BadSettings(f"{setting}.tensorrt", reason, "Install onnxruntime-gpu and TensorRT, or set tensorrt to false")
    return wanted
