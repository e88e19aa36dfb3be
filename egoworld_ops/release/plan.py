"""What a release is made of: which videos go into which part, and which files of the run into which file of a part. Writes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from egoworld_ops.contract import schema
from egoworld_ops.contract.links import LINKS
from egoworld_ops.errors import BadSettings, ContractError, InputChanged, SetupError
from egoworld_ops.files import regular
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake.chosen import Choice
from egoworld_ops.lake.lake import RELEASED_TABLES, VIDEO_TABLES, Run
from egoworld_ops.lake.states import VideoState, video_ids, video_state
from egoworld_ops.release.place import LEFT_OUT_NAME, ReleaseManifest, part_name, part_names, part_number

VERSION = "3"
"""Raised whenever the same files and settings give another release, links of clips included. Part of every digest here."""

DELETE_AND_MAKE = "Delete it, materialize the stage again, then release"
_SHOWN = 5
_MOST_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the run that goes into a part.

    Args:
        key: names it among those of its video.
        digest: of its result; of its bytes, where it is a failure.
        owned: first and one past the last frame whose rows are taken; None for tables that are not per frame.
        clips: the clips it has rows of.
        made_of: of links, the files that they are computed from; `path` is then the first of them.
        some: whether only the rows of `clips` are taken, of a file that has those of others too.
    """

    path: Path
    table: str
    video_id: str
    key: str
    digest: str
    owned: tuple[int, int] | None
    clips: Sequence[str]
    made_of: Sequence[Source] = ()
    some: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What a release is to hold: the videos; the incomplete ones among all of the run, as in `ReleaseManifest`; by video, clips not chosen."""

    videos: Sequence[str]
    incomplete: Mapping[str, Mapping[str, Mapping[str, int]] | None]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part to be: its name, its videos, and by table the identity of its file, from which its digest is taken."""

    name: str
    videos: Sequence[str]
    digests: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)


def planned_parts(run: Run, videos: Sequence[str], previous: ReleaseManifest | None, part_mb: float, anew: bool) -> list[PlannedPart]:
    """Which videos go into which part. A video stays in its part; new ones go into new parts; a part that lost all its videos stays, empty.

    So the rows of a video are in one file of a table at any time, also for those who opened some files before a release changed and some after.
    Where `release.json` is lost, no name of a file that is there is given anew.

    Args:
        anew: put all videos into new parts.
    """
    old = [part for part in previous.parts if part_number(run, part.name) >= 0] if previous else []
    names = {part.name for part in old} | part_names(run)
    wanted, first = set(videos), 1 + max((part_number(run, name) for name in names), default=-1)
    kept = [] if anew else [PlannedPart(part.name, [v for v in part.videos if v in wanted]) for part in old]
    placed = {v for part in kept for v in part.videos}
    packed = list(_packed(run, [v for v in videos if v not in placed], part_mb * 1e6))
    if not kept and not packed:
        packed = [[]]
    return [*kept, *(PlannedPart(part_name(run, first + n), group) for n, group in enumerate(packed))]


def _packed(run: Run, videos: Sequence[str], most_bytes: float) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for video_id in videos:
        group.append(video_id)
        size += _size(run.video_folder(video_id))
        if size >= most_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(_size(Path(e.path)) if e.is_dir(follow_symlinks=False) else e.stat().st_size for e in entries if _counts(e))


def _counts(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or (entry.name.endswith(".parquet") and entry.name != "states.parquet")


def identity(table: str, layout: Mapping[str, Any], files: Sequence[Source]) -> dict[str, Any]:
    """All that decides the rows of a file of a release and how they are laid out, as JSON."""
    by_video: dict[str, dict[str, list[Any]]] = {}
    for source in files:
        by_video.setdefault(source.video_id, {})[source.key] = [source.digest, *(source.owned or ())]
    return {"release": VERSION, "schema": schema.SCHEMA_VERSION, "table": table, "parquet": dict(layout), "sources": by_video}


class RunFiles:
    """The files of a run that a release takes its rows from. Each video is read once (of the last few thousand).

    Args:
        choice: of the clips whose rows are taken; None takes all. A video without any that is taken is left out.
    """

    def __init__(self, run: Run, choice: Choice | None = None) -> None:
        self._run, self._choice = run, choice
        self._read = lru_cache(_MOST_REMEMBERED)(partial(video_state, run))

    def _state(self, video_id: str) -> VideoState | None:
        state = self._read(video_id)
        left_out = self._left_out(state) if state else []
        if state is None or not left_out:
            return state
        return replace(state, clips=[clip for clip in state.clips if clip.clip_id not in left_out])

    def _left_out(self, state: VideoState) -> list[str]:
        """The clips of a video that are not chosen."""
        takes = self._choice.takes if self._choice else lambda clip: True
        return [clip.clip_id for clip in state.clips if not takes((state.video_id, clip.clip_id))]

    def lacking(self, video_id: str) -> Mapping[str, Mapping[str, int]] | None:
        """What a video lacks of the clips that are taken, as in `ReleaseManifest`; None where it has no manifest.

        Raises:
            ContractError, StorageUnavailable: as `select`.
        """
        state = self._state(video_id)
        return state.lacking() if state else None

    def takes(self, video_id: str) -> bool:
        """Whether anything of a video is taken: where clips are chosen, one of its clips.

        Raises:
            ContractError, StorageUnavailable: as `select`.
        """
        state = self._state(video_id)
        return self._choice is None or bool(state and state.clips)

    def chosen(self, selection: Selection) -> dict[str, Any] | None:
        """How clips were chosen, as `release.json` and exports say it; None where all are taken."""
        return self._choice.described(selection.left_out) if self._choice else None

    def left_out(self, selection: Selection) -> dict[Path, bytes]:
        """The file that says which clips are left out and why, by its place in a release; none where all are taken."""
        return {Path(LEFT_OUT_NAME): self._choice.reasons(selection.left_out)} if self._choice else {}

    def select(self, incomplete: str, say: Callable[[str], None] = lambda line: None) -> Selection:
        """Which videos to release.

        Args:
            incomplete: what becomes of videos that are not whole, as in the settings.
            say: called after each video.

        Raises:
            SetupError: there are such videos, and they are refused.
            BadSettings: clips are chosen, and there is none that is so.
            ContractError: a manifest is damaged.
            StorageUnavailable: a file is there and cannot be read now.
        """
        lacking: dict[str, Mapping[str, Mapping[str, int]] | None] = {}
        left_out: dict[str, Sequence[str]] = {}
        videos = []
        for video_id in video_ids(self._run):
            state = self._state(video_id)
            if state and (away := state.unreadable()) is not None:
                raise away
            if (whole := self._read(video_id)) and (others := self._left_out(whole)):
                left_out[video_id] = others
            if not self.takes(video_id):
                continue
            missing = state.lacking() if state else None
            if missing != {}:
                lacking[video_id] = missing
            if state and (missing == {} or incomplete == "include"):
                videos.append(video_id)
            say(f"looked at {len(videos)} videos")
        if lacking and incomplete == "refuse":
            some = ", ".join(list(lacking)[:_SHOWN])
            raise SetupError(
                f"run {self._run.run_id}",
                f"{len(lacking)} video(s) are incomplete: {some}",
                "Materialize what is missing or stale, or set release.incomplete to include or leave_out",
            )
        if self._choice and not videos and not lacking:
            reason = f"no clip of run {self._run.run_id} is so"
            raise BadSettings(self._choice.said, reason, "`egoworld verdicts list` has those that were judged")
        return Selection(videos, lacking, left_out)

    def has(self, video_id: str) -> bool:
        """Whether a video has a manifest, and all of it can be read.

        Raises:
            ContractError, StorageUnavailable: as `select`.
        """
        state = self._state(video_id)
        if state and (away := state.unreadable()) is not None:
            raise away
        return state is not None

    def with_digests(self, part: PlannedPart, layout: Mapping[str, Any]) -> PlannedPart:
        """The part with the digest of each of its files.

        Raises:
            ContractError, InputChanged: as `sources`.
        """
        found = self.sources(part.videos)
        digests = {table: sha256_of(identity(table, layout, files)) for table, files in found.items()}
        return PlannedPart(part.name, part.videos, digests, {table: len(files) for table, files in found.items()})

    def made_of(self, videos: Sequence[str]) -> str:
        """SHA-256 over the digests of the files that the rows of videos are from: another one means other rows.

        Raises:
            ContractError, InputChanged: as `sources`.
        """
        found = self.sources(videos, [table for table in RELEASED_TABLES if table not in LINKS])
        return sha256_of({table: [source.digest for source in sources] for table, sources in found.items()})

    def sources(self, videos: Sequence[str], tables: Collection[str] = RELEASED_TABLES) -> dict[str, list[Source]]:
        """By table, the files of these videos, in the order of the table's rows.

        Raises:
            ContractError: files say nothing of their origin: they are damaged or foreign; names the first of them.
            InputChanged: a video or a file is no longer there.
        """
        found: dict[str, list[Source]] = {table: [] for table in tables}
        for video_id in videos:
            state = self._state(video_id)
            if state is None:
                raise changed(f"video {video_id}")
            for source in self._of_video(state, tables):
                found[source.table].append(source)
        if broken := [s.path for files in found.values() for s in files if not s.digest]:
            if gone := [path for path in broken if not path.exists()]:
                raise changed(gone[0])
            others = f"; so are {len(broken) - 1} more: {', '.join(map(str, broken[1:_SHOWN]))}" if len(broken) > 1 else ""
            raise ContractError(broken[0], f"is damaged, or not a file of the lake{others}", DELETE_AND_MAKE)
        return found

    def _of_video(self, state: VideoState, tables: Collection[str]) -> Iterator[Source]:
        run, video_id = self._run, state.video_id
        for table in (t for t in VIDEO_TABLES if t in tables):
            path = run.video_table(table, video_id)
            clips = [clip.clip_id for clip in state.clips] if table == "clips" else []
            some = table == "clips" and bool((whole := self._read(video_id)) and self._left_out(whole))
            yield Source(path, table, video_id, ",".join(clips) if some else "", state.manifest.digest or "", None, clips, some=some)
        for clip in state.clips:
            for stage in (s for s, there in clip.states.items() if there in ("done", "damaged") and s in tables):
                path, digest = run.clip_table(stage, video_id, clip.clip_id), clip.stages[stage].counts or ""
                yield Source(path, stage, video_id, clip.clip_id, digest, (clip.own_start, clip.own_end), (clip.clip_id,))
            for stage in clip.failures if "failures" in tables else ():
                path = run.failure(stage, video_id, clip.clip_id)
                yield Source(path, "failures", video_id, f"{clip.clip_id}/{stage}", _content(path), None, (clip.clip_id,))
        for table in (t for t in LINKS if t in tables):
            yield self._of_links(state, table)

    def _of_links(self, state: VideoState, table: str) -> Source:
        """The one source of a table of links: all clips of the video together, each with all its rows."""
        found = [replace(source, owned=None) for source in self._of_video(state, LINKS[table].reads)]
        lacking = [source for source in found if not source.digest]
        said = {source.key: source.digest for source in found}
        clips = [clip.clip_id for clip in state.clips]
        first = (lacking or found)[0].path
        return Source(first, table, state.video_id, "", "" if lacking else sha256_of(said), None, clips, found)


def changed(culprit: object) -> InputChanged:
    """The error of a file or video that is not what it was when the reading of the run was planned."""
    return InputChanged(culprit, "changed while its rows were read", "Try again once nothing writes to the run")


def _content(path: Path) -> str:
    """What identifies a failure: its content, because two attempts at the same work may fail with different words."""
    try:
        return hashlib.sha256(regular.read_bytes(path)).hexdigest()
    except FileNotFoundError:
        raise changed(path) from None
