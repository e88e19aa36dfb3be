"""The worker pool against its targets, with a real broker and simulated GPUs: `make bench-pool`.

    python -m benchmarks.pool [duty] [overhead] [memory] [imports] [gil]

Without names all parts run, in about four minutes. Each compares runs on this machine at this time; exits with 1 where a limit is missed. Other work
on the machine takes the processor from decoders, broker and clients, and shows.
"""

from __future__ import annotations

import os
import sys

from benchmarks.pool import duty, gil, imports, memory, overhead

PARTS = {"duty": duty, "overhead": overhead, "memory": memory, "imports": imports, "gil": gil}


def main() -> int:
    found = []
    for name in sys.argv[1:] or PARTS:
        print(f"== {name}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        for figure in PARTS[name].figures():
            print(figure, flush=True)
            found.append(figure)
    missed = sum(not figure.met for figure in found)
    print(f"{missed} targets missed" if missed else "All targets met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
