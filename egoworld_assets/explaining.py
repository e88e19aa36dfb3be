"""Why would a clip be computed? Because what its result depends on differs from what the nearest result was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from egoworld_assets.planning import Planner, StageResult
from egoworld_ops import lake, runs
from egoworld_ops.errors import SetupError
from egoworld_ops.lake import Run
from egoworld_ops.settings import Settings


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the next materialization would do with a clip.

    Args:
        verdict: one sentence.
        nearest: the result that comes closest: at the clip's place in this run, else in the newest other run; None where there is none.
        differences: `a` is what that result was made from, `b` what is wanted.
    """

    verdict: str
    nearest: Path | None
    differences: list[runs.Difference]


def explain(run: Run, settings: Settings, video_id: str, clip_id: str, stage: str) -> Explanation:
    """Whether a clip's result is there, and if it is not, why.

    Raises:
        SetupError: there is no such clip.
    """
    planner = Planner(run, stage, settings, anew=True)
    planned = next(planner.plan(video_id, clip_id), None)
    if planned is None:
        raise SetupError(f"clip {clip_id}", f"is not in video {video_id} of run {run.run_id}", "`SELECT clip_id FROM clips` lists them")
    if isinstance(planned, StageResult):
        reason = planned.error or "an input from further up is missing: explain the stages above"
        return Explanation(f"cannot be computed: {reason}", None, [])
    places = [r.clip_table(stage, video_id, clip_id) for r in (run, *(other for other in run.lake.runs() if other.run_id != run.run_id))]
    there = [p for p in places if lake.digest_at(p) is not None]
    for path in there:
        if lake.digest_at(path) == planned.key:
            return Explanation(
                "done: nothing is computed" if path == places[0] else "linked from another run: nothing is computed", path, []
            )
    if not there:
        return Explanation("computed: no run has a result for this clip", None, [])
    made_from = (lake.provenance(there[0]) or {}).get("identity", {})
    return Explanation("computed: what it depends on has changed", there[0], runs.differences(made_from, planner.identity(planned)))
