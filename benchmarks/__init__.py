"""Benchmarks: each prints ratios against a reference run beside it, as lines that start with FIGURE."""
