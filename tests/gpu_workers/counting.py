"""The runner of egoworld's own operators, which also counts how often each operator is built. For tests of what stays warm."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

from egoworld_ops.operators.base import Operator
from gpu_workers.runner import OperatorRunner

BUILT = Counter()


def _counted(cls, *arguments):
    BUILT[cls.__module__.rpartition("operators.")[2]] += 1
    return object.__new__(cls)


Operator.__new__ = _counted


class Counting(OperatorRunner):
    def __init__(self, threads):
        super().__init__(threads)
        self.code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

    def compute(self, prepared, job):
        table = super().compute(prepared, job)
        said = {"built": json.dumps(BUILT), "pid": str(os.getpid()), "frames": str(job.frames)}
        return table.replace_schema_metadata((table.schema.metadata or {}) | said)
