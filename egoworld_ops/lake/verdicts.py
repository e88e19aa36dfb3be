"""Table `verdicts`, one file in the lake: what people said of clips. Rows are added and never changed, so the history stays.

A verdict is on the results that the judge saw. Once other results count for the clip it no longer stands, like a truth card on other rows.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, SetupError
from egoworld_ops.files import locks
from egoworld_ops.files.tables import read_table, write_table
from egoworld_ops.files.whole import make_folder, named_errors, sweep
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake import counted
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.types import check_id
from egoworld_ops.verdict_words import VERDICT_WORDS, VerdictWord

TABLE = "verdicts"
MOST_WHY, MOST_JUDGE = 2000, 80
_NOTHING = sha256_of({})
"""Of a clip none of whose results counts."""
_CURE = "Mend the line, or leave it out"
_RESTORE = "Restore it from a copy, or move it away, which loses the history, and import what `egoworld verdicts export` wrote"

ClipKey = tuple[str, str]
"""video_id and clip_id."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one judge said at one time.

    Args:
        frame_start, frame_end: `[frame_start, frame_end)`; None both where the whole clip is meant.
        results: digest of what was judged, see `results_of`.

    Raises:
        ValueError: on making one that no lake holds.
    """

    verdict_id: str
    run_id: str
    video_id: str
    clip_id: str
    frame_start: int | None
    frame_end: int | None
    verdict: VerdictWord
    why: str | None
    judge: str
    judged_at: datetime
    results: str

    def __post_init__(self) -> None:
        for name in ("verdict_id", "run_id", "video_id", "clip_id"):
            check_id(name, getattr(self, name))
        if self.verdict not in VERDICT_WORDS:
            raise ValueError(f"verdict: want one of {', '.join(VERDICT_WORDS)}, got {self.verdict!r}")
        if not self.judge.strip() or len(self.judge) > MOST_JUDGE or not self.judge.isprintable():
            raise ValueError(f"judge: want 1 to {MOST_JUDGE} printable characters, got {self.judge[:MOST_JUDGE]!r}")
        if len(self.why or "") > MOST_WHY:
            raise ValueError(f"why: want at most {MOST_WHY} characters, got {len(self.why or '')}")
        if (self.frame_start is None) != (self.frame_end is None):
            raise ValueError("frames: want both ends, or neither for the whole clip")
        if self.frame_start is not None and self.frame_end is not None and not 0 <= self.frame_start < self.frame_end:
            raise ValueError(f"frames: want 0 <= frame_start < frame_end, got {self.frame_start}, {self.frame_end}")

    @property
    def clip(self) -> ClipKey:
        """Which clip it is on."""
        return self.video_id, self.clip_id

    @property
    def frames(self) -> tuple[int | None, int | None]:
        """Which frames it is on."""
        return self.frame_start, self.frame_end

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as `from_json` takes them."""
        return asdict(self) | {"judged_at": self.judged_at.isoformat(timespec="milliseconds")}

    @classmethod
    def from_json(cls, said: Any) -> Verdict:
        """What `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            at = datetime.fromisoformat(said["judged_at"])
            frames = {name: said[name] if said[name] is None else int(said[name]) for name in ("frame_start", "frame_end")}
            words = {name: str(said[name]) for name in ("verdict_id", "run_id", "video_id", "clip_id", "verdict", "judge", "results")}
            why = said["why"] if said["why"] is None else str(said["why"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"is no verdict: {error!r}") from error
        if at.tzinfo is None:
            raise ValueError("judged_at: want a time with its zone")
        return cls(**words, **frames, why=why, judged_at=at.astimezone(UTC))  # type: ignore[arg-type]  # the word is checked


def new(run: Run, clip: ClipKey, verdict: str, why: str, judge: str, frames: tuple[int | None, int | None] = (None, None)) -> Verdict:
    """A verdict of now on what counts now.

    Raises:
        ValueError: as `Verdict`.
        StorageUnavailable: what counts cannot be told now.
    """
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    name = f"{int(now.timestamp() * 1000):012x}-{secrets.token_hex(6)}"
    results = results_of(run, clip[0]).get(clip[1], _NOTHING)
    return Verdict(name, run.run_id, *clip, *frames, verdict, why.strip() or None, judge.strip(), now, results)  # type: ignore[arg-type]  # checked


def results_of(run: Run, video_id: str) -> dict[str, str]:
    """By clip of a video, what tells its results that count: SHA-256 over their digests.

    Raises:
        StorageUnavailable: that cannot be told now.
    """
    by_clip: dict[str, dict[str, str]] = {}
    for (clip_id, stage), digest in counted.that_count(run, video_id).items():
        if clip_id:
            by_clip.setdefault(clip_id, {})[stage] = digest
    return {clip_id: sha256_of(digests) for clip_id, digests in by_clip.items()}


def path(store: Lake) -> Path:
    """Where the table lies."""
    return store.root / TABLE / f"{TABLE}.parquet"


def read(store: Lake) -> list[Verdict]:
    """All verdicts, in the order in which they were given.

    Raises:
        ContractError: the file is damaged.
        StorageUnavailable: it cannot be read now.
    """
    place = path(store)
    with named_errors(place):
        there = place.exists()
    try:
        return [Verdict(**row) for row in read_table(place, TABLE).to_pylist()] if there else []
    except (ContractError, TypeError, ValueError) as error:
        reason = error.reason if isinstance(error, ContractError) else f"holds what is no verdict: {error}"
        raise ContractError(place, reason, _RESTORE) from error


def add(store: Lake, verdicts: Iterable[Verdict]) -> int:
    """Add verdicts to the history, but for those it has; returns how many were added. Safe against other processes doing the same.

    Raises:
        ContractError: the file is damaged; it stays as it is.
        StorageUnavailable: the storage refuses; likewise.
    """
    with _lock(store):
        known = {verdict.verdict_id: verdict for verdict in read(store)}
        added = {verdict.verdict_id: verdict for verdict in verdicts if verdict.verdict_id not in known}
        if added or not path(store).exists():
            rows = [asdict(verdict) for verdict in (known | added).values()]
            write_table(path(store), TABLE, schema.from_rows(TABLE, rows), {})
    return len(added)


def ensure(store: Lake) -> None:
    """Write an empty table where there is none."""
    with named_errors(path(store)):
        there = path(store).exists()
    if not there:
        add(store, ())


def standing(run: Run, verdicts: Iterable[Verdict]) -> dict[ClipKey, list[Verdict]]:
    """The verdicts on a run's clips that stand: on the results that count now, and the last of each judge on the same frames.

    Raises:
        StorageUnavailable: what counts cannot be told now.
    """
    last = {(v.clip, v.judge, v.frames): v for v in verdicts if v.run_id == run.run_id}
    results = {video_id: results_of(run, video_id) for video_id in {v.video_id for v in last.values()}}
    found: dict[ClipKey, list[Verdict]] = {}
    for verdict in last.values():
        if results[verdict.video_id].get(verdict.clip_id, _NOTHING) == verdict.results:
            found.setdefault(verdict.clip, []).append(verdict)
    return found


def word(of_clip: Collection[Verdict]) -> VerdictWord | None:
    """The verdict on a clip: the worst of those that stand; None where there is none. One on some of its frames counts as one on it."""
    return next((word for word in VERDICT_WORDS if any(v.verdict == word for v in of_clip)), None)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judges agree on whole clips that both judged.

    Args:
        n: clips that both judged.
        same: of these, those of which they said the same.
        kappa: Cohen's kappa: 1 where they always agree, 0 where they agree as often as chance would; None where chance would always agree.
    """

    a: str
    b: str
    n: int
    same: int
    kappa: float | None


def agreement(of_clips: Mapping[ClipKey, Sequence[Verdict]]) -> list[Agreement]:
    """Each two judges who judged a clip in common, by what stands."""
    by_judge: dict[str, dict[ClipKey, str]] = {}
    for clip, of_clip in of_clips.items():
        for verdict in of_clip:
            if verdict.frames == (None, None):
                by_judge.setdefault(verdict.judge, {})[clip] = verdict.verdict
    pairs = (
        (a, b, [(by_judge[a][c], by_judge[b][c]) for c in by_judge[a].keys() & by_judge[b]]) for a, b in combinations(sorted(by_judge), 2)
    )
    return [Agreement(a, b, len(both), sum(x == y for x, y in both), _kappa(both)) for a, b, both in pairs if both]


def _kappa(both: Sequence[tuple[str, str]]) -> float | None:
    n = len(both)
    observed = sum(x == y for x, y in both) / n
    chance = sum(sum(x == w for x, _ in both) * sum(y == w for _, y in both) for w in VERDICT_WORDS) / n**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def parse(lines: Iterable[str], source: object) -> Iterator[Verdict]:
    """Verdicts of a file of JSON lines; empty lines are passed over.

    Raises:
        SetupError: a line is no verdict; it is named.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield Verdict.from_json(json.loads(line))
            except ValueError as error:
                raise SetupError(f"{source} line {number}", str(error), _CURE) from error


@contextmanager
def _lock(store: Lake) -> Iterator[None]:
    folder = path(store).parent
    with named_errors(folder):
        make_folder(folder)
        with locks.alone(folder):
            sweep(folder)
            yield
