"""A TensorFlow Lite network on ai-edge-litert: one image in, arrays out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_SCALE = np.float32(1 / 255)


class Network:
    """One loaded network with its own buffers. Not thread-safe.

    Args:
        path: the `.tflite` file.
        threads: threads of the XNNPACK delegate.
    """

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]
        self.size_px = int(self._input["shape"][1])

    def __call__(self, crop: np.ndarray) -> list[np.ndarray]:
        """The outputs, in the model's order and without the batch axis, for a (size_px, size_px, 3) uint8 image."""
        np.multiply(crop, _SCALE, out=self._interpreter.tensor(self._input["index"])()[0], dtype=np.float32)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(i)[0] for i in self._outputs]
