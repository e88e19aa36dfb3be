"""What goes wrong on a real host, done to a real pool on purpose: `python -m tests.gpu_workers.chaos`, or `make chaos`.

Each scenario is a function `(size, seed) -> figures` in a file of its own, which raises AssertionError where the pool does not hold; `scenarios`
lists them. Real processes, real sockets, no mocks. A seed is printed, and replays what was drawn; when it happens is the host's business.
"""
