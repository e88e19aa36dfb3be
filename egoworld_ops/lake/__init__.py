"""The folder of Parquet the stages write: runs, what counts in them, and the failures on record."""
