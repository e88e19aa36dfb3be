"""Finds which files are parts or copies of one recording: they go into one split, so that no test video has a twin in training.

A sidecar's `recording` decides; without it the name, by the patterns of the settings; else a file is a recording of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

PATTERNS: Mapping[str, str] = {
    "gopro": r"G(?:[HXLS][0-9A-Z]{2}|OPR|P\d\d)(?P<recording>\d{4})(?:[ _-].*)?",
    "dji": r"DJI_(?P<recording>\d{14}_\d{4}|\d{4})(?:_[A-Z])?(?:_\d{2,3})?",
    "insta360": r"(?:PRO_)?(?:VID|LRV)_(?P<recording>\d{8}_\d{6})(?:_\d\d_\d{3})?",
    "iphone": r"IMG_E?(?P<recording>\d{1,6})(?:[ _-].*)?",
    "pixel": r"PXL_(?P<recording>\d{8}_\d{9})(?:[~.].*)?",
    "samsung": r"(?P<recording>\d{8}_\d{6})(?:_\d+)?",
    "parts": r"(?P<recording>.+?)[ _-]*(?:part|pt|chapter|segment|seg)[ _-]?\d+",
}
"""How cameras name the files of one recording: the group `recording` matches the same text in all of them, in any letter case. These are
GoPro's chapters and proxies, DJI's parts and lenses, Insta360's lenses and parts, edited copies made by phones, and numbered parts."""

_COPY_MARK = re.compile(r"^copy of |(?: ?\(\d+\)|[ _-]+(?:copy|kopie|copia|copie)(?: ?\(?\d+\)?)?)$", re.IGNORECASE)
_CARD_FOLDER = re.compile(r"\d{3}[A-Z0-9_]{5}|DCIM", re.IGNORECASE)
"""Folders that cameras make on a card (DCF): they say nothing about the recording."""


def recordings(videos: Mapping[str, tuple[Path, str]], raw: Path, patterns: Mapping[str, str]) -> dict[str, str]:
    """The recording of each registered video, by video_id.

    Names count within a folder. A folder below `raw` is known by its path from there, any other by its name. A name with the mark of a copy
    ("a (1)", "a copy") belongs to the recording of "a", if that is registered too.

    Args:
        videos: path and SHA-256 (hex) of each, by video_id.
        raw: folder of raw videos.
        patterns: regular expressions with a group `recording`, by a name that tells their recordings apart.
    """
    compiled = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in patterns.items() if pattern}
    root = raw.resolve()
    places = {video_id: (_folder(path, root), path.stem) for video_id, (path, _) in videos.items()}
    contents = {(folder, stem.casefold()): videos[video_id][1] for video_id, (folder, stem) in places.items()}
    found = {}
    for video_id, (folder, stem) in places.items():
        plain = _COPY_MARK.sub("", stem)
        original = contents.get((folder, plain.casefold()), videos[video_id][1])
        found[video_id] = _by_name(folder, plain, compiled) or of_content(original)
    return found


def of_content(sha256: str) -> str:
    """The recording of a file that has no other part or copy."""
    return sha256[:16]


def _by_name(folder: str, stem: str, patterns: Mapping[str, re.Pattern[str]]) -> str | None:
    for name, pattern in patterns.items():
        if matched := pattern.fullmatch(stem):
            return f"{folder}{name} {matched['recording'].lower()}"
    return None


def _folder(path: Path, root: Path) -> str:
    """Identifies a folder wherever the raw folder lies; empty for the raw folder itself."""
    parent = path.parent
    parts: tuple[str, ...] = parent.relative_to(root).parts if parent.is_relative_to(root) else (parent.name,)
    kept = [part for part in parts if not _CARD_FOLDER.fullmatch(part)]
    return f"{PurePath(*kept)}/" if kept else ""
