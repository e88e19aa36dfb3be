"""egoworld_assets: the Dagster side. The only package that imports Dagster."""
