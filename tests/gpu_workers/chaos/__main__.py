"""`python -m tests.gpu_workers.chaos [SCENARIO ...] [--seed N] [--size N | --small]`."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from tests.gpu_workers.chaos.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_workers.chaos", description="Do to the pool what goes wrong on real hosts.")
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"some of {', '.join(SCENARIOS)}; all where none is named")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="replay what was drawn with this seed")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=int, help="this many of each")
    size.add_argument("--small", action="store_true", help="as many as the tests do")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    print(f"seed {given.seed}", flush=True)
    return sum(not _run(name, given.size, given.small, given.seed) for name in given.names or SCENARIOS)


def _run(name: str, size: int | None, small: bool, seed: int) -> bool:
    """Whether it went well."""
    scenario, began = SCENARIOS[name], time.monotonic()
    size = size or (scenario.small if small else scenario.full)
    try:
        print(f"FIGURE {name}: {scenario.run(size, seed)}", flush=True)
    except Exception:
        traceback.print_exc()
        print(f"FAILED {name}: size {size}, seed {seed}, after {time.monotonic() - began:.0f} s", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
