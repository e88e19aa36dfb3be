"""Names the files of a raw folder that are neither a video nor the sidecar of one, so that nobody waits for them."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from egoworld_ops.errors import printable
from egoworld_ops.types import VIDEO_SUFFIXES
from egoworld_ops.video.sidecar import SUFFIX, plain_name

NAMED = 3
"""Files that are named for each suffix; the others are counted."""
_CURES = {
    ".insv": "export it from Insta360's program to a rectilinear MP4",
    ".360": "export it from GoPro's program to a rectilinear MP4",
    ".lrv": "it is a camera's preview: take the MP4 beside it, or rename it to .mp4",
    ".part": "it is half a download",
    ".crdownload": "it is half a download",
}


def passed_over(folder: Path) -> list[str]:
    """A line for each suffix that is no video's, and one for each sidecar that is no video's; names that start with a dot are left out.

    Args:
        folder: as `walk.scan` walks it: links to folders are not followed. A file, or what cannot be listed, gives no lines.
    """
    strangers: dict[str, list[str]] = defaultdict(list)
    lines, n_videos = [], 0
    unlisted: list[OSError] = []
    for place, names in _folders(folder, unlisted):
        videos = [name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        n_videos += len(videos)
        for name in sorted(set(names) - set(videos)):
            if plain_name(name).endswith(SUFFIX):
                lines += _lost(place / name, videos)
            else:
                strangers[Path(name).suffix].append(str((place / name).relative_to(folder)))
    lines += [_strangers(suffix, found) for suffix, found in sorted(strangers.items())]
    if not n_videos and not unlisted and folder.is_dir():
        lines.append(f"{printable(folder)} holds no video: names of videos end in {' '.join(sorted(VIDEO_SUFFIXES))}")
    return lines


def _folders(folder: Path, unlisted: list[OSError]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder and the names of its files; what cannot be listed goes to `unlisted`."""
    for place, folders, names in os.walk(folder, onerror=unlisted.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), [name for name in names if not name.startswith(".")]


def _strangers(suffix: str, found: list[str]) -> str:
    shown = ", ".join(map(printable, found[:NAMED])) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    cure = _CURES.get(suffix.lower(), "")
    return f"passed over, as {suffix or 'a name without suffix'} is no video's: {shown}" + (f"; {cure}" if cure else "")


def _lost(sidecar: Path, videos: list[str]) -> list[str]:
    """What is wrong with the name of a sidecar; nothing where it is that of a video."""
    stem = sidecar.name[: -len(SUFFIX)]
    plain = {plain_name(Path(name).stem): name for name in videos} | {plain_name(name): name for name in videos}
    exact = {_composed(Path(name).stem) for name in videos}
    if _composed(stem) in exact and sidecar.name.endswith(SUFFIX):
        return []
    near = difflib.get_close_matches(plain_name(stem), plain, 1, 0.8)
    cure = f"if it is that of {plain[near[0]]}, rename it to {Path(plain[near[0]]).stem}{SUFFIX}" if near else "name it as its video"
    return [f"sidecar of no video: {printable(sidecar)}; {printable(cure)}"]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
