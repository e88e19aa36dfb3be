"""Checks that table `states` of a video matches the video's files: all SQL queries rely on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from egoworld_ops.errors import ContractError
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import counted, memo, metrics
from egoworld_ops.lake.lake import Run

_COUNT_AGAIN = "Materialize the stages of the video: nothing is computed for it, and its states are counted"
_DELETE = f"Delete it, then m{_COUNT_AGAIN[1:]}"
_FACTS = ("digest", "rows", "error_class", "dead_letter")


def check_metrics(run: Run, video_id: str) -> list[ContractError]:
    """What is wrong with the file of table `metrics` of a video; it need not be there.

    Raises:
        StorageUnavailable: it cannot be read now.
    """
    path = run.video_folder(video_id) / f"{metrics.TABLE}.parquet"
    try:
        if memo.file_state(path) is not None:
            read_table(path, metrics.TABLE)
    except ContractError as error:
        return [ContractError(path, error.reason, "Delete it: `egoworld runs show RUN` measures the video again")]
    return []


def check_states(run: Run, video_id: str) -> list[ContractError]:
    """All differences between table `states` of a video and the video's files; what cannot be read now is left out.

    Raises:
        StorageUnavailable: the table, or the manifest, cannot be read now.
    """
    try:
        path = run.video_table(counted.TABLE, video_id)
    except ValueError:  # no video can have that name: nothing was ever counted for it
        return []
    are = counted.as_it_is(run, video_id)
    if memo.file_state(path) is None:
        return [ContractError(path, "is not there: the views show nothing of the video", _COUNT_AGAIN)] if are else []
    try:
        rows = read_table(path, counted.TABLE).to_pylist()
    except ContractError as error:
        return [ContractError(path, error.reason, _DELETE)]
    said = {(row["clip_id"], row["stage"]): row for row in rows}
    reasons = list(_differences(said, are))
    if len(said) < len(rows):
        reasons.append(f"holds {len(rows)} rows of {len(said)} clips and stages")
    return [ContractError(path, reason, _DELETE) for reason in reasons]


def _differences(said: counted.Rows, are: counted.Rows) -> Iterator[str]:
    """One sentence per stage and kind of difference: whole stages may differ."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for clip_id, stage in sorted(said.keys() | are.keys()):
        for says, of in _of_row(said.get((clip_id, stage)), are.get((clip_id, stage))):
            found[stage, says, of].append(clip_id)
    for (stage, says, of), clip_ids in found.items():
        clips = f" of clip {clip_ids[0]}" if clip_ids[0] != counted.WHOLE_VIDEO else ""
        others = f" and {len(clip_ids) - 1} more" if len(clip_ids) > 1 else ""
        yield f"{says} {stage}{clips}{others}, {of}"


def _of_row(said: Mapping[str, Any] | None, is_now: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if is_now is None:
        yield "has a row of", "and there is no such clip or stage"
    elif is_now["state"] == "unreadable":
        return
    elif said is None:
        yield "has no row of", f"which is {is_now['state']}"
    elif said["state"] != is_now["state"]:
        yield f"says {said['state']} of", f"which is {is_now['state']}"
    elif wrong := [name for name in _FACTS if said[name] != is_now[name]]:
        yield f"says {' and '.join(wrong)} of", "and the files say otherwise"
