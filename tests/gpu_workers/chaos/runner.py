"""The toy runner, but its table says nothing of process and time: equal keys have equal bytes."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).resolve().parents[1] / "toy.py")
_toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_toy)


class Plain(_toy.Toy):
    def compute(self, task, job):
        return super().compute(task, job).select(["key", "filler"])
