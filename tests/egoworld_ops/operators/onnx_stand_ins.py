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


def simcc_of_colours(path: Path, colours: np.ndarray) -> Path:
    """A network of points that finds each where the picture has its colour: the answers (1, K, 512) of RTMPose, from 0 to 1, two to a pixel.

    Args:
        colours: (K, 3) as the network is shown them, that is normalised.
    """
    n = len(colours)
    fixed = {
        "colours": colours.reshape(n, 3, 1, 1).astype(np.float32),
        "channel": np.array([1], np.int64),
        "nearness": np.array(-8.0, np.float32),
        "apart": np.array([n, 256, 1], np.int64),
        "twice": np.array([1, 1, 2], np.int64),
        "answers": np.array([1, n, 512], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["input", "colours"], ["off"]),
        helper.make_node("Mul", ["off", "off"], ["squared"]),
        helper.make_node("ReduceSum", ["squared", "channel"], ["distance"], keepdims=0),
        helper.make_node("Mul", ["distance", "nearness"], ["scaled"]),
        helper.make_node("Exp", ["scaled"], ["near"]),
    ]
    for axis, name in ((1, "simcc_x"), (2, "simcc_y")):
        nodes += [
            helper.make_node("ReduceMax", ["near"], [f"{name}_best"], axes=[axis], keepdims=0),
            helper.make_node("Reshape", [f"{name}_best", "apart"], [f"{name}_apart"]),
            helper.make_node("Tile", [f"{name}_apart", "twice"], [f"{name}_twice"]),
            helper.make_node("Reshape", [f"{name}_twice", "answers"], [name]),
        ]
    graph = helper.make_graph(
        nodes,
        "simcc_of_colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, 256, 256))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, n, 512)) for name in ("simcc_x", "simcc_y")],
        [numpy_helper.from_array(value, name) for name, value in fixed.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path
