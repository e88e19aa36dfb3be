"""What a worker needs to compute one clip: the task, the executor, and what makes two results the same."""
