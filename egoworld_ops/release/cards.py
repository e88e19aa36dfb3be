"""The truth cards that a release or an export carries: those of its run that speak of the very rows it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.errors import unreadable
from egoworld_ops.files import regular
from egoworld_ops.lake.lake import Run
from egoworld_ops.release.place import card_path
from egoworld_ops.release.plan import RunFiles


@dataclass(frozen=True, slots=True)
class Cards:
    """The truth cards of a run's videos.

    Args:
        kept: by video, the bytes of a card that is of the rows as they are now.
        left_out: the videos whose card is of other rows, or cannot be read as one.
    """

    kept: Mapping[str, bytes]
    left_out: Sequence[str]

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the bytes of each card that is kept, by video."""
        return {video_id: hashlib.sha256(content).hexdigest() for video_id, content in self.kept.items()}

    @property
    def files(self) -> dict[Path, bytes]:
        """The cards that are kept, by their place in the folder of those who carry them."""
        return {card_path(Path(), video_id): content for video_id, content in self.kept.items()}


def of_run(run: Run, videos: Sequence[str], contents: RunFiles) -> Cards:
    """The cards of these videos.

    Raises:
        ContractError, InputChanged: as `RunFiles.made_of`.
        StorageUnavailable: a card is there and cannot be read now.
    """
    kept: dict[str, bytes] = {}
    left_out = []
    for video_id in videos:
        path = run.truth_card(video_id)
        try:
            content = regular.read_bytes(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if (away := unreadable(error, path)) is not None:
                raise away from error
            content = b""
        if said(content).get("made_of") == contents.made_of([video_id]):
            kept[video_id] = content
        else:
            left_out.append(video_id)
    return Cards(kept, left_out)


def complaint(video_id: str) -> str:
    """Why the card of a video is left out, and the cure."""
    return f"the truth card of {video_id} is left out, it is of other rows or damaged: score the video again, if all its clips are taken"


def said(content: bytes) -> dict[str, Any]:
    """What a card says; nothing where it is none."""
    try:
        card = json.loads(content)
    except ValueError:
        return {}
    return card if isinstance(card, dict) and isinstance(card.get("stages"), dict) else {}
