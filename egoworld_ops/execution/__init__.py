"""Everything a worker needs to compute one clip: the task, the executor, and the digest of a result."""
