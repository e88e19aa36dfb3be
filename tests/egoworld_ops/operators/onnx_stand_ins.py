"""ONNX files with the inputs and outputs of published networks, whose answers a test knows. Made of ONNX's own nodes: onnxruntime runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


def constant(path: Path, inputs: Mapping[str, tuple[tuple[int | str, ...], type]], outputs: Mapping[str, np.ndarray]) -> Path:
    """A file that answers the same whatever it is shown.

    Args:
        inputs: shape and type of each; a word in a shape stands for any number.
        outputs: what it says.
    """
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)) for name, value in outputs.items()]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info(name, _TYPES[np.dtype(kind)], shape) for name, (shape, kind) in inputs.items()],
        [helper.make_tensor_value_info(name, _TYPES[value.dtype], value.shape) for name, value in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path
