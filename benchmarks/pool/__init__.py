"""The worker pool against its targets: a real broker and real workers, whose GPUs are simulated. `python -m benchmarks.pool`."""
