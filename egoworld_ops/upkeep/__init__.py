"""Maintenance of a lake: finding damage, and removing what is no longer needed."""
