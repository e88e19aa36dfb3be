"""Where the rows of a clip in a stage come from: the result itself and all that it was made of, as their files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from egoworld_ops.lake import states
from egoworld_ops.lake.lake import Run


@dataclass(frozen=True, slots=True)
class Origin:
    """What one result says of its making; what it does not say is empty.

    Args:
        state: of the clip in the stage, as `states.py` has it.
        made_in: the run that computed it; another than its own where it was linked from there.
        operator: backend, version, settings and SHA-256 of weights.
        inputs: digests of the tables it was made of, by stage.
        other: all else of its identity: video, decoding, frames, camera, sidecar.
    """

    stage: str
    state: str
    digest: str
    rows: int | None
    made_in: str
    made_at: str
    host: str
    seconds: float | None
    operator: Mapping[str, Any]
    inputs: Mapping[str, str]
    other: Mapping[str, Any]


def of_clip(run: Run, video_id: str, clip_id: str, stage: str) -> list[Origin]:
    """The origin of a clip's result in a stage, and after it those of all stages before it, the nearest first."""
    found = states.clip_states(run, video_id, clip_id)
    return [_origin(name, found[name]) for name in (stage, *reversed(states.upstream(stage))) if name in found]


def of_every_stage(run: Run, video_id: str, clip_id: str) -> list[Origin]:
    """The origin of each result of a clip, in the order of the stages."""
    return [_origin(stage, state) for stage, state in states.clip_states(run, video_id, clip_id).items()]


def _origin(stage: str, state: states.StageState) -> Origin:
    said = state.said
    identity = _mapping(said.get("identity"))
    made = {name: str(said.get(key, "")) for name, key in (("made_in", "run_id"), ("made_at", "created_at"), ("host", "host"))}
    other = {name: value for name, value in identity.items() if name not in ("operator", "inputs")}
    seconds = said.get("seconds")
    return Origin(
        stage,
        state.state,
        state.digest or "",
        state.rows,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        operator=_mapping(identity.get("operator")),
        inputs={str(name): str(digest) for name, digest in _mapping(identity.get("inputs")).items()},
        other=other,
        **made,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
