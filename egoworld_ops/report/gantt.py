"""A run's timeline as text: a Gantt chart of its devices, where their time went, and what the clips of each stage waited for."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from egoworld_ops import operators
from egoworld_ops.lake.states import MANIFEST
from egoworld_ops.lake.timeline import IDLE, OTHER, WAITS, Lanes, Stretch, Work, active_s, lanes

SIGNS = {"starting": "^", "starved_decode": "~", "starved_clips": ".", "blocked": "x", "idle": " ", OTHER: "-"}
SAID = {
    "starting": "loading",
    "starved_decode": "decoding",
    "starved_clips": "no clips",
    "blocked": "not taken",
    "idle": "nobody asks",
    OTHER: "other",
}
"""What a device waited for: its worker and models, a clip's pictures, clips, clients that take results; or nobody asked."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def lines(works: Sequence[Work], run_id: str, width: int = 100) -> Iterator[str]:
    """The whole page.

    Args:
        works: of the run; those that other runs computed are counted, not drawn.
        width: of the chart, columns.
    """
    own = [work for work in works if work.run_id == run_id]
    taken = len(works) - len(own)
    others = f"; {taken} results were taken from other runs" if taken else ""
    if not own:
        yield f"run {run_id}: nothing was computed in it{others}"
        return
    began_at = min(work.asked_at for work in own)
    videos = len({work.video_id for work in own})
    said = f"{len(own)} results of {videos} video{'s' * (videos != 1)} in {timedelta(seconds=round(active_s(own)))} of work"
    yield f"run {run_id}: {said}, from {began_at:%Y-%m-%d %H:%M:%S} UTC{others}"
    yield ""
    drawn = lanes(own)
    there = {work.stage for work in own}
    letters = dict(zip((stage for stage in (MANIFEST, *operators.stages()) if stage in there), LETTERS, strict=False))
    yield from _chart(drawn, letters, width)
    yield ""
    yield from _table(("device", "computing", *(SAID[cause] for cause in (*IDLE, OTHER))), [_shares(d, of) for d, of in _named(drawn)])
    yield ""
    yield from _table(
        ("stage", "clips", "failed", "computing", "median", "longest", *WAITS, "longest clip"),
        [_of_stage(stage, [w for w in own if w.stage == stage]) for stage in letters],
    )


def _named(drawn: Lanes) -> list[tuple[str, Sequence[Stretch]]]:
    """Devices by name, with that of the host where there are several."""
    several = len({host for host, _ in drawn}) > 1
    return [(f"{host}/{device}" if several else device, of) for (host, device), of in drawn.items()]


def _chart(drawn: Lanes, letters: dict[str, str], width: int) -> Iterator[str]:
    began_at = min(of[0].began_at for of in drawn.values())
    ended_at = max(of[-1].ended_at for of in drawn.values())
    names = [name for name, _ in _named(drawn)]
    edge = max(map(len, names))
    yield f"{'':{edge}}  {began_at:%H:%M:%S}{f'{ended_at:%H:%M:%S}':>{width - 8}}"
    for name, of in _named(drawn):
        yield f"{name:{edge}}  {_row(of, began_at, ended_at, letters, width)}".rstrip()
    yield ""
    yield "  ".join(f"{letter} {stage}" for stage, letter in letters.items())
    seen = {stretch.what for of in drawn.values() for stretch in of}
    yield "  ".join(f"{sign if sign.strip() else 'blank'} {SAID[what]}" for what, sign in SIGNS.items() if what in seen)


def _row(of: Sequence[Stretch], began_at: datetime, ended_at: datetime, letters: dict[str, str], width: int) -> str:
    """One sign a column: of what the device did in most of it."""
    column_s = max((ended_at - began_at).total_seconds() / width, 1e-3)
    columns: list[dict[str, float]] = [defaultdict(float) for _ in range(width)]
    for stretch in of:
        sign = letters.get(stretch.what) or SIGNS.get(stretch.what, "?")
        start, end = ((at - began_at).total_seconds() / column_s for at in (stretch.began_at, stretch.ended_at))
        for column in range(max(0, int(start)), min(width, math.ceil(end))):
            columns[column][sign] += min(end, column + 1) - max(start, column)
    return "".join(max(found, key=lambda sign: found[sign]) if found else " " for found in columns)


def _shares(device: str, of: Sequence[Stretch]) -> tuple[str, ...]:
    total = sum(stretch.seconds for stretch in of) or 1.0
    spent: dict[str, float] = defaultdict(float)
    for stretch in of:
        spent[stretch.what if stretch.work is None else "computing"] += stretch.seconds
    return (device, *(f"{spent[what]:.0f} s {spent[what] / total:4.0%}" for what in ("computing", *IDLE, OTHER)))


def _of_stage(stage: str, works: Sequence[Work]) -> tuple[str, ...]:
    seconds = [work.seconds for work in works]
    longest = max(works, key=lambda work: work.seconds)
    waits = (f"{statistics.median(work.waited_s[wait] for work in works):.1f} s" for wait in WAITS)
    return (
        stage,
        str(len(works)),
        str(sum(work.failed for work in works)),
        f"{sum(seconds):.1f} s",
        f"{statistics.median(seconds):.2f} s",
        f"{longest.seconds:.2f} s",
        *waits,
        f"{longest.video_id} {longest.clip_id}".strip(),
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
