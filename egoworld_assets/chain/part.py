"""Which part of the chain a call goes through: its stages, each after those it reads."""

from __future__ import annotations

from dataclasses import dataclass

from egoworld_ops import operators
from egoworld_ops.errors import BadSettings
from egoworld_ops.execution.identity import inputs_of
from egoworld_ops.lake.states import MANIFEST
from egoworld_ops.naming import did_you_mean
from egoworld_ops.settings import Settings


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the chain.

    Args:
        first, last: stages from and up to which to go; None is the chain's own.
        clip_id: only this clip.
        anew: compute also existing results and dead letters again.
        dry: write nothing to the ledger and keep the latest run: what is stored is shown and deleted.
    """

    first: str | None = None
    last: str | None = None
    clip_id: str | None = None
    anew: bool = False
    dry: bool = False

    def stages(self, settings: Settings) -> list[str]:
        """The stages, each after those it reads with these settings.

        Raises:
            BadSettings: a name is not one of a stage, or the last comes before the first.
        """
        every = [MANIFEST, *operators.stages()]
        for name in (self.first, self.last):
            if name is not None and name not in every:
                raise BadSettings(f"stage {name}", "there is no such stage", did_you_mean(name, every))
        wanted = _below(self.first, settings) if self.first else every
        if self.last is not None:
            wanted = [name for name in wanted if name == self.last or self.last in _below(name, settings)]
        if not wanted:
            raise BadSettings(f"stages from {self.first} to {self.last}", "do not follow on each other", "Name the earlier one first")
        return wanted


def _below(stage: str, settings: Settings) -> list[str]:
    """A stage and all that read it, directly or not, in order."""
    if stage == MANIFEST:
        return [MANIFEST, *operators.stages()]
    reached = {stage}
    for name in operators.stages():
        if reached.intersection(inputs_of(name, settings)):
            reached.add(name)
    return [name for name in operators.stages() if name in reached]


ALL = Part()
