"""What machines watch: the platform's metrics for Prometheus, and alerts that leave Dagster."""
