"""Releases: runs compacted into few large files, each owned frame once."""
