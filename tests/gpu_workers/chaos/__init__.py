"""Faults of a real host, injected into a real pool: `python -m tests.gpu_workers.chaos`, or `make chaos`.

Each scenario is a function `(size, seed) -> figures` in a file of its own, which raises AssertionError where the pool does not hold; `scenarios`
lists them. Real processes, real sockets, no mocks. A seed is printed, and repeats the random choices; the moments are up to the host.
"""
