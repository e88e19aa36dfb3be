"""What importing the definitions costs over importing Dagster itself: fresh processes, in turns.

    python -m benchmarks.bench_import

The best of each counts: what else the machine does can only slow an import down. Exits with 1 above the limit.
"""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 9
ALLOWED_S = 0.5
TIMED = "import time; started = time.perf_counter(); import {module}; print(time.perf_counter() - started)"


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
    return 0 if ours_s < limit_s else 1


if __name__ == "__main__":
    sys.exit(main())
