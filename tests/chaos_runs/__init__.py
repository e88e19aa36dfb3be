"""What a host can do to a run, done to real runs on purpose: `python -m tests.chaos_runs`, or `make chaos-runs`.

Each scenario is a function `(size, seed) -> figures` in a file of its own, which raises AssertionError where a run does not hold. A seed is printed
and replays what was drawn; when a kill hits is the host's business.
"""
