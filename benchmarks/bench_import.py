"""The cost of importing the definitions over importing Dagster itself, and the cost for a step of asking every backend for its settings.

    python -m benchmarks.bench_import

Fresh processes, in turns. The best of each counts: other load can only slow an import down. Exits with 1 above a limit.
"""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 9
ALLOWED_S = 0.5
TIMED = "import time; started = time.perf_counter(); import {module}; print(time.perf_counter() - started)"
ALLOWED_BACKENDS_S, ALLOWED_BACKENDS_MB = 0.5, 100
BACKENDS = """
import time
from pathlib import Path
from egoworld_ops import operators
resident_mb = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
before_mb, started = resident_mb(), time.process_time()
for backend in [operators.load(stage, name) for stage in operators.stages() for name in operators.backends(stage)]:
    backend.weights(backend.Settings())
print(time.process_time() - started, resident_mb() - before_mb)
"""


def backends() -> tuple[float, float]:
    """Processor seconds and resident MB that loading every backend's class takes in a fresh process."""
    done = subprocess.run([sys.executable, "-c", BACKENDS], capture_output=True, text=True, check=True)
    taken_s, taken_mb = done.stdout.split()
    return float(taken_s), float(taken_mb)


def seconds(module: str) -> float:
    """Wall-clock seconds that importing a module takes in a fresh process."""
    done = subprocess.run([sys.executable, "-c", TIMED.format(module=module)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    modules = ("dagster", "egoworld_assets.definitions")
    for module in modules:
        seconds(module)
    taken = [[seconds(module) for module in modules] for _ in range(ROUNDS)]
    dagster_s, ours_s = (min(column) for column in zip(*taken, strict=True))
    limit_s = dagster_s + ALLOWED_S
    print(
        f"FIGURE import: definitions {ours_s:.2f} s, dagster alone {dagster_s:.2f} s (limit 1.0 x dagster + {ALLOWED_S} s = {limit_s:.2f} s)"
    )
    backends_s, backends_mb = min(backends() for _ in range(ROUNDS))
    print(
        f"FIGURE import: every backend, before it computes, {backends_s:.2f} s of processor and {backends_mb:.0f} MB "
        f"(limit {ALLOWED_BACKENDS_S} s and {ALLOWED_BACKENDS_MB} MB)"
    )
    return 0 if ours_s < limit_s and backends_s < ALLOWED_BACKENDS_S and backends_mb < ALLOWED_BACKENDS_MB else 1


if __name__ == "__main__":
    sys.exit(main())
