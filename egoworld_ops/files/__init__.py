"""Files that are there whole or not at all: writing, locking, sealing, and tables with their provenance."""
