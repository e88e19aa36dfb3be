"""Geometry and images, independent of stages: SE(3), projection, hand frames, run-length masks."""
