"""Resources: settings and, lazily, what they lead to (the run, the pool). Building one touches neither disk nor network."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from egoworld_assets.chain import pipeline
from egoworld_ops.lake.lake import Run
from gpu_workers.inline import InlinePool
from gpu_workers.pool import Pool

if TYPE_CHECKING:
    from egoworld_ops.settings import Settings

_INLINE: dict[int, Pool] = {}


class Egoworld(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings of this deployment, the run they write to, and the pool that does the work."""

    profile: str | None = Field(default=None, description="Profile: a name, or a TOML file; EGOWORLD_PROFILE, else laptop")

    _settings: Any = PrivateAttr(default=None)

    @property
    def settings(self) -> "Settings":
        """The settings, read once."""
        from egoworld_ops.settings import load_settings

        if self._settings is None:
            self._settings = load_settings(self.profile)
        chosen: Settings = self._settings
        return chosen

    def run(self) -> Run:
        """The run these settings write to; made where there is none."""
        return pipeline.open_run(self.settings)

    def pool(self, name: str = "", priority: int = 0) -> Pool:
        """The pool that the settings choose.

        Args:
            name: who asks.
            priority: higher goes first in a pool that is shared.
        """
        from gpu_workers.broker_pool import BrokerPool

        chosen = self.settings.pool
        if chosen.kind == "broker":
            return BrokerPool(chosen, name, priority)
        return _INLINE.setdefault(chosen.threads, InlinePool(chosen.threads))  # one a process: operators stay warm from step to step
