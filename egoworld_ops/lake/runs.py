"""What the runs of a lake are, and in what two of them differ: configuration, and quality metrics clip by clip."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, SetupError, UnknownVideo, unreadable
from egoworld_ops.files import regular
from egoworld_ops.lake import counted, judging, memo, pointer, states
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.states import StageState
from egoworld_ops.naming import did_you_mean


def find(store: Lake, run_id: str) -> Run:
    """The run of that name; `latest` is that of the lake.

    Raises:
        SetupError: there is none.
    """
    if run_id == "latest":
        return latest(store)
    known = store.runs()
    for run in known:
        if run.run_id == run_id:
            return run
    raise SetupError(f"run {run_id}", f"is not in {store.root.absolute()}", did_you_mean(run_id, [r.run_id for r in known]))


def latest(store: Lake) -> Run:
    """The lake's latest run.

    Raises:
        SetupError: the lake has none, or does not say which it is.
        StorageUnavailable: that cannot be read now.
    """
    if (run := store.latest_run()) is not None:
        return run
    where, known = f"lake {store.root.absolute()}", [run.run_id for run in store.runs()]
    if not known:
        raise SetupError(where, "holds no run", "Process a video first: `egoworld process --all`, or `egoworld demo`")
    said = pointer.read(store.root)
    reason = f"its latest run, {said.run_id}, is gone" if said else "does not say which of its runs is the latest"
    raise SetupError(where, reason, f"Choose one: `egoworld runs use RUN`. {did_you_mean('', known)}")


def video_of(run: Run, wanted: str | None = None) -> str:
    """The video of a run that is meant: that of this name, or the only one whose name begins so; where none is named, the one last worked on.

    Raises:
        UnknownVideo: there is none, or several begin so.
        StorageUnavailable: the run's folder cannot be read now.
    """
    known = states.video_ids(run)
    if wanted in known:
        return str(wanted)
    if wanted is None and known:
        return max(known, key=lambda video_id: (_changed_ns(run, video_id), video_id))
    begin_so = [video_id for video_id in known if wanted and video_id.startswith(wanted)]
    if len(begin_so) == 1:
        return begin_so[0]
    reason = f"is the beginning of {len(begin_so)} videos" if begin_so else f"is not in run {run.run_id}"
    raise UnknownVideo(f"video {wanted or ''}".strip(), reason, did_you_mean(wanted or "", begin_so or known))


def _changed_ns(run: Run, video_id: str) -> int:
    """When the states of a video last changed; 0 where it has none."""
    state = memo.file_state(run.video_table("states", video_id))
    return state[2] if state else 0


def described(run: Run) -> dict[str, Any]:
    """What `run.json` says: settings, code, packages, weights, host.

    Raises:
        SetupError: it is not there, or damaged.
        StorageUnavailable: it is there and cannot be read now.
    """
    path = run.path / "run.json"
    try:
        said = json.loads(regular.read_bytes(path))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and (away := unreadable(error, path)) is not None:
            raise away from error
        raise SetupError(path, f"cannot be read: {error}", "Restore it, or remove the run's folder") from error
    if not isinstance(said, dict):
        raise SetupError(path, "is not an object", "Restore it, or remove the run's folder")
    return said


def contract_of(run: Run) -> str:
    """The version of the data contract that a run was made under; this one where its `run.json` names none.

    Raises:
        SetupError: its `run.json` cannot be read.
    """
    return str((described(run).get("frozen") or {}).get("schema", schema.SCHEMA_VERSION))


def counts(run: Run) -> dict[str, Counter[str]]:
    """By stage, `manifest` included: clips (videos) done, failed, dead letters, and stale, as the files have it; see `states.py`.

    A clip that a fallback backend has done is done. Videos whose manifest is damaged are left out: `egoworld verify` names them.

    Raises:
        StorageUnavailable: a file is there and cannot be read now.
    """
    found: dict[str, Counter[str]] = {stage: Counter() for stage in (states.MANIFEST, *operators.stages())}
    for video_id in states.video_ids(run):
        try:
            video = states.video_state(run, video_id)
        except ContractError:
            continue
        if video and (away := video.unreadable()) is not None:
            raise away
        for stage, state in video.all_states() if video else ():
            if (word := _counted_as(state)) is not None:
                found[stage][word] += 1
    return found


def _counted_as(state: StageState) -> str | None:
    """What `counts` calls a state; None where there is nothing to count."""
    if state.state == "failed" and state.failure is not None:
        return "dead letters" if state.failure.dead_letter else "failed"
    return state.state if state.state in ("done", "stale") else None


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by dots."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for name, inner in value.items() for k, v in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()}


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs; None where a side has none."""

    name: str
    a: Any
    b: Any


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The values in which two nested mappings differ, by name."""
    left, right = flat(a), flat(b)
    return [Difference(name, left.get(name), right.get(name)) for name in sorted({*left, *right}) if left.get(name) != right.get(name)]


def configuration(a: Run, b: Run) -> list[Difference]:
    """What of configuration, code and packages differs between two runs."""
    kept = ("frozen", "packages", "python", "git")
    left, right = described(a), described(b)
    return differences({k: left.get(k) for k in kept}, {k: right.get(k) for k in kept})


@dataclass(frozen=True, slots=True)
class ClipDifference:
    """A clip whose result in a stage is not the same in two runs; `metrics` are those that differ."""

    video_id: str
    clip_id: str
    stage: str
    metrics: list[Difference]


def results(a: Run, b: Run) -> Iterator[ClipDifference]:
    """Clips of both runs whose results that count have other digests, with the quality metrics of each side; and those only one run has."""
    import duckdb

    order = list(operators.stages())
    with duckdb.connect(":memory:") as connection:
        for video_id in sorted({*states.video_ids(a), *states.video_ids(b)}):
            sides = [(run, counted.that_count(run, video_id)) for run in (a, b)]
            keys = {key for _, digests in sides for key in digests if key[1] in order}
            for clip_id, stage in sorted(keys, key=lambda key: (order.index(key[1]), key[0])):
                if len({digests.get((clip_id, stage)) for _, digests in sides}) > 1:
                    paths = [[run.clip_table(stage, video_id, clip_id)] if (clip_id, stage) in digests else [] for run, digests in sides]
                    measured = [judging.measure(connection, stage, of_run) if of_run else {} for of_run in paths]
                    yield ClipDifference(video_id, clip_id, stage, differences(*measured))
