"""What Dagster loads. Light: no model, no video library, no torch."""

import dagster as dg

from egoworld_assets.assets import ASSETS
from egoworld_assets.checks import CHECKS
from egoworld_assets.console import brief_console, json_console
from egoworld_assets.dead_letters_asset import dead_letters
from egoworld_assets.drift_asset import drift
from egoworld_assets.io import LakeIOManager
from egoworld_assets.jobs import JOBS
from egoworld_assets.release_asset import release
from egoworld_assets.resources import Egoworld, duckdb
from egoworld_assets.sensors import SENSORS

_egoworld = Egoworld()

defs = dg.Definitions(
    assets=[*ASSETS, dead_letters, drift, release],
    asset_checks=CHECKS,
    jobs=JOBS,
    sensors=SENSORS,
    resources={"egoworld": _egoworld, "lake": LakeIOManager(egoworld=_egoworld), "duckdb": duckdb},
    executor=dg.in_process_executor,
    loggers={"console": dg.colored_console_logger, "brief": brief_console, "json": json_console},
)
