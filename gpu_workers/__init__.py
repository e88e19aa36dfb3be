"""gpu_workers: pools that run clips through operators. May import egoworld_ops; never Dagster."""
