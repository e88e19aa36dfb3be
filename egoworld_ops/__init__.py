"""egoworld_ops: the pure code of every stage. No Dagster, no sockets; numpy and pyarrow in, pyarrow out."""
