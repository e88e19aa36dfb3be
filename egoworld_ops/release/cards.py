"""The truth cards that a release carries: those of its run that speak of the very rows it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from egoworld_ops.errors import unreadable
from egoworld_ops.lake.lake import Run
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
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unreadable(error, path) or error from error
        if said(content).get("made_of") == contents.made_of([video_id]):
            kept[video_id] = content
        else:
            left_out.append(video_id)
    return Cards(kept, left_out)


def said(content: bytes) -> dict[str, Any]:
    """What a card says; nothing where it is none."""
    try:
        card = json.loads(content)
    except ValueError:
        return {}
    return card if isinstance(card, dict) and isinstance(card.get("stages"), dict) else {}
