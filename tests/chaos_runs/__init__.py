"""Faults of a host, injected into real runs: `python -m tests.chaos_runs`, or `make chaos-runs`.

Each scenario is a function `(size, seed) -> figures` in a file of its own, which raises AssertionError where a run does not hold. A seed is printed
and repeats the random choices; the moment at which a kill hits is up to the host.
"""
