"""Runs the scenarios, all or those that are named, and prints a line of figures for each."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.chaos_runs import scenarios
from tests.chaos_runs.full_disk import Unmounted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(scenarios.ALL)}; all where none is given")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--size", type=int, help="instead of the full counts")
    asked = parser.parse_args()
    if strange := set(asked.names) - scenarios.ALL.keys():
        parser.error(f"no scenario {', '.join(sorted(strange))}")
    print(f"seed {asked.seed}", flush=True)
    broken = 0
    for name in asked.names or scenarios.ALL:
        scenario = scenarios.ALL[name]
        try:
            print(f"FIGURE {name}: {scenario.run(asked.size or scenario.full, asked.seed)}", flush=True)
        except Unmounted as error:
            print(f"FIGURE {name}: not run, this user may not mount a file system: {error}", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"BROKEN {name}, seed {asked.seed}", flush=True)
            broken += 1
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
