"""Registering raw files: by the sensor, one bounded scan of the raw folder a tick, or by hand.

What became of each file is a row of table `intake`. A file is known by its content: the same file again keeps its video_id, and so does
a file that was moved (its slug still says the old name, its path is the new one); a copy beside a file that is still there is refused.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.errors import NotAVideo
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import walk
from egoworld_ops.raw.intake import Registered, forgotten, read, registered, update
from egoworld_ops.raw.passed_over import passed_over
from egoworld_ops.raw.walk import IntakeEntry, Seen

SETTLE_S = 1.0
MAX_WAITING = 1000
"""Most files remembered in the cursor as not yet settled; later scans find the others again."""
MAX_BYTES_A_SCAN = 4 << 30
"""Most bytes to read in one scan (one file at least): a sensor's tick has 60 s."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What came of a scan, or of registering by hand.

    Args:
        video_ids: videos that were registered now, new or again.
        refused: rows of `intake` that were not: duplicates, rejected and unstable files, each with its reason and cure.
        cursor: what to give to the next scan.
        passed_over: a line for all that is no video, and for sidecars of none; of a scan only where they differ from those of the last.
    """

    video_ids: list[str]
    refused: list[dict[str, Any]]
    cursor: str
    passed_over: list[str]


def scan(raw: Path, lake: Path, cursor: str | None, limit: int) -> Registration:
    """One bounded scan of the raw folder. A file is taken once it keeps its size and time of change from one scan to the next.

    Args:
        raw: the raw folder.
        lake: folder of the lake that the videos are registered in.
        cursor: of the scan before; None at the first.
        limit: most files to read now.

    Raises:
        NotAVideo: there is no raw folder.
        StorageUnavailable: it cannot be read now.
    """
    if not walk.is_folder(raw):
        raise NotAVideo(raw.absolute(), "is not a folder", "Make it, or name the folder of raw videos in EGOWORLD_RAW")
    store = Lake(lake)
    rows = read(store).to_pylist()
    waiting = _waiting(cursor)
    entries, now = walk.scan(raw, _known(store), _seen(rows) | waiting, limit=_affordable(waiting, limit))
    unstable = {path: seen for path, seen in now.items() if seen.status == "unstable"}
    kept = dict(sorted(unstable.items(), key=lambda item: item[0] not in waiting)[:MAX_WAITING])
    found = _record(store, [e for e in entries if e.status != "unstable" or str(e.path) in kept], take_back=False)
    lines = passed_over(raw)
    said = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    again = _remembered(cursor).get("said") == said
    remember = {"waiting": {path: [s.bytes, s.mtime_ns] for path, s in kept.items()}, "said": said}
    return Registration(found.video_ids, found.refused, json.dumps(remember), [] if again else lines)


def register(lake: Path, paths: Iterable[Path]) -> Registration:
    """Register files, and all videos in folders, in a lake now. Files that changed within the last second are looked at again after one.

    What was forgotten stays so in folders, and is taken back where the file itself is named.

    A file that still changes then is refused as `unstable`; so is everything that cannot be a video, each with its reason.
    """
    store = Lake(lake)
    found: list[Registration] = []
    paths = list(paths)
    for path in paths:
        entries, now = walk.scan(path, _known(store), {}, settle_s=SETTLE_S)
        if any(e.status == "unstable" for e in entries):
            time.sleep(SETTLE_S)
            again, _ = walk.scan(path, _known(store) | _accepted(entries), now, settle_s=SETTLE_S)
            later = {e.path: e for e in again}
            entries = [later.get(e.path, e) for e in entries]
        found.append(_record(store, entries, take_back=not walk.is_folder(path)))
    lines = [line for path in paths for line in passed_over(path)]
    return Registration([v for f in found for v in f.video_ids], [row for f in found for row in f.refused], "", lines)


def _record(store: Lake, entries: Sequence[IntakeEntry], take_back: bool) -> Registration:
    gone = forgotten(store) if entries else {}
    rows = [_row(e, gone, take_back) for e in entries]
    if rows:
        update(store, rows)
    accepted = [row["video_id"] for row in rows if row["status"] == "registered"]
    return Registration(list(dict.fromkeys(accepted)), [row for row in rows if row["status"] != "registered"], "", [])


def _row(entry: IntakeEntry, gone: Mapping[str, str], take_back: bool) -> dict[str, Any]:
    """The row of an entry; `gone` are the videos that were forgotten, by content."""
    row = entry.row()
    if entry.status == "registered" and entry.sha256 in gone:
        row |= {"video_id": gone[str(entry.sha256)]}
        row |= (
            {} if take_back else {"status": "forgotten", "reason": "a person forgot it", "cure": "`egoworld register FILE` takes it back"}
        )
    if entry.status == "duplicate":
        row |= {"reason": f"holds the same content as video {entry.video_id}", "cure": "Nothing to do; remove the copy, or keep it"}
    return row


def _known(store: Lake) -> dict[str, Registered]:
    return {r.sha256: r for r in registered(store).values()}


def _accepted(entries: Iterable[IntakeEntry]) -> dict[str, Registered]:
    return {
        str(e.sha256): Registered(str(e.video_id), e.path, str(e.sha256), e.bytes or 0, e.mtime_ns or 0)
        for e in entries
        if e.status == "registered"
    }


def _seen(rows: Iterable[Mapping[str, Any]]) -> dict[str, Seen]:
    """What earlier scans settled. A copy is looked at again once the file it is a copy of is gone."""
    rows = list(rows)
    originals = {r["video_id"]: Path(r["path"]) for r in rows if r["status"] == "registered"}
    return {
        r["path"]: Seen(r["bytes"] or 0, r["mtime_ns"] or 0, r["status"])
        for r in rows
        if r["status"] in ("registered", "rejected", "forgotten")
        or (r["status"] == "duplicate" and not _is_gone(originals.get(r["video_id"])))
    }


def _is_gone(original: Path | None) -> bool:
    """Whether an original is no longer there; False where that cannot be told now."""
    try:
        return original is None or not original.is_file()
    except OSError:
        return False


def _remembered(cursor: str | None) -> dict[str, Any]:
    try:
        found = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _waiting(cursor: str | None) -> dict[str, Seen]:
    try:
        remembered = _remembered(cursor).get("waiting", {})
        return {path: Seen(size, mtime_ns, "unstable") for path, (size, mtime_ns) in remembered.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _affordable(waiting: Mapping[str, Seen], limit: int) -> int:
    """How many of the files that may have settled can be read now."""
    left, count = MAX_BYTES_A_SCAN, 0
    for seen in list(waiting.values())[:limit]:
        left -= seen.bytes
        if left < 0 and count:
            return count
        count += 1
    return max(count, 1)
