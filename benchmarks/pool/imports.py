"""The cost of importing the pool's client once pyarrow is loaded: fresh processes, with byte code compiled beforehand, the best of them.

The processor time of the importing thread is measured, which equals wall-clock time while no thread waits for a core; that of the whole process
includes threads that pyarrow and numpy started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.pool.figures import Figure

ROUNDS = 40
ALLOWED_MS = 5.0
_TIMED = """
import time
started = time.thread_time()
import pyarrow
between = time.thread_time()
import gpu_workers.client
print(between - started, time.thread_time() - between)
"""


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="egoworld-bench-") as compiled:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": compiled}
        _milliseconds(environment)
        pyarrow_ms, client_ms = (min(column) for column in zip(*(_milliseconds(environment) for _ in range(ROUNDS)), strict=True))
    text = f"import of the client: {client_ms:.1f} ms on top of pyarrow's {pyarrow_ms:.0f} ms (limit {ALLOWED_MS:.0f} ms)"
    yield Figure(text, client_ms <= ALLOWED_MS)


def _milliseconds(environment: dict[str, str]) -> list[float]:
    """Times of importing pyarrow, and then the client."""
    done = subprocess.run([sys.executable, "-c", _TIMED], env=environment, capture_output=True, text=True, check=True)
    return [float(word) * 1e3 for word in done.stdout.split()]
