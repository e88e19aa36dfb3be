"""Which other runs of the lake have the results that are wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

from egoworld_ops.lake import counted
from egoworld_ops.lake.lake import Run


@dataclass(slots=True)
class Elsewhere:
    """Which other runs have results of a video in a stage: runs by clip and digest, newest first; and the runs whose table `states` has no answer."""

    video_id: str
    with_result: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    untold: list[Run] = field(default_factory=list)

    def add(self, run: Run, stage: str) -> None:
        """One more run."""
        digests = counted.digests_of(run, self.video_id, stage)
        if digests is None and run.video_folder(self.video_id).is_dir():
            self.untold.append(run)
        for result in (digests or {}).items():
            self.with_result.setdefault(result, []).append(run)
