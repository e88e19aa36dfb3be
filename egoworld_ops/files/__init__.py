"""Atomic files: writing, locking, sealing, and tables with their provenance."""
