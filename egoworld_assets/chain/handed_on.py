"""Clips that go on with the clip before them: which one that is, and in which turn each can be planned. See docs/adr/0062."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from egoworld_ops.types import Clip


@dataclass(frozen=True, slots=True)
class Before:
    """The clip whose result a clip goes on with.

    Args:
        digest: of that result; None where it has none, and will have none for now.
        waits: it is still to be computed, so that this clip cannot be planned yet.
    """

    clip_id: str
    digest: str | None
    waits: bool

    @property
    def identity(self) -> dict[str, str | None]:
        """What of it is part of a digest."""
        return {"clip_id": self.clip_id, "digest": self.digest}


def clip_before(clip: Clip, clips: Mapping[str, Clip]) -> Clip | None:
    """The clip of a video that a clip shares its first frames with; None where it begins a scene, or clips share no frames."""
    return next((c for c in clips.values() if c.own_end == clip.own_start), None) if clip.frame_start < clip.own_start else None


def turns(clips: Mapping[str, Clip]) -> dict[str, int]:
    """The turn of each clip of a video: how many clips before it go on with each other."""
    found: dict[str, int] = {}
    for clip in sorted(clips.values(), key=lambda clip: clip.own_start):
        before = clip_before(clip, clips)
        found[clip.clip_id] = found[before.clip_id] + 1 if before else 0
    return found
