"""Geometry and images without any opinion on stages: SE(3), projection, hand frames, run-length masks."""
