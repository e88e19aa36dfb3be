"""Resources: the settings, and lazily the run and the pool that they name. Building one touches neither disk nor network."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from egoworld_assets.chain import configuration
from egoworld_ops import logs
from egoworld_ops.errors import BadSettings
from egoworld_ops.lake.lake import Run
from gpu_workers.pool import Pool, make

if TYPE_CHECKING:
    from dagster_duckdb import DuckDBResource

    from egoworld_ops.settings import Settings

PROFILE_TAG = "egoworld/profile"
BACKFILL_TAG = "dagster/backfill"
ASSET_JOB = "__ASSET_JOB"
"""Dagster's name for the job of runs that materialize chosen assets; a backfill of such runs keeps its run config when it is re-executed."""


def chosen_profile(configured: str | None, run: dg.DagsterRun | None) -> str | None:
    """The profile of a run: that of its tag, which every kind of re-execution keeps, else that of the resource's configuration.

    Raises:
        BadSettings: the two differ; or the run belongs to a backfill of a job, whose configuration Dagster loses on re-execution.
    """
    tagged = run.tags.get(PROFILE_TAG) if run else None
    if configured and tagged and configured != tagged:
        raise BadSettings(
            f"run tag {PROFILE_TAG}", f"names {tagged}, and the run config {configured}", "Name one profile; the tag suffices"
        )
    if run and configured and not tagged and BACKFILL_TAG in run.tags and run.job_name != ASSET_JOB and _from_run_config(run):
        reason = f"is named by the run config alone ({configured}), which Dagster loses when the backfill of a job is re-executed"
        raise BadSettings("the profile", reason, f"Launch it with the tag {PROFILE_TAG}={configured} instead")
    return tagged or configured


def profile_tags(profile: str | None) -> dict[str, str]:
    """The run tags that name a profile; the path of a file is made absolute."""
    if not profile:
        return {}
    return {PROFILE_TAG: profile if profile.isidentifier() else str(Path(profile).absolute())}


def _from_run_config(run: dg.DagsterRun) -> bool:
    given: Any = run.run_config
    return bool(given.get("resources", {}).get("egoworld", {}).get("config", {}).get("profile"))


class Egoworld(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings of this deployment, the run they write to, and the pool that does the work."""

    profile: str | None = Field(
        default=None, description=f"Profile: a name, or a TOML file; EGOWORLD_PROFILE, else laptop. The run tag {PROFILE_TAG} says it too."
    )

    _settings: Any = PrivateAttr(default=None)
    _dagster_run: dg.DagsterRun | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Remember the Dagster run: its tags may name the profile."""
        self._dagster_run, self._settings = context.run, None

    @property
    def settings(self) -> "Settings":
        """The settings, read once."""
        from egoworld_ops.settings import load_settings

        if self._settings is None:
            self._settings = load_settings(chosen_profile(self.profile, self._dagster_run))
            logs.configure(self._settings.logs)
        chosen: Settings = self._settings
        return chosen

    def run(self) -> Run:
        """The run these settings write to; made where there is none."""
        return configuration.open_run(self.settings)

    def pool(self, name: str = "", priority: int = 0) -> Pool:
        """The pool that the settings choose.

        Args:
            name: who asks.
            priority: higher goes first in a pool that is shared.
        """
        return make(self.settings.pool, name, priority)


@dg.resource(
    required_resource_keys={"egoworld"},
    description="A DuckDBResource on egoworld.duckdb of the run's lake, read-only: views of what counts. For checks and for assets of your own.",
)
def duckdb(context: dg.InitResourceContext) -> "DuckDBResource":
    """The lake's catalog. Created when a step asks for it: only then the lake is known, and loading stays quick."""
    from egoworld_assets.catalog import Catalog
    from egoworld_ops.query.views import FILE_NAME

    path = context.resources.egoworld.settings.lake / FILE_NAME
    return Catalog(database=str(path.absolute()), connection_config={"access_mode": "READ_ONLY"})
