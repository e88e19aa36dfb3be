"""The chain without Dagster: planning, settling, bookkeeping, storing."""
