"""Run every benchmark, one after the other, and repeat their figures at the end: `make bench`, or `python -m benchmarks scenes import`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    names = sys.argv[1:] or sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py"))
    figures, failed = [], []
    for name in names:
        print(f"== {name}", flush=True)
        with subprocess.Popen([sys.executable, "-m", f"benchmarks.bench_{name}"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                print(line, end="", flush=True)
                figures += [line.strip()] if line.startswith("FIGURE") else []
        failed += [name] if process.returncode else []
    print("\n".join(["", "All figures:", *figures]))
    if failed:
        print(f"Missed or broken: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
