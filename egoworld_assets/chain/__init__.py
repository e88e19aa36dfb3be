"""The chain without Dagster: planning, settling, recording, storing."""
